"""What a report leaves behind is not looked through at once, and is given back where a process goes on."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from repro.cli import main
from repro.commands.tables import _uncollected


class Node:
    def __init__(self) -> None:
        self.me = self


def test_a_process_that_goes_on_gets_it_back() -> None:
    frozen = gc.get_freeze_count()
    with _uncollected():
        assert not gc.isenabled()
        node = weakref.ref(Node())
        assert node() is not None, "a cycle is not collected meanwhile"
    assert gc.isenabled()
    assert gc.get_count()[0] < gc.get_threshold()[0], "nothing of it is among the new, which are looked through first"
    assert gc.get_freeze_count() == frozen
    gc.collect()
    assert node() is None


def test_one_without_a_collector_stays_without() -> None:
    gc.disable()
    try:
        with _uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_words_given_by_hand_do_not_end_the_process() -> None:
    frozen = gc.get_freeze_count()
    with pytest.raises(SystemExit):
        main(["list", "--names"])
    assert gc.get_freeze_count() == frozen


def test_a_process_of_its_own_ends_without_a_search() -> None:
    code = (
        "import atexit, gc, sys; from repro.cli import main; sys.argv = ['repro', 'list', '--names'];"
        "atexit.register(lambda: print('frozen', gc.get_freeze_count() > 10_000)); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "frozen True"
