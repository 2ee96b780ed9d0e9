"""The masks of a Spartan step at 1, 10 and 86 million weights, relative to a full sort and the paper's iterations."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.figures import Figure, in_turn, median_ratio, milliseconds
from benchmarks.sinkhorn import sinkhorn_topk
from repro.methods.weights.topk import Entries, SoftSolution, find_cut, hard_mask, soft_mask, solve

SIZES = (1_000_000, 10_000_000, 86_000_000)
ROUNDS = {1_000_000: 7, 10_000_000: 3, 86_000_000: 1}
DENSITY, BETA = 0.1, 20.0  # ViT-B/16 at 90 %
SAME = 1e-4


def weights(count: int) -> Tensor:
    """Return weights with roughly the distribution of a trained transformer's."""
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).mul_(0.03)  # in place: the peak is measured


def ours(values: Tensor, start: SoftSolution | None) -> tuple[Tensor, Tensor, SoftSolution]:
    """Return the soft mask and the support of a step, starting from the solution of the previous step."""
    entries, budget = Entries(values.abs(), 1.0), DENSITY * len(values)
    cut = find_cut(entries, budget)
    solution = solve(entries, budget, BETA, start, cut)
    return soft_mask(entries.ratios, solution), hard_mask(entries, cut), solution


def papers(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same by a full sort, and by Sinkhorn iterations with the paper's stopping criterion."""
    count = int(DENSITY * len(values))
    magnitudes = values.abs()
    support = torch.zeros(len(values), dtype=torch.bool)
    support[torch.sort(magnitudes, descending=True).indices[:count]] = True
    return sinkhorn_topk(magnitudes, 1.0, DENSITY * len(values), BETA), support


def soft_masks() -> list[Figure]:
    """Compare the time of a warm-started step at each size, and the masks."""
    figures, each = [], {}
    for count in SIZES:
        values = weights(count)
        before = ours(values * 0.999, None)[2]
        mask, support, _ = ours(values, before)
        reference = sinkhorn_topk(
            values.abs().double(), 1.0, DENSITY * count, BETA, most_iterations=2000, least_change=1e-12
        )
        apart = float((mask.double() - reference).abs().max())
        missed = abs(float(mask.sum(dtype=torch.float64)) / (DENSITY * count) - 1)
        kept = int(support.sum())
        del mask, support, reference
        pairs = in_turn(partial(papers, values), partial(ours, values, before), ROUNDS[count])
        ratio = median_ratio(pairs)
        each[count] = milliseconds([second for _, second in pairs])
        is_largest = count == SIZES[-1]
        figures.append(
            Figure(
                f"soft and hard mask of a step at {count / 1e6:g} M weights, times faster than full sort + Sinkhorn",
                "at least 10" if is_largest else "–",
                f"{ratio:.1f}",
                ratio >= 10 if is_largest else None,
                {"papers_ms": milliseconds([first for first, _ in pairs]), "ours_ms": each[count]},
            )
        )
        figures.append(
            Figure(
                f"the same mask at {count / 1e6:g} M weights: largest difference to Sinkhorn's to the end",
                f"at most {SAME:g}",
                f"{apart:.1e}",
                apart <= SAME and missed <= 1e-6 and kept == int(DENSITY * count),
                {"budget_missed": missed, "kept": kept},
            )
        )
    first, last = (sorted(each[count])[len(each[count]) // 2] / count for count in (SIZES[1], SIZES[-1]))
    figures.append(Figure("cost of an entry at 86 M over that at 10 M weights", "–", f"{last / first:.2f}", None, {}))
    return figures


def extra_memory() -> Figure:
    """Measure the peak memory of a process that computes both masks, above that of one that only holds the weights."""
    peaks = []
    for what in ("nothing", "masks"):
        command = [sys.executable, "-m", "benchmarks.soft_topk", what, str(torch.get_num_threads())]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    above = (peaks[1] - peaks[0]) / SIZES[-1] / 4
    return Figure(
        "extra memory of a step's masks at 86 M weights, floats an entry", "at most 3", f"{above:.2f}", above <= 3, {}
    )


def print_peak(what: str) -> None:
    """Run in a child process: print the peak resident size in bytes."""
    values = weights(SIZES[-1])
    if what == "masks":
        before = solve(Entries(values.abs(), 1.0), DENSITY * len(values), BETA)
        ours(values, before)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    print(int(peak) * 1024)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    print_peak(sys.argv[1])
