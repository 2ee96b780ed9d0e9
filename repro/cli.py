"""The command line: one thin function for each command. Heavy imports are inside, so that `repro --help` is quick."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from repro.errors import UserError
from repro.tracking.commands import add_wandb_commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from repro.config import Config
    from repro.launch.plan import PlannedRun
    from repro.measure.rate import Throughput
    from repro.rows import Table

SCALES = ("paper", "local", "smoke")
# What makes a row that row, or has an option of its own: a table's runs may not have it otherwise.
SAID_BY_THE_ROW = (
    *("backbone", "backbone.name", "method", "method.name", "method.sparsity", "method.data_sparsity"),
    *("scale", "scale.name", "seed", "run.root"),
)
MAX_ATTEMPTS = 5
PROBE_S = 45.0


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 something failed, 2 the user has to mend something, 130 stopped by Ctrl-C."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        options = _parse(arguments)
        code = options.function(options)
    except UserError as error:
        print(f"repro: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away (| head): nothing is left to say, and no traceback either
        code = 1
    sys.exit(code)


def _parse(arguments: list[str]) -> argparse.Namespace:
    """Words may stand before and after options; argparse alone takes them in one place only."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "words") or any(word.startswith("-") for word in rest)):
        parser.error(f"not understood: {' '.join(rest)}")
    if rest:
        options.words += rest
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="repro", description="Reproduce the published tables of sparse vision transformers, with a verdict."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="tables, and the rows of one with their published values")
    command.add_argument("table", nargs="?")
    command.add_argument("words", nargs="*", metavar="ROWS", help="patterns: 'deit_small/*' '!*/dense' grid")
    command.add_argument("--json", action="store_true")
    command.add_argument("--names", action="store_true", help="the tables' names only")
    command.set_defaults(function=_list)

    for name, function, text in (
        ("plan", _plan, "which runs a launch would start"),
        ("launch", _launch, "start what is not done, and wait for it"),
        ("report", _report, "write the table and its figure from the records on disk"),
    ):
        command = commands.add_parser(name, help=text)
        _add_selection(command)
        if name == "plan":
            command.add_argument("--json", action="store_true")
            command.add_argument("--probe", action="store_true", help="measure throughput here, in less than a minute")
            command.add_argument("--watts", type=float, metavar="W", help="power of one device, for the energy")
        if name == "launch":
            command.add_argument("--retry", action="store_true", help="start failed runs again")
            _add_launching(command)
        if name != "plan":
            command.add_argument("--reports", type=Path, default=Path("reports"), help="where reports go")
        command.set_defaults(function=function)

    for name, function, text in (
        ("status", _status, "where the runs of a table stand"),
        ("cancel", _cancel, "stop runs; they save first, and a launch goes on with them"),
        ("retry", _retry, "start the failed runs again"),
        ("logs", _logs, "what the latest attempt of a row wrote"),
    ):
        command = commands.add_parser(name, help=text)
        _add_selection(command)
        if name == "status":
            command.add_argument("--watch", action="store_true", help="live, until Ctrl-C")
            command.add_argument("--json", action="store_true")
        if name == "retry":
            _add_launching(command)
            command.add_argument("--reports", type=Path, default=Path("reports"), help="where reports go")
        if name == "logs":
            command.add_argument("--seed", type=int, default=0)
            command.add_argument("--attempt", type=int, help="its number (default: the latest)")
            command.add_argument("--all", action="store_true", help="whole files, not only their ends")
        command.set_defaults(function=function, retry=name == "retry")

    command = commands.add_parser("doctor", help="is this machine, or this cluster, ready?")
    command.add_argument("words", nargs="*", metavar="KEY=VALUE", help="launcher=slurm data.root=/data/imagenet")
    command.add_argument("--scale", choices=SCALES, default="local")
    command.add_argument("--runs", type=Path, default=Path("runs"), help="where the records are (default runs/)")
    command.add_argument("--json", action="store_true")
    command.set_defaults(function=_doctor)

    command = commands.add_parser("bench", help="measure on this machine: `bench time table1` fills the time column")
    command.add_argument("what", choices=("time",))
    command.add_argument("table")
    command.add_argument("words", nargs="*", metavar="ROWS")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda")
    command.add_argument("--batch", type=int, metavar="N", help="images (default 1 on a CPU, 256 on a GPU)")
    command.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="default float32, bfloat16 on a GPU"
    )
    command.add_argument("--threads", type=int, default=1, metavar="N", help="of the CPU (default 1)")
    command.add_argument("--budget", type=float, default=90, metavar="S", help="seconds in all (default 90)")
    command.add_argument("--again", action="store_true", help="measure rows that have a timing of this setting, too")
    command.add_argument("--runs", type=Path, default=Path("runs"), help="where timings go (default runs/)")
    command.set_defaults(function=_bench)

    command = commands.add_parser(
        "extract", help="take what figures need from finished checkpoints: heads, kept patches"
    )
    command.add_argument("table")
    command.add_argument("words", nargs="*", metavar="ROWS_OR_OVERRIDES")
    command.add_argument("--scale", choices=SCALES, default="local")
    command.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 (default: as the table says, mostly 1)")
    command.add_argument("--runs", type=Path, default=Path("runs"), help="where the records are (default runs/)")
    command.add_argument("--again", action="store_true", help="from records that have it, too")
    command.set_defaults(function=_extract)

    command = commands.add_parser("card", help="the reproducibility card: nine variables, from the records' provenance")
    command.add_argument("table")
    command.add_argument("words", nargs="*", metavar="ROWS_OR_OVERRIDES")
    command.add_argument("--scale", choices=SCALES, default="local")
    command.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 (default: as the table says, mostly 1)")
    command.add_argument("--runs", type=Path, default=Path("runs"), help="where the records are (default runs/)")
    command.add_argument("--reports", type=Path, default=Path("reports"), help="where the card goes")
    command.add_argument("--affiliation", default="", help="of whoever reproduces; no record knows it")
    command.set_defaults(function=_card)

    command = commands.add_parser("train", help="one run by hand: backbone=deit_small method=svite method.sparsity=0.5")
    command.add_argument("-m", "--multirun", action="store_true", help="sweep: key=a,b,c (Hydra's own)")
    command.add_argument("words", nargs="*", metavar="KEY=VALUE")
    command.set_defaults(function=_train)

    command = commands.add_parser("export", help="write a finished run's model, without heads and neurons it has lost")
    command.add_argument("what", metavar="RECORD_OR_ROW", help="a record's folder, or a row: deit_small/s2vite-40")
    command.add_argument("words", nargs="*", metavar="KEY=VALUE", help="overrides the row was launched with")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--weights", choices=("last", "best"), default="last", help="of which epoch (default last)")
    command.add_argument("--scale", choices=SCALES, default="local")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--runs", type=Path, default=Path("runs"), help="where the records are (default runs/)")
    command.set_defaults(function=_export)

    add_wandb_commands(commands)
    return parser


