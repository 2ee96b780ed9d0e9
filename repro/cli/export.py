"""Export a finished run's model, without the heads and neurons that it has pruned.

Examples:
  repro export deit_small/s2vite-40 --out exported
  repro export runs/table1/deit_small/dense/local/seed0-1a2b3c4d --format onnx --out exported
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from repro.cli.completion import complete, config_overrides, every_row
from repro.cli.options import SCALES, add_command, add_runs, announced, at_least, folder, set_threads
from repro.cli.selection import check_row_overrides
from repro.errors import UserError, count_of


def add_parser(commands: Any) -> None:
    command = add_command(commands, "export", __doc__, run)
    text = "folder of a record, or a row: deit_small/s2vite-40"
    complete(command.add_argument("what", metavar="RECORD_OR_ROW", help=text), every_row)
    words = command.add_argument("words", nargs="*", metavar="OVERRIDES", help="overrides of the row's launch")
    complete(words, config_overrides)
    command.add_argument("--out", type=folder, required=True, metavar="DIR", help="output folder")
    command.add_argument("--weights", choices=("last", "best"), default="last", help="epoch (default last)")
    command.add_argument(
        "--kernels",
        choices=("measured", "dense"),
        help="select the fastest kernel for each sparse layer by measuring here, or keep all layers dense (default "
        "measured; with --format dense)",
    )
    command.add_argument(
        "--format",
        action="append",
        choices=("onnx", "torch"),
        default=[],
        help="also write a graph that runs without repro: model.onnx, or model.pt2 of torch.export; may be repeated",
    )
    text = "batch size for the measurement (default 8)"
    command.add_argument("--batch", type=at_least(1), default=8, metavar="N", help=text)
    text = "CPU threads for the measurement (default: all)"
    command.add_argument("--threads", type=at_least(1), metavar="N", help=text)
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="device to measure on (default auto)"
    )
    command.add_argument("--scale", choices=SCALES, default="local", help="scale of the row (default local)")
    command.add_argument("--seed", type=int, default=0, help="seed of the row (default 0)")
    add_runs(command)


def run(options: argparse.Namespace) -> int:
    with announced("loading torch"):
        from repro.distributed import find_device
        from repro.evaluation.finished_model import export_record
        from repro.inference.kernel_selection import KernelSearch
        from repro.launch.plan import finished_record

    check_row_overrides(options.words)
    record = finished_record(options.what, options.scale, options.seed, options.runs, options.words)
    if options.format and options.kernels == "measured":
        raise UserError("--kernels measured: a graph has no operator for sparse kernels; leave out one of the options")
    set_threads(options.threads)
    search = None
    if options.kernels != "dense" and not options.format:
        device = find_device(options.device, option="--device ")
        search = KernelSearch(options.batch, device.type, lambda line: print(f"  {line}"))
    description = export_record(record, options.weights, options.out, search, list(dict.fromkeys(options.format)))
    count, what = description["parameters"], f"{options.weights} epoch"
    if record.is_adopted:
        what = "adopted weights"
    print(
        f"{options.out}: {description['row']}, {what}: {count_of(count['stored'], 'parameter')}, "
        f"{count['nonzero']:,} of them not zero (dense: {count['dense']:,})"
    )
    for graph in description["graphs"].values():
        print(f"  {_graph_line(graph)}")
    if description["kernels"] is not None:
        print(f"  {kernels_line(description['kernels'])}")
    return 0


def _graph_line(graph: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in graph["versions"].items())
    return (
        f"{graph['file']}: any number of images, layers dense; logits within "
        f"{graph['largest_logit_difference']:.1g} of the model's (allowed: {graph['tolerance']:g} of the largest); "
        f"tokens {graph['tokens']}; {versions}"
    )


def kernels_line(kernels: Mapping[str, Any]) -> str:
    """Describe the chosen form of an exported model: `with kernels: 2.10 times as fast as the masked model (...)`."""
    threads = f"{count_of(kernels['threads'], 'thread')}, " if kernels["threads"] else ""
    setting = f"batch {kernels['batch']}, {kernels['dtype']}, {threads}{kernels['device']}"
    speed, limit = 1 / kernels["time_over_masked"]["again"], 1 / kernels["limit_over_masked"]
    text = f"{kernels['form'].replace('_', ' ')}: {speed:.2f} times as fast as the masked model"
    if not kernels["layers"]:
        return f"{text} ({setting}); no layer has a sparse kernel"
    busy = "; measured above its limit: the machine was busy, export again" if speed > limit else ""
    layers = count_of(len(kernels["layers"]), "layer")
    return f"{text} (limit, by what stays dense: {limit:.2f}; {setting}); {layers} with sparse kernels{busy}"
