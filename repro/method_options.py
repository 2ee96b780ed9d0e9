"""What a file of conf/method declares beside its values: `choices`, `ranges`, `levels` and `by_scale`.

`choices` lists what a word may be. `ranges` has the least and the largest of a number (null for no bound, another key
of the method for its value), and `whole` after them where it must be an integer. `levels` turns a nominal sparsity into
what it stands for: S2ViTE's 40 % means 0.7 of the heads and 0.6 of the neurons. `by_scale` holds values that the file
reads by the scale's name. All are data, so that a wrong word is found before torch is imported.
"""

from __future__ import annotations

import math
from typing import Any

from repro.errors import did_you_mean


def settle(method: dict[str, Any]) -> list[str]:
    """Apply `levels`, check `choices` and `ranges` of a resolved method section, in place; all of them are gone then.

    Returns one message for each wrong value.
    """
    errors = []
    method.pop("by_scale", None)
    for key, levels in (method.pop("levels", None) or {}).items():
        errors += _apply_levels(method, key, levels)
    unsettled = bool(errors)  # what a level would have set is then missing, and one message is enough
    for key, valid in (method.pop("choices", None) or {}).items():
        value = _get(method, key)
        if value not in valid:
            errors.append(f"method.{key}={_word(value)}: not known{did_you_mean(_word(value), valid)}")
    for key, (least, largest, *kind) in (method.pop("ranges", None) or {}).items():
        value = _get(method, key)
        if not (unsettled and value is None):
            errors += _check_range(method, key, value, least, largest, is_whole="whole" in kind)
    return errors


def _check_range(
    method: dict[str, Any], key: str, value: Any, least: float | None, largest: float | str | None, *, is_whole: bool
) -> list[str]:
    if value is None:
        return [f"method.{key}: needs a value (method.{key}=...)"]
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return [f"method.{key}={_word(value)}: not a number"]
    if is_whole and value != int(value):
        return [f"method.{key}={value}: must be a whole number"]
    bound = _get(method, largest) if isinstance(largest, str) else largest
    if not isinstance(bound, int | float):
        bound = None  # the other key is wrong itself, or there is no bound
    if (least is not None and value < least) or (bound is not None and value > bound):
        words = [f"at least {least:g}"] if least is not None else []
        words += [f"at most {bound:g}"] if bound is not None else []
        words += [f"(method.{largest})"] if isinstance(largest, str) else []
        return [f"method.{key}={value}: must be {' and '.join(words[:2])}{' '.join(['', *words[2:]])}"]
    return []


def _word(value: Any) -> str:
    return "null" if value is None else str(value)


def _apply_levels(method: dict[str, Any], key: str, levels: dict[float, dict[str, Any]]) -> list[str]:
    targets = sorted({target for values in levels.values() for target in values})
    if all(_get(method, target) is not None for target in targets):
        return []  # set by hand
    nominal = _get(method, key)
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