def _add_selection(command: argparse.ArgumentParser) -> None:
    command.add_argument("table")
    command.add_argument("words", nargs="*", metavar="ROWS_OR_OVERRIDES", help="row patterns and key=value overrides")
    command.add_argument("--scale", choices=SCALES, default="local")
    command.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 (default: as the table says, mostly 1)")
    command.add_argument("--runs", type=Path, default=Path("runs"), help="where the records are (default runs/)")


def _add_launching(command: argparse.ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="submit to Slurm without asking")
    command.add_argument(
        "--max-attempts",
        type=int,
        default=MAX_ATTEMPTS,
        metavar="N",
        help=f"leave a run alone that was started N times without getting further (default {MAX_ATTEMPTS})",
    )


def _console() -> Console:
    from rich.console import Console

    # A log has no width of its own: wide enough for a table.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def _list(options: argparse.Namespace) -> int:
    from repro.rows import load_table, table_names

    if options.names:
        print("\n".join(table_names()))
        return 0
    if options.table is None:
        for name in table_names():
            table = load_table(name)
            print(f"{name:8} {len(table.rows):3} rows  {table.title}")
        return 0
    table = load_table(options.table)
    rows = table.select(options.words)
    if options.json:
        from dataclasses import asdict

        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    for row in rows:
        cells = {value.metric: None for value in row.published}
        values = [(metric, row.best_published(metric)) for metric in cells]
        text = "  ".join(f"{metric} {value.value:g} ({value.kind})" for metric, value in values if value)
        print(f"{row.id:32} {text or 'no published value'}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    from repro.launch.costing import as_json, costs, published
    from repro.launch.launching import jobs_if_any
    from repro.launch.reconcile import decide
    from repro.launch.showing import print_plan

    table, runs = _planned(options)
    decisions = decide(runs, jobs_if_any(), retry=False, max_attempts=MAX_ATTEMPTS)
    source = _probe(runs) if options.probe else published
    prices = costs(runs, source, options.watts)
    if options.json:
        entries = [
            {
                "row": run.row.id,
                "seed": run.config.seed,
                "state": run.state,
                "action": decision.action,
                "why": decision.why,
                "signature": run.config.signature,
                "record": str(run.record.path),
                **as_json(price),
            }
            for run, decision, price in zip(runs, decisions, prices, strict=True)
        ]
        print(json.dumps(entries, indent=2))
        return 0
    print_plan(f"{table.name} at scale {options.scale}", decisions, prices, _console())
    return 0


def _probe(runs: list[PlannedRun]) -> Callable[[Config], Throughput | None]:
    """Measure each geometry here, all of them in less than a minute."""
    from functools import partial

    from repro.measure.throughput import probe

    geometries = len({(run.config.backbone.name, run.config.model, run.config.recipe.micro_batch) for run in runs})
    return partial(probe, budget_s=PROBE_S / max(1, geometries))


def _launch(options: argparse.Namespace) -> int:
    from repro.launch.launching import Wishes, launch

    table, runs = _planned(options)
    if options.function is _retry:
        runs = [run for run in runs if run.state not in ("planned", "done", "missing")]
        if not runs:
            print("nothing has failed")
            return 0
    wishes = Wishes(options.retry, options.yes, options.max_attempts, options.runs)
    finished = launch(table.name, runs, wishes, _console())
    _write_report(options)
    if not finished:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    failed = [run for run in runs if run.state == "failed"]
    for run in failed:
        print(f"failed: {run.row.id}: {run.record.status().reason} ({run.record.path})", file=sys.stderr)
    open_ends = [run for run in runs if run.state not in ("done", "failed", "missing")]
    if open_ends and open_ends[0].config.launcher.name != "slurm":
        print(f"not finished: {len(open_ends)} runs; the same command goes on with them", file=sys.stderr)
    return 1 if failed or (open_ends and open_ends[0].config.launcher.name != "slurm") else 0


def _retry(options: argparse.Namespace) -> int:
    return _launch(options)


def _status(options: argparse.Namespace) -> int:
    from repro.launch.failures import causes
    from repro.launch.launching import jobs_if_any
    from repro.launch.overview import as_json, lines, render

    table, runs = _planned(options)
    if options.json:
        print(json.dumps(as_json(lines(runs, jobs_if_any())), indent=2))
        return 0
    title, console = f"{table.name} at scale {options.scale}", _console()
    if options.watch:
        from repro.launch.watching import watch

        watch(lambda: render(title, lines(runs, jobs_if_any())), console)
        return 0
    entries = lines(runs, jobs_if_any())
    console.print(render(title, entries))
    for cause in causes(table.name, options.scale, entries):
        console.print(f"\n{len(cause.rows)} failed alike: {cause.line}", soft_wrap=True, markup=False)
        console.print(f"  {', '.join(cause.rows)}\n  {cause.show}", soft_wrap=True, markup=False)
    return 0


def _logs(options: argparse.Namespace) -> int:
    from repro.launch.failures import log_files, tail

    options.seeds = options.seed + 1
    _, runs = _planned(options)
    run = next(run for run in reversed(runs) if run.config.seed == options.seed)
    files = log_files(run.record, options.attempt)
    if not files:
        raise UserError(f"{run.row.id}: nothing was written yet ({run.record.path} is {run.state})")
    for file in files:
        print(f"==> {file}")
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if options.all else tail(file)[-100:]
        print("\n".join(lines))
    return 0


def _cancel(options: argparse.Namespace) -> int:
    from repro.launch.control import cancel
    from repro.launch.launching import jobs_if_any

    _, runs = _planned(options)
    print("\n".join(cancel(runs, jobs_if_any(), options.runs) or ["nothing is running or waiting"]))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from repro.composition import compose
    from repro.launch.doctor import examine

    config = compose([f"scale={options.scale}", *options.words])
    checks = []
    for check in examine(config, options.runs):
        checks.append(check)
        if not options.json:
            advice = f"  -> {check.advice}" if check.advice else ""
            print(f"{check.verdict:4}  {check.name:26} {check.found}{advice}")
    if options.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    return 1 if any(check.verdict == "fail" for check in checks) else 0


def _report(options: argparse.Namespace) -> int:
    _write_report(options)
    return 0


def _planned(options: argparse.Namespace) -> tuple[Table, list[PlannedRun]]:
    from repro.launch.plan import plan
    from repro.rows import load_table

    table = load_table(options.table)
    rows, overrides = _split(options)
    return table, plan(table, table.select(rows), options.scale, range(options.seeds), options.runs, overrides)


def _write_report(options: argparse.Namespace) -> None:
    from repro.report.build import build
    from repro.report.tables import print_claims, print_table
    from repro.rows import load_table

    table = load_table(options.table)
    rows, overrides = _split(options)
    report = build(
        table,
        table.select(rows),
        options.scale,
        range(options.seeds),
        options.runs,
        options.reports,
        overrides,
    )
    console = _console()
    print_table(report.frame, table, console)
    print_claims(report.frame, table, console)
    for path in report.paths:
        console.print(str(path), soft_wrap=True)


def _split(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Row patterns and overrides: an override has an equals sign, a pattern never has. `seeds=3` is `--seeds 3`.

    What is not said is as the table has it for the scale: rows, and the number of seeds.
    """
    from repro.rows import load_table

    table = load_table(options.table)
    rows = [word for word in options.words if "=" not in word]
    overrides = [word for word in options.words if "=" in word]
    for word in [word for word in overrides if word.startswith("seeds=")]:
        overrides.remove(word)
        try:
            options.seeds = int(word.removeprefix("seeds="))
        except ValueError:
            raise UserError(f"{word}: how many seeds? seeds=3") from None
    if options.seeds is None:
        options.seeds = table.seeds(options.scale)
    if options.seeds < 1:
        raise UserError(f"seeds={options.seeds}: at least one")
    for word in overrides:
        if word.partition("=")[0].lstrip("+") in SAID_BY_THE_ROW:
            raise UserError(f"{word}: the row or an option says that; choose rows by pattern, --scale, --seeds, --runs")
    return table.words(rows, options.scale), overrides


def _bench(options: argparse.Namespace) -> int:
    from repro.measure.timed_rows import time_rows
    from repro.rows import load_table

    table = load_table(options.table)
    left_out = time_rows(
        table,
        table.select(options.words),
        options.runs,
        device=options.device,
        batch=options.batch,
        dtype=options.dtype,
        threads=options.threads,
        budget_s=options.budget,
        again=options.again,
    )
    if left_out:
        names = ", ".join(row.id for row in left_out)
        print(f"  not timed within {options.budget:g} s: {names}; the same command goes on with these")
    return 0


def _extract(options: argparse.Namespace) -> int:
    from repro.training.extract import extract

    _, runs = _planned(options)
    written = extract((run.record for run in runs), again=options.again)
    print(f"{written} of {len(runs)} records; repro report {options.table} draws what is in them")
    return 0


def _card(options: argparse.Namespace) -> int:
    from repro.report.card import card, markdown_card, write_card
    from repro.rows import load_table

    table = load_table(options.table)
    rows, overrides = _split(options)
    filled = card(
        table,
        table.select(rows),
        options.scale,
        range(options.seeds),
        options.runs,
        overrides,
        options.affiliation,
    )
    print(markdown_card(filled))
    for path in write_card(filled, options.reports / table.name):
        print(path)
    return 0


def _train(options: argparse.Namespace) -> int:
    from repro.launch.by_hand import train, train_many

    return train_many(options.words) if options.multirun else train(options.words, _console())


def _export(options: argparse.Namespace) -> int:
    from repro.launch.finished import finished_record
    from repro.training.finished import export_record

    record = finished_record(options.what, options.scale, options.seed, options.runs, options.words)
    description = export_record(record, options.weights, options.out)
    count = description["parameters"]
    print(
        f"{options.out}: {description['row']}, {options.weights} epoch: {count['stored']:,} parameters, "
        f"{count['nonzero']:,} of them not zero (dense: {count['dense']:,})"
    )
    return 0


if __name__ == "__main__":
    main()
