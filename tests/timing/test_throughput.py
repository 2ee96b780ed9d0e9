"""The throughput that `repro plan --probe` measures."""

from __future__ import annotations

from repro.config.compose import compose
from repro.launch.cost_estimate import estimate
from repro.timing.throughput import probe


def test_a_probe_on_a_cpu_counts_cpu_hours() -> None:
    config = compose(["scale=smoke", "run.device=cpu"])
    throughput = probe(config, budget_s=0.0)
    assert throughput.device == "cpu"
    assert throughput.images_per_s > 0
    assert throughput.watts is None
    assert not estimate(config, throughput, None).is_on_gpu
