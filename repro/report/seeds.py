"""What the seeds of a row say together: mean, spread and interval of the best and the last epoch, and paired gains."""

from __future__ import annotations

from collections.abc import Mapping

from repro.report.evidence import Evidence
from repro.report.statistics import paired_differences, summarise

# Each stands for the published training as it is, and with `local_` before it for any other one; never for both.
SEED_COLUMNS = (
    "top1_ci95_low_pct",
    "top1_ci95_high_pct",
    "top1_last_std_pct",
    "gain_n",
    "gain_pct",
    "gain_std_pct",
    "gain_ci95_low_pct",
    "gain_ci95_high_pct",
)
BY_SEED = "top1_by_seed_pct"  # the best epoch's of each finished seed, so that any two rows can be compared: `0=79.9 1=80.1`


def write_by_seed(values: Mapping[int, float]) -> str:
    """Values by seed as one cell."""
    return " ".join(f"{seed}={value:.10g}" for seed, value in values.items())


def read_by_seed(text: str) -> dict[int, float]:
    """What `write_by_seed` wrote."""
    pairs = (word.split("=") for word in text.split())
    return {int(seed): float(value) for seed, value in pairs}


def seed_values(evidence: Evidence, reference: Evidence | None, prefix: str) -> dict[str, float | str | None]:
    """The accuracy columns of one row over its finished seeds, their names beginning with `prefix`.

    A gain is the mean over seeds of the difference to `reference`'s best epoch at the same seed: what a seed does to
    both runs alike is taken out, so that its spread is that of the method's effect.
    """
    bests = evidence.values("top1_best_pct")
    best, last = summarise(bests.values()), summarise(evidence.values("top1_last_pct").values())
    pairs = paired_differences(bests, reference.values("top1_best_pct")) if reference else {}
    gain = summarise(pairs.values() if reference and reference.row != evidence.row else ())
    values: dict[str, float | str | None] = {
        "top1_last_pct": last.mean,
        "top1_best_pct": best.mean,
        "top1_std_pct": best.std,
        "top1_ci95_low_pct": best.low,
        "top1_ci95_high_pct": best.high,
        "top1_last_std_pct": last.std,
        "gain_n": gain.n or None,
        "gain_pct": gain.mean,
        "gain_std_pct": gain.std,
        "gain_ci95_low_pct": gain.low,
        "gain_ci95_high_pct": gain.high,
        BY_SEED: write_by_seed(bests),
    }
    return {f"{prefix}{name}": value for name, value in values.items()}
