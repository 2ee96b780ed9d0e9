"""Evaluate a checkpoint: top-1 and top-5 accuracy, on one device or, with torchrun or srun, on several.

Examples:
  repro eval deit_small/svite-50 --scale paper data.root=/data/imagenet
  repro eval weights.pth backbone=deit_small data.root=/data/imagenet
  repro eval --pretrained backbone=deit_small data.root=/data/imagenet
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.cli.completion import complete, config_overrides, every_row
from repro.cli.options import SCALES, add_command, add_runs, announced, at_least, console, folder, set_threads
from repro.cli.selection import check_row_overrides
from repro.errors import UserError

if TYPE_CHECKING:
    from repro.config import Config, Data
    from repro.distributed import World
    from repro.evaluation.sources import ModelSource

LINE_EVERY_S = 15.0


def add_parser(commands: Any) -> None:
    command = add_command(commands, "eval", __doc__, run)
    text = (
        "folder of a record, row (with the overrides of its launch), exported folder, or file of weights "
        "(with backbone=); data= and data.root= select the images"
    )
    words = command.add_argument("words", nargs="*", metavar="MODEL_OR_OVERRIDES", help=text)
    complete(words, every_row, config_overrides)
    text = "evaluate timm's weights for backbone=, from its cache or the hub"
    command.add_argument("--pretrained", action="store_true", help=text)
    command.add_argument("--weights", choices=("last", "best"), default="last", help="epoch of a run (default last)")
    text = "write the result and its provenance to FILE"
    command.add_argument("--json", type=folder, metavar="FILE", help=text)
    add_evaluation(command)
    text = "scale of a row (default local), or of a file's model (default paper)"
    command.add_argument("--scale", choices=SCALES, help=text)
    command.add_argument("--seed", type=int, default=0, help="seed of a row (default 0)")
    add_runs(command)


def add_evaluation(command: argparse.ArgumentParser) -> None:
    """Add the options of an evaluation: which weights of a file, precision, batch, device, processes and threads."""
    text = "use the EMA weights of a file (default: the raw weights, or the EMA if the file has no others)"
    command.add_argument("--ema", action="store_true", help=text)
    text = "precision (default none: float32)"
    command.add_argument("--amp", choices=("none", "bfloat16"), default="none", help=text)
    command.add_argument("--batch", type=at_least(1), metavar="N", help="batch size per device (default: the recipe's)")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default auto")
    text = "loader processes per rank (default: data.workers, at most one per core)"
    command.add_argument("--workers", type=at_least(0), metavar="N", help=text)
    command.add_argument("--threads", type=at_least(1), metavar="N", help="CPU threads (default: the scale's)")


def run(options: argparse.Namespace) -> int:
    """Evaluate; the first rank prints and writes the result."""
    with joined_world(options) as world:
        with announced("loading torch"):
            from repro.evaluation.report import evaluate, summary
        from repro.files import write_json

        source = world.on_every_rank("reading its weights", lambda: _load(options, world.device.type))
        set_threads(options.threads or source.cpu_threads)
        with progress_bar(source.name, world.is_first) as progress:
            report = evaluate(source, world, batch=options.batch, amp=options.amp, progress=progress)
        if world.is_first:
            print("\n".join([*summary(source.name, report), *(f"  {note}" for note in source.notes)]))
            if options.json is not None:
                write_json(options.json, report)
                print(f"  {options.json}")
    return 0


@contextmanager
def joined_world(options: argparse.Namespace) -> Iterator[World]:
    """Import torch and join the ranks of an evaluation. Raises `UserError` if `--device` is not there."""
    from repro.launch.rendezvous import join_step

    join_step()  # before torch is imported
    with announced("loading torch"):
        from repro.distributed import PeerFailed, join_world, leave_world
    world = join_world(options.device, option="--device ")
    try:
        yield world
    except PeerFailed as failed:
        raise UserError(str(failed)) from None
    finally:
        leave_world()


def _load(options: argparse.Namespace, device: str) -> ModelSource:
    """Load the model named on the command line, and the data set to evaluate it on."""
    names = [word for word in options.words if "=" not in word or Path(word).exists()]
    overrides = [word for word in options.words if word not in names]
    source = _load_model(_single_name(names, options.pretrained), overrides, options, device)
    return replace(source, data=with_workers(source.data, options.workers, overrides))


def _load_model(name: str | None, overrides: Sequence[str], options: argparse.Namespace, device: str) -> ModelSource:
    """Load the model by its name (None: timm's weights) and overrides."""
    from repro.config.compose import with_data
    from repro.evaluation.sources import from_export, from_file, from_record, from_timm
    from repro.evaluation.weights.checkpoint_file import SUFFIXES
    from repro.inference.export import DESCRIPTION
    from repro.launch.plan import finished_record

    if options.ema and (name is None or not Path(name).is_file()):
        raise UserError("--ema: for a file of weights only")
    if name is None:
        return from_timm(_config(overrides, options), {word.partition("=")[0] for word in overrides})
    path = Path(name)
    if path.is_file():
        return from_file(path, _config(overrides, options), options.ema)
    if path.suffix in SUFFIXES and not path.is_dir():
        raise UserError(f"{path}: no such file")
    data_overrides = [word for word in overrides if word.startswith(("data=", "data."))]
    if path.is_dir() and (others := [word for word in overrides if word not in data_overrides]):
        raise UserError(f"eval {path}: its model is fixed; leave out {' '.join(others)}")
    if (path / DESCRIPTION).is_file():
        # Compiled kernels are float32 on a CPU; dense ones are right on every device.
        source = from_export(path, "measured" if device == "cpu" and options.amp == "none" else "dense")
    else:
        check_row_overrides(overrides)
        words = [] if path.is_dir() else overrides
        record = finished_record(name, options.scale or "local", options.seed, options.runs, words)
        source = from_record(record, options.weights)
    return replace(source, data=with_data(source.data, data_overrides))


def _single_name(names: Sequence[str], pretrained: bool) -> str | None:
    if pretrained and names:
        raise UserError(f"eval {names[0]} --pretrained: choose one")
    if pretrained:
        return None
    if len(names) != 1:
        raise UserError(
            f"eval: {', '.join(names) or 'no model'}; name one record's folder, row, exported folder or file of "
            "weights, or --pretrained"
        )
    return names[0]


def _config(overrides: Sequence[str], options: argparse.Namespace) -> Config:
    """The config of a model of which only the weights are known."""
    from repro.config.compose import compose
    from repro.locations import groups

    if not any(word.startswith("backbone=") for word in overrides):
        raise UserError(f"eval: weights of which model? set backbone=, one of {', '.join(groups()['backbone'])}")
    return compose([f"scale={options.scale or 'paper'}", f"seed={options.seed}", *overrides])


def with_workers(data: Data, workers: int | None, overrides: Sequence[str]) -> Data:
    """The data with `workers` loader processes, by default at most one per core. Results do not depend on it."""
    from repro.cores import cores_of_rank

    if workers is None:
        if any(word.startswith("data.workers=") for word in overrides):
            return data
        workers = min(data.workers, cores_of_rank(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    return data.model_copy(update={"workers": workers})


@contextmanager
def progress_bar(name: str, is_first: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar in a terminal, otherwise a line every 15 s. The first rank's progress stands for that of all ranks."""
    if not is_first:
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    out = console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bars:
        bar = bars.add_task(name, total=None)
        line_at = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal line_at
            bars.update(bar, completed=done, total=total)
            if not out.is_terminal and time.monotonic() - line_at > LINE_EVERY_S:
                line_at = time.monotonic()
                print(f"{name}: {100 * done // total} % of the images", flush=True)

        yield show
