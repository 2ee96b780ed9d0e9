"""Every option of `conf/method` has a test and is in docs/methods.md, by its name or that of its file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from repro.config.groups import compose_groups
from repro.locations import CONF_DIR

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
TESTS = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
METHODS = sorted(file.stem for file in (CONF_DIR / "method").glob("*.yaml"))


def modules(method: str) -> list[str]:
    """The modules of a method's own classes, also of one that is a variant of another."""
    section = compose_groups({"method": method}).method
    return [part.target.rpartition(".")[0] for part in (section.weights, section.tokens) if part is not None]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_documented(method: str) -> None:
    names = [f"method={method}", f"conf/method/{method}.yaml"]
    names += [f"{module.replace('.', '/')}.py" for module in modules(method)]
    assert any(re.search(rf"{re.escape(name)}\b", DOCS) for name in names), f"docs/methods.md has none of {names}"


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_tested(method: str) -> None:
    names = [f"method={method}", *(f"from {module} import" for module in modules(method))]
    assert any(re.search(rf"{re.escape(name)}\b", TESTS) for name in names), f"no test contains any of {names}"
