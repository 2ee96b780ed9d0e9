"""Train a single run, or a sweep of runs, from Hydra overrides.

Examples:
  repro train backbone=deit_small method=svite method.sparsity=0.5
  repro train experiment=svite_longer seed=1
  repro train -m backbone=deit_tiny,deit_small seed=0,1,2 launcher=slurm launcher.partition=gpu
  repro train --config-dir my_configs experiment=mine --cfg job

Running the same command again resumes the run or prints its result. launcher=local and launcher=slurm work as in
repro launch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro.cli.completion import complete, config_overrides
from repro.cli.options import TABLE_WIDTH, add_command, announced, console, folder
from repro.errors import UserError
from repro.locations import CONF_DIR, add_config_dirs, groups

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SEARCH_PATH = "hydra.searchpath="


def add_parser(commands: Any) -> None:
    command = add_command(commands, "train", __doc__, run)
    words = command.add_argument("words", nargs="*", metavar="OVERRIDES", help="group=option key=value +key=value ~key")
    complete(words, config_overrides)
    command.add_argument("-m", "--multirun", action="store_true", help="a sweep: key=a,b key=range(1,4) group=glob(*)")
    command.add_argument("--yes", action="store_true", help="do not ask for confirmation (asked as in repro launch)")
    text = "print the resolved config of the run, Hydra's own, or both, and exit"
    command.add_argument("--cfg", choices=("job", "hydra", "all"), help=text)
    text = f"print how Hydra composes the config ({', '.join(INFO)}; default all), and exit"
    command.add_argument("--info", nargs="?", const="all", choices=INFO, metavar="WHAT", help=text)
    text = "folder with your config files: DIR/method/NAME.yaml, DIR/experiment/NAME.yaml; may be repeated"
    command.add_argument("--config-dir", action="append", default=[], type=folder, metavar="DIR", help=text)
    options = "\n".join(f"  {group}: {', '.join(names)}" for group, names in groups().items())
    command.epilog = f"config groups and their options:\n{options}\n\n--cfg job prints all keys."


def run(options: argparse.Namespace) -> int:
    with announced("composing the config"):
        from repro.launch.single_run import train, train_sweep

    overrides = _without_hydra(options.words, options.config_dir)
    if options.cfg is not None or options.info is not None:
        _print_config(overrides, options)
        return 0
    start = train_sweep if options.multirun else train
    return start(overrides, console(TABLE_WIDTH), options.yes)


def _without_hydra(words: Sequence[str], config_dirs: Sequence[Path]) -> list[str]:
    """The overrides of the run; `hydra.searchpath=[...]` is the same as `--config-dir`."""
    from repro.config.overrides import parse_list

    add_config_dirs(config_dirs)
    overrides = []
    for word in words:
        if word.lstrip("+").startswith(SEARCH_PATH):
            add_config_dirs(parse_list(word.lstrip("+")))
        elif word.lstrip("+~").startswith(("hydra.", "hydra/")):
            raise UserError(
                f"{word}: of Hydra's own settings only {SEARCH_PATH}[DIR]; runs go to launcher=inline, local or slurm"
            )
        else:
            overrides.append(word)
    return overrides


def _print_config(overrides: Sequence[str], options: argparse.Namespace) -> None:
    import yaml

    from repro.config.compose import compose
    from repro.config.groups import hydra_overrides, hydra_section
    from repro.config.overrides import split_sweep

    runs = split_sweep(overrides, groups()) if options.multirun else [overrides]
    texts = []
    for own, config in [(own, compose(own)) for own in runs]:
        text = hydra_section(own) if options.cfg in ("hydra", "all") else ""
        if options.cfg in ("job", "all"):
            text += yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        texts.append(text if options.info is None else _hydra_info(options.info, hydra_overrides(own)))
    print("---\n".join(texts), end="")


def _hydra_info(what: str, overrides: Sequence[str]) -> str:
    """Return Hydra's own description of a composition."""
    import contextlib
    import io

    import hydra

    sys.argv = ["repro train", "--info", what, *overrides]
    text = io.StringIO()  # Hydra's logger would print a traceback for a pipe that is closed (| head)
    with contextlib.redirect_stdout(text):
        hydra.main(config_path=str(CONF_DIR), config_name="config", version_base="1.3")(lambda _: None)()
    return text.getvalue()
