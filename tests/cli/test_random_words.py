"""Whatever words are typed as overrides: a config or an error with a line for each, never a traceback."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_input import SYNTAX, TYPED, VALUES, random_input

from repro.cli.main import main
from repro.config.compose import compose
from repro.errors import UserError
from repro.locations import groups


def leaves(node: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {
        key: value
        for name, each in node.items()
        for key, value in leaves(each, f"{prefix}.{name}" if prefix else str(name)).items()
    }


CONFIG = leaves(compose(["method=svite"]).model_dump())
KEYS = [*CONFIG, *groups(), "nope", "model.x"]
OVERRIDES = st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), st.sampled_from(KEYS), st.just("="), VALUES)
WORDS = st.one_of(OVERRIDES.map("".join), OVERRIDES.map("".join), SYNTAX, TYPED)


@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_overrides(capsys: pytest.CaptureFixture[str], sweep: list[str]) -> None:
    @given(st.lists(WORDS, min_size=1, max_size=2))
    @random_input
    def check(words: list[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["train", *sweep, "--cfg", "job", "--", *words])
        output, error = capsys.readouterr()
        assert ended.value.code == (2 if error else 0)
        assert bool(error) != bool(output)
        first, *others = error.splitlines() or ["repro: "]
        assert first.startswith("repro: ")
        assert all(line.startswith("  ") for line in others)
        if output and not sweep:
            assert compose(words).signature  # in the name of the record

    check()


@pytest.mark.parametrize("value", ["inf", "nan", "true"])
def test_no_number_is_infinite_or_a_boolean(value: str) -> None:
    numbers = [key for key, each in CONFIG.items() if isinstance(each, int | float) and not isinstance(each, bool)]
    assert len(numbers) > 50
    for key in numbers:
        with pytest.raises(UserError, match=re.escape(key)):
            compose(["method=svite", f"{key}={value}"])
