"""Declarations of a method's options in its file in conf/method, so that they are checked without importing torch.

`choices` lists the valid values of an option. `ranges` gives the minimum and maximum of a number, and `whole` if it
must be an integer; a bound is a number, null for no bound, or (for a maximum) another key of the method. `levels` maps
a nominal sparsity to the options that it stands for: 40 % of S2ViTE is 0.7 of the heads and 0.6 of the neurons.
`by_scale` holds values that the file itself interpolates by the name of the scale.
"""

from __future__ import annotations

import math
from typing import Any

from repro.errors import did_you_mean


def apply_declarations(method: dict[str, Any]) -> list[str]:
    """Apply the declarations of a method section and remove them, in place; return a message for each error."""
    errors = []
    method.pop("by_scale", None)
    for key, levels in (method.pop("levels", None) or {}).items():
        errors += _apply_levels(method, key, levels)
    has_unknown_level = bool(errors)  # then the options that a level would set are missing, without another message
    for key, valid in (method.pop("choices", None) or {}).items():
        value = _get(method, key)
        if value not in valid:
            errors.append(f"method.{key}={_text(value)}: not known{did_you_mean(_text(value), valid)}")
    for key, (minimum, maximum, *kind) in (method.pop("ranges", None) or {}).items():
        value = _get(method, key)
        if not (has_unknown_level and value is None):
            errors += _check_range(method, key, value, minimum, maximum, is_whole="whole" in kind)
    return errors


def _check_range(
    method: dict[str, Any], key: str, value: Any, minimum: float | None, maximum: float | str | None, *, is_whole: bool
) -> list[str]:
    if value is None:
        return [f"method.{key}: needs a value (method.{key}=...)"]
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return [f"method.{key}={_text(value)}: not a number"]
    if is_whole and value != int(value):
        return [f"method.{key}={value}: must be a whole number"]
    bound = _get(method, maximum) if isinstance(maximum, str) else maximum
    if not isinstance(bound, int | float):
        bound = None  # no bound, or the value of the other key is invalid
    if (minimum is None or value >= minimum) and (bound is None or value <= bound):
        return []
    limits = [f"at least {minimum:g}"] if minimum is not None else []
    limits += [f"at most {bound:g}"] if bound is not None else []
    source = f" (method.{maximum})" if isinstance(maximum, str) else ""
    return [f"method.{key}={value}: must be {' and '.join(limits)}{source}"]


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _apply_levels(method: dict[str, Any], key: str, levels: dict[float, dict[str, Any]]) -> list[str]:
    targets = sorted({target for values in levels.values() for target in values})
    if all(_get(method, target) is not None for target in targets):
        return []  # all options are set explicitly
    nominal = _get(method, key)
    if not isinstance(nominal, int | float):
        return []  # pydantic reports a better message
    for level, values in levels.items():
        if math.isclose(float(level), float(nominal), abs_tol=1e-9):
            for target, value in values.items():
                if _get(method, target) is None:
                    _set(method, target, value)
            return []
    known = ", ".join(f"{float(level):g}" for level in levels)
    options = " and ".join(f"method.{target}" for target in targets)
    return [f"method.{key}={nominal:g}: {method.get('name')} has levels {known}; for another, set {options}"]


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
