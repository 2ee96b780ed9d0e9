"""The line that describes the form of an exported model."""

from __future__ import annotations

import pytest

from repro.cli.export import kernels_line


@pytest.mark.parametrize(
    ("form", "layers", "again", "limit", "line"),
    [
        ("smaller", {}, 0.5, 0.8, "smaller: 2.00 times as fast as the masked model (S); no layer has a sparse kernel"),
        (
            "with_kernels",
            {"blocks.0.mlp.fc1": "csr"},
            0.5,
            0.25,
            "with kernels: 2.00 times as fast as the masked model (limit, by what stays dense: 4.00; S); 1 layer with "
            "sparse kernels",
        ),
        (
            "with_kernels",
            {"blocks.0.mlp.fc1": "csr", "blocks.0.mlp.fc2": "csr"},
            0.5,
            0.8,
            "with kernels: 2.00 times as fast as the masked model (limit, by what stays dense: 1.25; S); 2 layers with "
            "sparse kernels; measured above its limit: the machine was busy, export again",
        ),
    ],
)
def test_a_limit_is_that_of_sparse_layers(
    form: str, layers: dict[str, str], again: float, limit: float, line: str
) -> None:
    kernels = {
        **{"form": form, "layers": layers, "time_over_masked": {"again": again}, "limit_over_masked": limit},
        **{"batch": 1, "dtype": "float32", "threads": 2, "device": "cpu"},
    }
    assert kernels_line(kernels) == line.replace("S", "batch 1, float32, 2 threads, cpu", 1)
