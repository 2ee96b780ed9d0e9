"""Adopt weights that others have trained as evidence for a row: check that they match the row, and evaluate them.

Reads files of SViTE, DeiT, timm, Spartan, IA-RED2 and torchvision. The report shows the accuracy next to that
of runs, never in their place.

Examples:
  repro adopt checkpoint.pth deit_small/svite-50 --origin https://example.org/checkpoint.pth data.root=/data/imagenet
  repro adopt model.pt table2/resnet50/spartan-90 --origin "trained with the official code" data.root=/data/imagenet
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.cli.completion import complete, config_overrides, every_row
from repro.cli.eval import add_evaluation, joined_world, progress_bar, with_workers
from repro.cli.options import SCALES, add_command, add_runs, at_least, folder, set_threads
from repro.cli.selection import check_row_overrides
from repro.errors import UserError

if TYPE_CHECKING:
    from repro.evaluation.adopt import Candidate
    from repro.runs.adopted import AdoptedWeights


def add_parser(commands: Any) -> None:
    command = add_command(commands, "adopt", __doc__, run)
    command.add_argument("file", type=folder, metavar="WEIGHTS", help="file of weights")
    text = "row of the weights: deit_small/svite-50, table2/resnet50/dense"
    complete(command.add_argument("row", metavar="ROW", help=text), every_row)
    text = "overrides: data.root= and other keys of the data set, evaluation options"
    complete(command.add_argument("words", nargs="*", metavar="OVERRIDES", help=text), config_overrides)
    text = "where the file comes from: a URL or a sentence"
    command.add_argument("--origin", required=True, metavar="TEXT", help=text)
    text = "number of evaluations of a model that samples; the mean is recorded (default 5)"
    command.add_argument("--draws", type=at_least(1), metavar="N", help=text)
    command.add_argument("--scale", choices=SCALES, default="paper", help="size of the row's model (default paper)")
    add_evaluation(command)
    add_runs(command)


def run(options: argparse.Namespace) -> int:
    """Check, evaluate and record the weights; the first rank prints."""
    if not " ".join(options.origin.split()):
        raise UserError("--origin: state where the file comes from, as a URL or a sentence")
    if not options.file.is_file():
        raise UserError(f"{options.file}: no such file")
    with joined_world(options) as world:
        from repro.evaluation.adopt import adopt

        candidate = world.on_every_rank("reading its weights", lambda: _candidate(options))
        set_threads(options.threads or candidate.config.scale.cpu_threads)
        with progress_bar(candidate.file.name, world.is_first) as progress:
            adopted = adopt(
                candidate,
                options.runs,
                world,
                draws=options.draws,
                batch=options.batch,
                amp=options.amp,
                progress=progress,
            )
        if world.is_first:
            _print(*adopted)
    return 0


def _candidate(options: argparse.Namespace) -> Candidate:
    from repro.config.compose import compose
    from repro.evaluation.adopt import check_weights
    from repro.tables.loader import find_row

    check_row_overrides(options.words)
    table, row = find_row(options.row)
    if row.reads_runs_of:
        raise UserError(f"{row.id}: has no weights of its own; adopt them for {row.reads_runs_of}")
    config = compose([*row.overrides_at(options.scale), *options.words])
    own = [word for word in options.words if not word.startswith(("data.root=", "data.workers="))]
    found = check_weights(options.file, table, row, config, own, " ".join(options.origin.split()), options.ema)
    data = with_workers(found.source.data, options.workers, options.words)
    return replace(found, source=replace(found.source, data=data))


def _print(place: Path, adopted: AdoptedWeights, is_replacement: bool) -> None:
    from repro.evaluation.report import summary
    from repro.tables.loader import load_table

    file = adopted.file
    print(f"{file.name} (sha256 {file.sha256[:8]}, {file.origin}) is {adopted.table} {adopted.row}:")
    for check in adopted.checks:
        print(f"  {check.what}: {check.found}, planned {check.planned} (tolerance: {check.tolerance})")
    mean = {**adopted.evaluation, "top1_pct": adopted.top1_pct}
    print("\n".join(summary(adopted.row, mean)))
    if len(adopted.top1_by_draw_pct) > 1:
        draws = ", ".join(f"{value:.2f}" for value in adopted.top1_by_draw_pct)
        print(f"  top-1 by draw: {draws} %; top-5 and loss are the first one's")
    for note in adopted.notes:
        print(f"  {note}")
    if is_replacement:
        print("  replaces an earlier evaluation of this file")
    table = load_table(adopted.table)
    rows = "" if adopted.row in {row.id for row in table.select()} else f" {adopted.row}"
    at = "" if adopted.scale == "paper" else f" --scale {adopted.scale}"
    shown = f"repro report {adopted.table}{rows}{at} shows it"
    print(f"  {place}; {shown}, repro export {place} --out DIR makes it small and fast")
