"""Exports a finished model as a graph that runs without this code: ONNX or `torch.export`.

The batch size is dynamic. Before anything is written, the logits of the graph are compared with those of the model.
"""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repro.counting.geometry import Geometry
from repro.errors import UserError, first_line
from repro.inference.logits import logits_of
from repro.inference.shrink import align
from repro.models.token_dropping import mask_instead_of_dropping

OPSET = 25  # the newest that both torch's exporter writes and onnxruntime reads
TOLERANCE = 1e-4  # maximum logit difference, relative to the model's largest logit or to 1 if that is larger
CHECKED_BATCHES = (1, 3, 8)
_EXAMPLE_BATCH = 2  # torch.export specializes a dimension of size 1 to a constant

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Graph:
    """A checked graph: the content of its file and its description in `model.json`."""

    content: bytes
    about: dict[str, Any]


@dataclass(frozen=True)
class Format:
    """A file format of graphs.

    `write` converts a program with metadata into the content of the file, a function that runs that content, and the
    versions of the packages that were used.
    """

    file: str  # the name of the file in an export
    write: Callable[[torch.export.ExportedProgram, Mapping[str, str]], tuple[bytes, Run, dict[str, Any]]]


def build_graph(model: nn.Module, geometry: Geometry, name: str, metadata: Mapping[str, str]) -> Graph:
    """Build and check the graph of a model in evaluation mode, on the CPU. The model is not changed.

    The graph drops tokens if the model drops a fixed number of them. If the number depends on the image, tokens are
    hidden from attention instead, because all images of a batch have the same shape in a graph: the logits are the
    same, but no time is saved.

    Args:
        model: Model to export.
        geometry: Its geometry, which gives the shape of the input.
        name: Format, a key of `FORMATS`.
        metadata: Stored in the file.

    Raises:
        UserError: If the packages of the format are not installed, or if the model samples or cannot be exported.
        ArithmeticError: If the logits of the graph differ from those of the model.
    """
    images = torch.randn(max(CHECKED_BATCHES), *geometry.input_shape, generator=torch.Generator().manual_seed(1))
    expected = logits_of(model, images, seed=0)
    if not torch.equal(expected, logits_of(model, images, seed=1)):
        raise UserError(f"--format {name}: this model samples tokens at random in evaluation, which a graph cannot do")
    static = align(copy.deepcopy(model))  # odd widths are also slow in onnxruntime
    is_hiding = mask_instead_of_dropping(static)
    batch = torch.export.Dim("batch", min=1, max=2**16)
    try:
        program = torch.export.export(static, (images[:_EXAMPLE_BATCH],), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch raises exceptions of many unrelated classes here
        raise UserError(
            f"--format {name}: torch.export cannot trace this model ({type(error).__name__}: {first_line(error)}); "
            "export without --format instead"
        ) from error
    content, run, versions = FORMATS[name].write(program, metadata)
    difference = max(float((run(images[:size]) - expected[:size]).abs().max()) for size in CHECKED_BATCHES)
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ArithmeticError(f"logits of the {name} graph differ from the model's by {difference:.2g}")
    shape = ", ".join(str(size) for size in geometry.input_shape)
    about = {
        "file": FORMATS[name].file,
        "input": f"images: float32 (batch, {shape})",
        "output": f"logits: float32 (batch, {geometry.num_classes})",
        "checked_batches": list(CHECKED_BATCHES),
        "largest_logit_difference": difference,
        "tolerance": TOLERANCE,
        "tokens": "hidden, not dropped: logits are the same, no time is saved" if is_hiding else "as the model",
        "versions": versions,
    }
    return Graph(content, about)


def _onnx(program: torch.export.ExportedProgram, metadata: Mapping[str, str]) -> tuple[bytes, Run, dict[str, Any]]:
    packages = ("onnx", "onnxruntime", "onnxscript")
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UserError(f"--format onnx: {', '.join(missing)} is not installed; pip install 'repro-sparse-vit[onnx]'")
    import onnxruntime

    try:
        exported: Any = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
        )
    except torch.onnx.OnnxExporterError as error:
        reason = first_line(error.__cause__ or error)
        raise UserError(f"--format onnx: ONNX cannot express this model ({reason}); --format torch may work") from error
    proto = exported.model_proto
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    if opsets.get("") != OPSET:
        raise ArithmeticError(f"torch wrote opset {opsets.get('')}, not {OPSET}")
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    content: bytes = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return content, run, {"opset": OPSET, **_versions("torch", *packages)}


def _torch(program: torch.export.ExportedProgram, metadata: Mapping[str, str]) -> tuple[bytes, Run, dict[str, Any]]:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"about.json": json.dumps(dict(metadata))})
    content = buffer.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = loaded(images)
        return logits

    return content, run, _versions("torch")


FORMATS = {"onnx": Format("model.onnx", _onnx), "torch": Format("model.pt2", _torch)}


def _versions(*packages: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in packages}
