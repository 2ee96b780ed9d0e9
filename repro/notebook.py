"""API for notebooks: a report as tables, pictures and sentences.

from repro.notebook import open_report

report = open_report("table1")     # scale and runs from REPRO_SCALE and REPRO_RUNS: local, runs/
report.conclusion                  # what holds, in sentences
report.figure("figure1")           # as in a report, at 150 dots per inch
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd

from repro.config.published_training import PUBLISHED_SCALE
from repro.errors import UserError, count_of, did_you_mean
from repro.report.build import view_of
from repro.report.figures.curves import accuracy_curve
from repro.report.figures.drawings import drawings
from repro.report.figures.files import drawn
from repro.report.figures.mask_history import read_histories
from repro.report.figures.style import PAGE_IN, STYLE, row_label
from repro.report.frame import frame_of, local
from repro.report.next_commands import figures_command
from repro.report.view import View
from repro.tables.loader import load_table

_DOTS_PER_INCH = 150
_GAIN_COLUMNS = {
    "pairs": "gain_n",
    "gain": "gain_pct",
    "95 % from": "gain_ci95_low_pct",
    "95 % to": "gain_ci95_high_pct",
}


class Sentences(tuple[str, ...]):
    """Sentences that a notebook displays as a list."""

    def _repr_markdown_(self) -> str:
        return "\n".join(f"- {sentence}" for sentence in self)

    def __repr__(self) -> str:
        return "\n".join(self)


@dataclass(frozen=True)
class Picture:
    """A figure that a notebook displays, `width_px` pixels wide."""

    caption: str
    png: bytes
    width_px: int

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.png, {"width": self.width_px}

    def __repr__(self) -> str:
        return self.caption


@dataclass(frozen=True)
class Report:
    """The report of a table at one scale."""

    view: View

    @property
    def conclusion(self) -> Sentences:
        """How many published values hold, which do not, and what the scale is."""
        return Sentences(self.view.summary.lines)

    @property
    def frame(self) -> pd.DataFrame:
        """All columns of the report's CSV, indexed by row."""
        return frame_of(self.view.results).set_index("row")

    @property
    def costs(self) -> pd.DataFrame:
        """Counted costs and published values of each row, and its accuracy at this scale."""
        is_paper = self.view.results.scale == PUBLISHED_SCALE
        accuracy = "top1_best_pct" if is_paper else "local_top1_best_pct"
        names = ("params_m", "flops_saving_pct", "flops_saving_pct_published", "flops_saving_pct_verdict")
        return self.frame[[*names, "top1_pct_published", accuracy]].round(2)

    @property
    def verdicts(self) -> pd.DataFrame:
        """Number of cells by metric and verdict."""
        metrics = self.view.results.table.metrics
        counted = {metric.label: self.frame[f"{name}_verdict"].value_counts() for name, metric in metrics.items()}
        return pd.DataFrame(counted).fillna(0).astype(int).drop(index="no published value", errors="ignore").T

    @property
    def claims(self) -> pd.DataFrame:
        """The claims of the paper, judged by measured and by published values."""
        lines = [(one.verdict, one.by_published or "–", one.claim.statement) for one in self.view.claims]
        return pd.DataFrame(lines, columns=["verdict", "by published values", "claim"])

    @property
    def gains(self) -> pd.DataFrame:
        """Gains in best-epoch accuracy over the dense row, with 95 % intervals (percentage points)."""
        # A row's gain is in the columns of the published training or in those of another one.
        found = pd.DataFrame(
            {title: self.frame[name].fillna(self.frame[local(name)]) for title, name in _GAIN_COLUMNS.items()}
        ).dropna(subset="pairs")
        found["decided"] = (found["95 % from"] > 0) | (found["95 % to"] < 0)
        return found.astype({"pairs": int}).round(2)

    @property
    def curves(self) -> pd.DataFrame:
        """Top-1 (percent) after each epoch by row and seed.

        Epochs include those of the training that gave a run its initial weights, as in the report's figures.
        """
        found = {
            f"{one.row.id} seed {seed}": {
                one.config.earlier_epochs + epoch: top1 for epoch, top1 in accuracy_curve(run)
            }
            for one in self.view.results.evidence
            for seed, run in one.finished.items()
        }
        return pd.DataFrame(found).rename_axis("epoch").sort_index().sort_index(axis=1).round(1)

    @property
    def gains_in_words(self) -> Sentences:
        """Sentences that state which gains are decided."""
        found = self.gains
        decided = found[found["decided"]]
        below, above = decided[decided["gain"] < 0], decided[decided["gain"] > 0]
        sentences = [
            f"{len(decided)} of {count_of(len(found), 'difference')} to the dense model "
            f"{'is' if len(found) == 1 else 'are'} decided at 95 %."
        ]
        for words, rows in (("Less accurate", below), ("More accurate", above)):
            if len(rows):
                sentences.append(
                    f"{words}: {', '.join(f'{row} ({gain:+.1f})' for row, gain in rows['gain'].items())} points."
                )
        if len(decided) < len(found):
            open_ = found[~found["decided"]]
            sentences.append(f"Undecided, because the interval contains zero: {', '.join(map(str, open_.index))}.")
        return Sentences(sentences)

    @property
    def mask_updates(self) -> Sentences:
        """Sentences about the mask updates of each row, from its records."""
        results = self.view.results
        sentences = []
        for history in read_histories(results.evidence):
            churn, ever = history.values("churn"), history.values("ever_active")
            if churn is None or len(churn) < 2 or not any(churn):
                continue
            row = history.row
            text = (
                f"{results.table.label(row.backbone)}, {row_label(results.table, row)}: the first update exchanged "
                f"{100 * churn[1]:.0f} % of what was active, the last {100 * churn[-1]:.0f} %"
            )
            explored = f"; {100 * ever[-1]:.0f} % of the weights were active at some time" if ever else ""
            sentences.append(f"{text}{explored}.")
        return Sentences(sentences or ["No finished run has moved a mask."])

    def figure(self, name: str) -> Picture | Sentences:
        """Return a figure of the report, or a sentence if its runs have nothing to show yet.

        Raises `UserError` if the table has no such figure.
        """
        known = {one.name: one for one in drawings(self.view.results)}
        if name not in known:
            # The curves of a backbone exist once one of its runs is finished.
            raise UserError(f"no figure {name!r}{did_you_mean(name, known)}")
        figure = drawn(known[name].draw, PAGE_IN)
        if figure is None:
            table, scale = self.view.results.table.name, self.view.results.scale
            return Sentences([f"Nothing to show yet in {name}: {figures_command(table, scale)} may add it."])
        with mpl.rc_context(STYLE), io.BytesIO() as stream:
            figure.savefig(stream, format="png", dpi=_DOTS_PER_INCH)
            return Picture(known[name].caption, stream.getvalue(), round(PAGE_IN * 120))


def open_report(
    table: str = "table1",
    rows: Iterable[str] = (),
    scale: str | None = None,
    seeds: Sequence[int] | None = None,
    runs: Path | str | None = None,
) -> Report:
    """Open the report of a table, by default with every row, at the scale in REPRO_SCALE, from runs in REPRO_RUNS.

    Sets pandas options, so that data frames are displayed with all rows and without truncated text.

    Raises `UserError` for an unknown table or row, or a damaged record.
    """
    pd.set_option("display.max_rows", None, "display.max_colwidth", None)  # every row, and claims in full
    known = load_table(table)
    scale = scale or os.environ.get("REPRO_SCALE", "local")
    folder = Path(runs or os.environ.get("REPRO_RUNS", "runs"))
    chosen = list(range(known.default_seeds(scale))) if seeds is None else seeds
    return Report(view_of(known, known.select(rows, scale), scale, chosen, folder))
