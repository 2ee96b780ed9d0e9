"""`repro train`, `export`, `bench`: one run by hand, one finished model, one stopwatch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from repro.commands.selection import SCALES, add_runs, console
from repro.errors import UserError


def add_bench(commands: Any) -> None:
    """Add `bench` to the command line's subparsers."""
    command = commands.add_parser("bench", help="measure on this machine: `bench time table1` fills the time column")
    command.add_argument("what", choices=("time",))
    command.add_argument("table")
    text = "row patterns; launcher=NAME: only where runs of that launcher are on this machine"
    command.add_argument("words", nargs="*", metavar="ROWS_OR_LAUNCHER", help=text)
    command.add_argument("--device", default="auto", help="auto, cpu, cuda")
    text = "images; may be said again: the first is the table's column's (default 1 and 8, on a GPU 256 and 1)"
    command.add_argument("--batch", type=int, action="append", default=[], metavar="N", help=text)
    command.add_argument("--column", action="store_true", help="the first batch alone: that of the table's column")
    command.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="default float32, bfloat16 on a GPU"
    )
    command.add_argument("--threads", type=int, default=1, metavar="N", help="of the CPU (default 1)")
    command.add_argument("--budget", type=float, default=90, metavar="S", help="seconds in all (default 90)")
    command.add_argument("--again", action="store_true", help="measure rows that have a timing of this setting, too")
    add_runs(command, "where timings go (default runs/)")
    command.set_defaults(function=_bench)


def add_train(commands: Any) -> None:
    """Add `train` to the command line's subparsers."""
    command = commands.add_parser("train", help="one run by hand: backbone=deit_small method=svite method.sparsity=0.5")
    command.add_argument("-m", "--multirun", action="store_true", help="sweep: key=a,b,c (Hydra's own)")
    command.add_argument("words", nargs="*", metavar="KEY=VALUE")
    command.set_defaults(function=_train)


def add_export(commands: Any) -> None:
    """Add `export` to the command line's subparsers."""
    command = commands.add_parser("export", help="write a finished run's model, without heads and neurons it has lost")
    command.add_argument("what", metavar="RECORD_OR_ROW", help="a record's folder, or a row: deit_small/s2vite-40")
    command.add_argument("words", nargs="*", metavar="KEY=VALUE", help="overrides the row was launched with")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--weights", choices=("last", "best"), default="last", help="of which epoch (default last)")
    command.add_argument(
        "--kernels",
        choices=("measured", "dense"),
        help="measure here which kernel each sparse layer is fastest with, or leave all dense (default measured; with "
        "--format dense)",
    )
    command.add_argument(
        "--format",
        action="append",
        choices=("onnx", "torch"),
        default=[],
        help="write a graph that runs without repro, too: model.onnx, or model.pt2 of torch.export; may be said twice",
    )
    command.add_argument("--batch", type=int, default=8, metavar="N", help="images to measure with (default 8)")
    command.add_argument("--threads", type=int, metavar="N", help="of the CPU to measure with (default: all)")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to measure")
    command.add_argument("--scale", choices=SCALES, default="local")
    command.add_argument("--seed", type=int, default=0)
    add_runs(command)
    command.set_defaults(function=_export)


def _bench(options: argparse.Namespace) -> int:
    from repro.composition import compose
    from repro.paper_tables import load_table

    table = load_table(options.table)
    selected = table.select([word for word in options.words if "=" not in word])
    rows = tuple(dict.fromkeys(table.run_row(row) for row in selected))
    launcher = [word for word in options.words if "=" in word]
    if any(not word.startswith("launcher") for word in launcher):
        raise UserError(f"bench time {' '.join(launcher)}: takes rows, and launcher=NAME")
    if launcher and not compose(launcher).launcher.runs_here:
        print(
            f"not timed: with {launcher[-1]} runs are on other machines; repro bench time {table.name} on one of them"
        )
        return 0
    if any(batch < 1 for batch in options.batch):
        raise UserError(f"--batch {min(options.batch)}: at least 1")
    from repro.measure.timed_rows import time_rows  # imports torch
    from repro.measure.timing_table import timing_table

    left_out = time_rows(
        table,
        rows,
        options.runs,
        device=options.device,
        batches=options.batch,
        is_column_only=options.column,
        dtype=options.dtype,
        threads=options.threads,
        budget_s=options.budget,
        again=options.again,
    )
    if left_out:
        batches: dict[int, list[str]] = {}
        for row, batch in left_out:
            batches.setdefault(batch, []).append(row.id)
        names = "; ".join(f"at batch {batch} {', '.join(some)}" for batch, some in batches.items())
        print(f"  not timed within {options.budget:g} s: {names}; the same command goes on with these")
    if not options.column:
        console().print(timing_table(table, rows, options.runs))
    return 0


def _train(options: argparse.Namespace) -> int:
    from repro.launch.by_hand import train, train_many

    return train_many(options.words) if options.multirun else train(options.words, console())


def _export(options: argparse.Namespace) -> int:
    from repro.launch.finished import finished_record
    from repro.measure.timed_rows import device_named
    from repro.training.finished import export_record

    record = finished_record(options.what, options.scale, options.seed, options.runs, options.words)
    if options.format and options.kernels == "measured":
        raise UserError("--kernels measured: a graph has no operator for them; leave it out, or leave --format out")
    batch = options.batch if options.kernels != "dense" and not options.format else None
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    device = str(device_named(options.device))
    forms = list(dict.fromkeys(options.format))
    description = export_record(
        record, options.weights, options.out, batch, lambda text: print(f"  {text}"), device, forms
    )
    count = description["parameters"]
    print(
        f"{options.out}: {description['row']}, {options.weights} epoch: {count['stored']:,} parameters, "
        f"{count['nonzero']:,} of them not zero (dense: {count['dense']:,})"
    )
    for about in description["graphs"].values():
        print(
            f"  {about['file']}: any number of images, layers dense; logits within "
            f"{about['largest_logit_difference']:.1g} of the model's (allowed: {about['tolerance']:g} of the largest); "
            f"tokens {about['tokens']}; {', '.join(f'{name} {version}' for name, version in about['versions'].items())}"
        )
    if (kernels := description["kernels"]) is not None:
        where = f"{kernels['threads']} threads, {kernels['device']}" if kernels["threads"] else kernels["device"]
        print(
            f"  {kernels['form'].replace('_', ' ')}: {len(kernels['layers'])} layers with sparse kernels, "
            f"{1 / kernels['time_over_masked']['again']:.2f} times as fast as the masked model (limit, by what stays "
            f"dense: {1 / kernels['limit_over_masked']:.2f}; batch {kernels['batch']}, {kernels['dtype']}, {where})"
        )
    return 0
