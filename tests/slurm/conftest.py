"""A Slurm for these tests. Without one they are skipped with one line, or fail with REPRO_REQUIRE_SLURM=1."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import LONG, ORIGIN, ROW, Lab
from one_node import OneNode, missing


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip here and not in a fixture, which would be reported once for each test."""
    lacking = missing() or ("cluster_with_accounting" in getattr(item, "fixturenames", ()) and missing(True))
    if lacking:
        advice = "be root" if lacking == ["root"] else "apt-get install slurm-wlm munge slurmdbd mariadb-server"
        text = f"no Slurm to test with (lacking: {', '.join(lacking)}); {advice}"
        if os.environ.get("REPRO_REQUIRE_SLURM") == "1":
            pytest.fail(text)
        pytest.skip(text)


def _cluster(accounting: bool) -> Iterator[OneNode]:
    # Not below pytest's own folder: the path of a socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    node = OneNode(folder, accounting)
    try:
        node.start()
        yield node
    finally:
        node.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def cluster() -> Iterator[OneNode]:
    yield from _cluster(accounting=False)


@pytest.fixture(scope="session")
def cluster_with_accounting() -> Iterator[OneNode]:
    yield from _cluster(accounting=True)


@pytest.fixture
def lab(cluster: OneNode, tmp_path: Path) -> Lab:
    folder = tmp_path / "a folder; with $odd 'characters'"
    folder.mkdir()
    return Lab(cluster, folder)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cluster: OneNode) -> Iterator[Lab]:
    """The long runs, without Slurm. They run during the first test that compares its own with them."""
    lab = Lab(cluster, tmp_path_factory.mktemp("undisturbed"))
    with lab.begun("launch", "table1", ROW, ORIGIN, "--scale", "smoke", LONG, "tracker=none"):
        yield lab
