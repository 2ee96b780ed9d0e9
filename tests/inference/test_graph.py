"""Exported graphs: onnxruntime and torch.export compute the logits of the model, for any batch size."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from small_runs import config_of

from repro.config import Config
from repro.errors import UserError
from repro.inference.build import masked_model
from repro.inference.export import export, load_exported
from repro.inference.graph import FORMATS, OPSET, Format, build_graph

ORIGIN = {"row": "a/b", "weights": "last"}


def config_and_weights(name: str) -> tuple[Config, dict[str, torch.Tensor]]:
    """Return a config and large random weights; those of a structured method have zero heads and neurons."""
    config = config_of(name)
    draw = torch.Generator().manual_seed(0)
    weights = {}
    for key, value in masked_model(config, None).state_dict().items():
        weights[key] = torch.randn(value.shape, generator=draw) * 0.3 if value.is_floating_point() else value
        if key.endswith("running_var"):
            weights[key] = weights[key].abs() + 0.5
    part = config.method.weights
    if part is not None and part.heads_density is not None:
        for block in range(2):
            attention, mlp = f"blocks.{block}.attn", f"blocks.{block}.mlp"
            weights[f"{attention}.qkv.weight"].view(3, 3, 4, -1)[:, 0] = 0
            weights[f"{attention}.qkv.bias"].view(3, 3, 4)[:, 0] = 0
            weights[f"{mlp}.fc2.weight"][:, 30:] = 0
    return config, weights


def images(config: Config, count: int) -> torch.Tensor:
    return torch.randn(count, *config.model.input_shape, generator=torch.Generator().manual_seed(5))


def session(folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession((folder / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", ["s2vite", "svite_plus", "s2vite_plus", "ia_red2", "linformer", "resnet dense"])
def test_a_graph_has_the_logits_of_the_model(name: str, tmp_path: Path) -> None:
    config, weights = config_and_weights(name)
    description = export(config, weights, tmp_path, ORIGIN, formats=["onnx", "torch"])
    model = load_exported(tmp_path)
    program: Any = torch.export.load(tmp_path / "model.pt2").module()
    run = session(tmp_path)
    for count in (1, 2, 7):
        batch = images(config, count)
        with torch.inference_mode():
            expected = model(batch)
            assert float(expected.abs().max()) > 0.1, "the logits depend on the image"
            torch.testing.assert_close(program(batch), expected, rtol=0, atol=1e-5)
        (found,) = run.run(["logits"], {"images": batch.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)
    assert json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))["graphs"] == description["graphs"]
    about = description["graphs"]["onnx"]
    assert about["tokens"].startswith("hidden, not dropped") is (name == "ia_red2")
    assert about["largest_logit_difference"] <= about["tolerance"] == 1e-4


def test_removed_heads_neurons_and_tokens_are_not_in_the_graph(tmp_path: Path) -> None:
    config, weights = config_and_weights("s2vite_plus")
    export(config, weights, tmp_path, ORIGIN, formats=["onnx"])
    proto = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", OPSET)]
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert metadata["row"] == "a/b"
    assert json.loads(metadata["normalisation"]) == {"mean": [0.3054], "std": [0.3761]}
    assert metadata["dataset"] == "digits"
    shapes = [tuple(tensor.dims) for tensor in proto.graph.initializer]
    # Of 12-wide tokens: two of three heads (24 of 36 rows of qkv) and 30 of 48 neurons are left, nothing of 48.
    assert shapes.count((24,)) == 2
    assert not any(48 in shape or 36 in shape for shape in shapes)
    (head,) = proto.graph.input
    assert [size.dim_value for size in head.type.tensor_type.shape.dim][1:] == [1, 8, 8]
    assert head.type.tensor_type.shape.dim[0].dim_param
    assert any(node.op_type == "TopK" for node in proto.graph.node), "the choice of tokens is in the graph"


@pytest.mark.parametrize("name", ["svite_plus as released", "random dropping"])
def test_a_model_that_samples_has_no_graph(name: str, tmp_path: Path) -> None:
    config, weights = config_and_weights(name)
    with pytest.raises(UserError, match="samples tokens at random in evaluation"):
        export(config, weights, tmp_path, ORIGIN, formats=["torch"])
    assert not list(tmp_path.iterdir())


def test_a_fixed_number_of_dropped_patches_is_hidden_too(tmp_path: Path) -> None:
    config, weights = config_and_weights("attention dropping")
    about = build_graph(masked_model(config, weights), config.model, "torch", ORIGIN).about
    assert about["tokens"].startswith("hidden")


def test_a_graph_with_other_logits_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, weights = config_and_weights("dense")
    correct = FORMATS["torch"]

    def write(*inputs: Any) -> Any:
        content, run, versions = correct.write(*inputs)
        return content, lambda batch: run(batch) + 0.01, versions

    monkeypatch.setitem(FORMATS, "torch", Format(correct.file, write))
    with pytest.raises(ArithmeticError, match=r"torch graph differ from the model's by 0\.01"):
        export(config, weights, tmp_path, ORIGIN, formats=["torch"])
    assert not list(tmp_path.iterdir())


def test_a_new_export_removes_the_graph_of_an_earlier_one(tmp_path: Path) -> None:
    config, weights = config_and_weights("dense")
    export(config, weights, tmp_path, ORIGIN, formats=["torch"])
    assert (tmp_path / "model.pt2").is_file()
    export(config, weights, tmp_path, ORIGIN)
    assert not (tmp_path / "model.pt2").exists()


def test_an_exporter_that_gives_no_reason_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    config, weights = config_and_weights("dense")

    def fail(*_: Any, **__: Any) -> None:
        raise torch.onnx.OnnxExporterError("failed") from AssertionError()

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(UserError, match=r"^--format onnx: ONNX cannot express this model \(AssertionError\); --format"):
        build_graph(masked_model(config, weights), config.model, "onnx", ORIGIN)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    config, weights = config_and_weights("dense")
    model = masked_model(config, weights)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "onnxscript" else find(name, *rest)
    )
    with pytest.raises(UserError, match=r"onnxscript is not installed; pip install 'repro-sparse-vit\[onnx\]'"):
        build_graph(model, config.model, "onnx", ORIGIN)
