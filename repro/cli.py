"""The command line: reads it, runs one command, and ends with an exit code that tells the truth."""

from __future__ import annotations

import argparse
import gc
import sys

from repro.commands import evaluating, launching, mirror, packing, single, tables, watching
from repro.errors import UserError
from repro.runs.sharing import share_as

# In the order of `repro --help`.
COMMANDS = (
    tables.add_list,
    *(launching.add_plan, launching.add_launch),
    tables.add_report,
    *(watching.add_status, watching.add_cancel, launching.add_retry, watching.add_logs, watching.add_doctor),
    single.add_bench,
    *(tables.add_extract, tables.add_interpret, tables.add_card),
    *(single.add_train, evaluating.add_eval, single.add_export),
    packing.add_shards,
    mirror.add_wandb,
)


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 something failed, 2 the user has to mend something, 130 stopped by Ctrl-C.

    Args:
        argv: the words; those of this process, which has nothing else to do then, by default.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        options = _parse(arguments)
        if hasattr(options, "runs"):
            share_as(options.runs)
        code = options.function(options)
    except UserError as error:
        print(f"repro: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away (| head): nothing is left to say, and no traceback either
        code = 1
    except OSError as error:  # a full disk or quota, a file of somebody else's, a file system that has gone away
        print(f"repro: {_words(error)}", file=sys.stderr)
        code = 2
    if argv is None and "torch" not in sys.modules:
        # The process ends here. To look through all that it holds for cycles would take half a second after a report.
        # (Beside torch are libraries that count what is left in the end, and warn of what nobody collected.)
        gc.freeze()
    sys.exit(code)


def _words(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}"


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
    for add in COMMANDS:
        add(commands)
    return parser


if __name__ == "__main__":
    main()
