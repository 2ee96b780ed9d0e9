"""Parse the command line, run one command, and exit with its code."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import signal
import sys
from typing import Any, NoReturn

from repro import __version__
from repro.cli.options import default_runs
from repro.errors import UserError, did_you_mean, is_out_of_memory, os_error_line
from repro.runs.permissions import adopt_group_umask

# In the order of `repro --help`.
COMMANDS = (
    *("list", "plan", "launch", "report", "status", "cancel", "retry", "logs", "doctor", "bench", "extract"),
    *("interpret", "card", "train", "eval", "adopt", "export", "shards", "wandb", "new", "completion"),
)

TRAINING = ("launch", "retry", "train")  # run again, these resume runs


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit: 0 for success, 1 if a run or check failed, 2 for a user error, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Latin-1 terminal must not fail on a character that it lacks
            stream.reconfigure(errors="replace")
    arguments = sys.argv[1:] if argv is None else argv
    try:
        options = parse(arguments)
        if hasattr(options, "runs"):
            adopt_group_umask(options.runs)
        code = options.function(options)
        print(end="", flush=True)  # here, a full disk is one line
    except UserError as error:
        print(f"repro: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader has closed the pipe (| head)
        sys.stderr.close()
        code = 1
    except OSError as error:  # a full disk or quota, missing permissions, an unmounted file system
        print(f"repro: {os_error_line(error, resumes=arguments[0] in TRAINING)}", file=sys.stderr)
        code = 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first = str(error).partition("\n")[0] or "an allocation failed"
        print(f"repro: out of memory: {first}; set a lower --batch (repro {arguments[0]} --help)", file=sys.stderr)
        code = 2
    if argv is None:  # shutting down takes a while; Ctrl-C during it would replace the exit code by death from a signal
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse a command line; row patterns and overrides may be mixed with options.

    Raises `UserError` for an unknown command or option, with the nearest one.
    """
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)  # exits
    command = next(iter(arguments), "")
    if command and not command.startswith("-") and command not in COMMANDS:
        raise UserError(f"no command {command!r}{did_you_mean(command, COMMANDS)} (repro --help)")
    options, rest = parser.parse_known_args(arguments)
    if rest and not hasattr(options, "words"):
        raise UserError(f"{command}: too many arguments: {' '.join(rest)} (repro {command} --help)")
    if rest:
        options.words = [*options.words, *rest]  # argparse accepts positional arguments in one place only
    if getattr(options, "runs", ".") is None:
        options.runs = default_runs()
    return options


class Parser(argparse.ArgumentParser):
    """A parser, also for subcommands, whose errors are one line with the nearest valid word."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an unknown option is reported before anything else, such as a missing argument."""
        known = [name for action in self._actions for name in action.option_strings]
        for word in args:
            if word == "--" or (self._subparsers and not word.startswith("-")):  # the rest belongs to the command
                break
            name = word.partition("=")[0]
            if re.fullmatch(r"-[^\s\d.]\S*", name) and name not in known:
                self.error(f"no option {word}{did_you_mean(name, [each for each in known if each.startswith('--')])}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise `UserError`; argparse would print the usage and exit."""
        choice = re.search(r"(.*)invalid choice: '(.*)' \(choose from (.*)\)", message)
        if choice:
            argument, word, valid = choice.groups()
            nearest = did_you_mean(word, re.findall(r"[\w-]+", valid))
            message = f"{argument.removeprefix('argument ')}invalid choice {word!r}{nearest}"
        raise UserError(f"{self.prog.removeprefix('repro').strip()}: {message} ({self.prog} --help)".removeprefix(": "))


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands; `add_parser` of each command's module adds it."""
    parser = Parser(
        prog="repro",
        description="Reproduce published tables of sparse vision transformers, with a verdict for each cell.",
        epilog="repro COMMAND --help shows the options and examples of a command.",
        allow_abbrev=False,
    )
    text = "show the version and exit"
    parser.add_argument("--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help=text)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"repro.cli.{name}").add_parser(commands)
    return parser


class _Version(argparse.Action):
    """`--version`; the commit is looked up only when requested."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print the version of the package, and the commit of a clone."""
        from repro.runs.provenance import commit

        sha = commit()
        print(f"repro {__version__}{f' (commit {sha[:12]})' if sha else ''}")
        parser.exit()
