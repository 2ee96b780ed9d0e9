"""A finished model as a graph that runs without this code: ONNX, or the file of `torch.export`.

The images' number is free. Whatever the graph says is compared with the model itself before anything is written.
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

from repro.errors import UserError
from repro.geometry import Geometry
from repro.models.shrink import align
from repro.tokens.dropping import hide_instead_of_dropping

OPSET = 25  # the newest that both torch's exporter writes and onnxruntime reads
# How far a graph's logits may be from the model's, as a share of the largest of them (or of 1).
TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 3, 8)
_EXAMPLE = 2  # torch takes a size of 1 for one that never changes

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Graph:
    """A checked graph: the bytes of its file, and what `model.json` says of it."""

    file: str
    content: bytes
    about: dict[str, Any]


def graph_of(model: nn.Module, geometry: Geometry, form: str, about: Mapping[str, str]) -> Graph:
    """The graph of a model in evaluation mode, on the CPU; the model is not changed.

    Tokens that a model drops by a fixed number are dropped in the graph. Where the number differs from image to image
    they are hidden from attention instead: a graph has one shape for all images of a batch, so the logits are the same
    and no time is saved. `about` goes into the file where it has a place for words.

    Raises:
        UserError: for a form that is not installed, a model that draws at random, or one that torch cannot export.
        ArithmeticError: where the graph's logits are not the model's.
    """
    if form not in FORMS:
        raise UserError(f"--format {form}: valid: {', '.join(FORMS)}")
    drawn = torch.randn(max(CHECKED_BATCHES), *geometry.input_shape, generator=torch.Generator().manual_seed(1))
    expected = _logits(model, drawn, 0)
    if not torch.equal(expected, _logits(model, drawn, 1)):
        raise UserError(f"--format {form}: this model draws at random in evaluation; no graph says twice the same")
    static = align(copy.deepcopy(model))  # as the export is loaded: odd widths are slow in onnxruntime, too
    is_hiding = hide_instead_of_dropping(static)
    file, write = FORMS[form]
    try:
        program = torch.export.export(
            static, (drawn[:_EXAMPLE],), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=2**16)},)
        )
    except Exception as error:  # torch has no common class for what it cannot trace
        first = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"--format {form}: torch.export cannot trace this model ({type(error).__name__}: {first}); leave --format "
            "out: the export that repro reads has no such limit"
        ) from error
    content, run, versions = write(program, about)
    difference = 0.0
    for size in CHECKED_BATCHES:
        difference = max(difference, float((run(drawn[:size]) - expected[:size]).abs().max()))
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ArithmeticError(f"logits of the {form} graph differ from the model's by {difference:.2g}")
    shape = ", ".join(str(size) for size in geometry.input_shape)
    return Graph(
        file,
        content,
        {
            "file": file,
            "input": f"images: float32 (batch, {shape})",
            "output": f"logits: float32 (batch, {geometry.num_classes})",
            "checked_batches": list(CHECKED_BATCHES),
            "largest_logit_difference": difference,
            "tolerance": TOLERANCE,
            "tokens": "hidden, not dropped: logits are the same, no time is saved" if is_hiding else "as the model",
            "versions": versions,
        },
    )


def _onnx(program: torch.export.ExportedProgram, about: Mapping[str, str]) -> tuple[bytes, Run, dict[str, Any]]:
    if missing := [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise UserError(f"--format onnx: {', '.join(missing)} is not installed; pip install 'repro-sparse-vit[onnx]'")
    import onnxruntime

    try:
        made: Any = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
        )
    except torch.onnx.OnnxExporterError as error:
        first = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(f"--format onnx: ONNX cannot say this model ({first}); --format torch may") from error
    proto = made.model_proto
    written = {entry.domain: entry.version for entry in proto.opset_import}
    if written.get("") != OPSET:
        raise ArithmeticError(f"torch wrote opset {written.get('')}, not {OPSET}")
    for key, value in about.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    content: bytes = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return content, run, {"opset": OPSET, **_versions("torch", "onnx", "onnxruntime", "onnxscript")}


def _torch(program: torch.export.ExportedProgram, about: Mapping[str, str]) -> tuple[bytes, Run, dict[str, Any]]:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"about.json": json.dumps(dict(about))})
    content = buffer.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = loaded(images)
        return logits

    return content, run, _versions("torch")


# Of each form: the name of its file, and what writes it and reads it back.
FORMS: Mapping[
    str,
    tuple[str, Callable[[torch.export.ExportedProgram, Mapping[str, str]], tuple[bytes, Run, dict[str, Any]]]],
] = {"onnx": ("model.onnx", _onnx), "torch": ("model.pt2", _torch)}


def _logits(model: nn.Module, images: Tensor, seed: int) -> Tensor:
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        logits: Tensor = model(images)
    return logits


def _versions(*packages: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in packages}
