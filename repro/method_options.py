"""What a file of conf/method declares beside its values: `choices` and `levels`.

`choices` lists what a word may be. `levels` turns a nominal sparsity into what it stands for: S2ViTE's 40 % means 0.7
of the heads and 0.6 of the neurons. Both are data, so that a wrong word is found before torch is imported.
"""

from __future__ import annotations

import math
from typing import Any

from repro.errors import did_you_mean


def settle(method: dict[str, Any]) -> list[str]:
    """Apply `levels` and check `choices` of a resolved method section, in place; both keys are gone afterwards.

    Returns one message for each wrong value.
    """
    errors = []
    for key, levels in (method.pop("levels", None) or {}).items():
        errors += _apply_levels(method, key, levels)
    for key, valid in (method.pop("choices", None) or {}).items():
        value = _get(method, key)
        if value is not None and value not in valid:
            errors.append(f"method.{key}={value}: not known{did_you_mean(str(value), valid)}")
    return errors


def _apply_levels(method: dict[str, Any], key: str, levels: dict[float, dict[str, Any]]) -> list[str]:
    targets = sorted({target for values in levels.values() for target in values})
    if all(_get(method, target) is not None for target in targets):
        return []  # set by hand
    nominal = method.get(key)
    if not isinstance(nominal, int | float):
        return []  # the schema says so better
    for level, values in levels.items():
        if math.isclose(float(level), float(nominal), abs_tol=1e-9):
            for target, value in values.items():
                if _get(method, target) is None:
                    _set(method, target, value)
            return []
    known = ", ".join(f"{float(level):g}" for level in levels)
    by_hand = " and ".join(f"method.{target}" for target in targets)
    return [f"method.{key}={nominal:g}: {method.get('name')} has levels {known}; for another, set {by_hand}"]


def _get(node: dict[str, Any], dotted: str) -> Any:
    value: Any = node
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _set(node: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, last = dotted.split(".")
    for part in sections:
        node = node[part]
    node[last] = value
