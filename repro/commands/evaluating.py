"""`repro eval`: the accuracy of any checkpoint, on one device or, under torchrun or srun, on many."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.commands.selection import SCALES, add_runs, console
from repro.errors import UserError

if TYPE_CHECKING:
    from repro.config import Config, Data
    from repro.training.evaluated import Evaluated

LINE_EVERY_S = 15.0


def add_eval(commands: Any) -> None:
    """Add `eval` to the command line's subparsers."""
    command = commands.add_parser("eval", help="top-1 and top-5 of any checkpoint, or of timm's pretrained weights")
    text = (
        "a record's folder, a row (with the overrides it was launched with), an exported folder or a file of weights "
        "(with backbone=); data=, data.root= say what to evaluate on"
    )
    command.add_argument("words", nargs="*", metavar="WHAT_OR_OVERRIDES", help=text)
    command.add_argument("--pretrained", action="store_true", help="timm's weights of backbone=, from its cache or hub")
    command.add_argument("--weights", choices=("last", "best"), default="last", help="of which epoch of a run")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the result there, with where it comes from")
    command.add_argument(
        "--amp", choices=("none", "bfloat16"), default="none", help="precision (default none: float32)"
    )
    command.add_argument("--batch", type=int, metavar="N", help="images on one device at once (default: the recipe's)")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    text = "loader processes of each rank (default: the data's, or as many as it has cores where these are fewer)"
    command.add_argument("--workers", type=int, metavar="N", help=text)
    command.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: the scale's)")
    command.add_argument(
        "--scale", choices=SCALES, help="of the row (default local), or of a file's model (default paper)"
    )
    command.add_argument("--seed", type=int, default=0)
    add_runs(command)
    command.set_defaults(function=_eval)


def _eval(options: argparse.Namespace) -> int:
    for name in ("batch", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: at least 1")
    if options.workers is not None and options.workers < 0:
        raise UserError(f"--workers {options.workers}: at least 0")
    from repro.launch.rendezvous import join_step

    join_step()  # before torch is imported
    import torch

    from repro.measure.timed_rows import device_named
    from repro.runs.files import write_json
    from repro.training.accuracy_report import measure, said
    from repro.training.distributed import PeerFailed, join_world, leave_world

    device = device_named(options.device)
    world = join_world(device.type)
    try:
        evaluated, data, threads = world.together("reading its weights", lambda: _what(options, device.type))
        if options.threads or threads:
            torch.set_num_threads(options.threads or threads)
        with _shown(evaluated.name, world.is_first) as progress:
            report = measure(evaluated, data, world, batch=options.batch, amp=options.amp, progress=progress)
        if world.is_first:
            for line in said(evaluated.name, report):
                print(line)
            if options.json is not None:
                write_json(options.json, report)
                print(f"  {options.json}")
    except PeerFailed as failed:
        raise UserError(str(failed)) from None
    finally:
        leave_world()
    return 0


def _what(options: argparse.Namespace, device: str) -> tuple[Evaluated, Data, int]:
    """The model, the data, and how many threads its training had on a CPU; 0 where that does not matter."""
    from repro.composition import with_data
    from repro.cores import cores_of_rank
    from repro.launch.finished import finished_record
    from repro.models.export import DESCRIPTION
    from repro.training.evaluated import of_export, of_file, of_pretrained, of_record
    from repro.training.state_file import ENDINGS

    names = [word for word in options.words if "=" not in word or Path(word).exists()]
    words = [word for word in options.words if word not in names]
    about_data = [word for word in words if word.startswith(("data=", "data."))]
    others = [word for word in words if word not in about_data]
    what = _one(names, options.pretrained)
    threads = 0
    if what is None:
        evaluated = of_pretrained(_config(words, options), {word.partition("=")[0] for word in words})
        data = evaluated.data
    elif (Path(what) / DESCRIPTION).is_file():
        _no_more(others, what)
        # A compiled kernel is of float32 on a CPU; an export is right on every device with dense ones.
        kernels: Any = "measured" if device == "cpu" and options.amp == "none" else "dense"
        evaluated = of_export(Path(what), kernels)
        data = with_data(evaluated.data, about_data)
    elif Path(what).is_file():
        evaluated = of_file(Path(what), _config(words, options))
        data = evaluated.data
    elif Path(what).suffix in ENDINGS:
        raise UserError(f"{what}: no such file")
    else:
        if Path(what).is_dir():
            _no_more(others, what)
        record = finished_record(what, options.scale or "local", options.seed, options.runs, words)
        evaluated, threads = of_record(record, options.weights), record.config().scale.cpu_threads
        data = with_data(evaluated.data, about_data)
    if options.workers is not None:
        data = data.model_copy(update={"workers": options.workers})
    elif not any(word.startswith("data.workers=") for word in words):  # no result hangs on how many there are
        mine = cores_of_rank(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        data = data.model_copy(update={"workers": min(data.workers, mine)})
    return evaluated, data, threads


def _one(names: Sequence[str], pretrained: bool) -> str | None:
    if pretrained and names:
        raise UserError(f"eval {names[0]} --pretrained: one or the other")
    if pretrained:
        return None
    if len(names) != 1:
        given = ", ".join(names) or "nothing"
        raise UserError(
            f"eval: {given}; give one record's folder, row, exported folder or file of weights, or --pretrained"
        )
    return names[0]


def _no_more(words: Sequence[str], what: str) -> None:
    if words:
        raise UserError(f"eval {what}: it says itself what it is; {' '.join(words)} changes nothing, leave it out")


def _config(words: Sequence[str], options: argparse.Namespace) -> Config:
    """The model that a file's weights are of; nobody guesses the backbone."""
    from repro.composition import compose, groups

    if not any(word.startswith("backbone=") for word in words):
        raise UserError(f"eval: weights of which model? backbone=, one of {', '.join(groups()['backbone'])}")
    return compose([f"scale={options.scale or 'paper'}", f"seed={options.seed}", *words])


@contextmanager
def _shown(name: str, is_first: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar in a terminal, a line now and then elsewhere; on the first rank only, whose images stand for all."""
    if not is_first:
        yield lambda done, of: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    where = console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=where, transient=True, disable=not where.is_terminal) as bars:
        bar = bars.add_task(name, total=None)
        line_at = time.monotonic()

        def show(done: int, of: int) -> None:
            nonlocal line_at
            bars.update(bar, completed=done, total=of)
            if not where.is_terminal and time.monotonic() - line_at > LINE_EVERY_S:
                line_at = time.monotonic()
                print(f"{name}: {100 * done // of} % of the images", flush=True)

        yield show
