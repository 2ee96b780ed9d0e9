"""The small language of claims: numbers, arithmetic, comparisons and a few named functions, and nothing else.

Read with Python's own parser and walked by hand; what is not on the list below is refused when a claim is read. A
number is an interval, of no width where it is exact: a comparison is true where it is true of all that the intervals
hold, false where it is true of nothing in them, and unknown otherwise. An operand that is not known yet makes the whole
unknown, unless the rest decides: `False and unknown` is false.
"""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from repro.errors import did_you_mean


class Interval(NamedTuple):
    """All numbers from `low` to `high`, both among them."""

    low: float
    high: float


Value = Interval | bool
Function = Callable[..., Interval | None]


def exact(number: float) -> Interval:
    """The interval of one number."""
    return Interval(number, number)


def _product(left: Interval, right: Interval) -> Interval:
    # 0 times an end that is not known is 0, not NaN.
    corners = [0.0 if 0 in pair else pair[0] * pair[1] for pair in itertools.product(left, right)]
    return Interval(min(corners), max(corners))


def _quotient(left: Interval, right: Interval) -> Interval:
    if right.low <= 0 <= right.high:
        return Interval(-math.inf, math.inf)  # by what may be 0: it may be anything, and decides nothing
    return _product(left, Interval(1 / right.high, 1 / right.low))


def _abs(inner: Interval) -> Interval:
    least = 0.0 if inner.low <= 0 <= inner.high else min(map(abs, inner))
    return Interval(least, max(map(abs, inner)))


_BINARY: Mapping[type[ast.operator], Callable[[Interval, Interval], Interval]] = {
    ast.Add: lambda left, right: Interval(left.low + right.low, left.high + right.high),
    ast.Sub: lambda left, right: Interval(left.low - right.high, left.high - right.low),
    ast.Mult: _product,
    ast.Div: _quotient,
}
_NOISE = 1e-9  # 80.2 - 80.0 is a little more than 0.2 in binary


def _at_most(left: Interval, right: Interval) -> bool | None:
    if left.high <= right.low + _NOISE:
        return True
    return False if left.low > right.high + _NOISE else None


def _below(left: Interval, right: Interval) -> bool | None:
    if left.high < right.low - _NOISE:
        return True
    return False if left.low >= right.high - _NOISE else None


_COMPARE: Mapping[type[ast.cmpop], Callable[[Interval, Interval], bool | None]] = {
    ast.Lt: _below,
    ast.LtE: _at_most,
    ast.Gt: lambda left, right: _below(right, left),
    ast.GtE: lambda left, right: _at_most(right, left),
}
_PURE: Mapping[str, Callable[..., Interval]] = {
    "abs": _abs,
    "min": lambda *values: Interval(min(v.low for v in values), min(v.high for v in values)),
    "max": lambda *values: Interval(max(v.low for v in values), max(v.high for v in values)),
}


class ExpressionError(ValueError):
    """An expression that is not of this language; says which part."""


@dataclass(frozen=True)
class Call:
    """A cell that an expression names: `measured('deit_small/dense', 'params_m')`."""

    function: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Expression:
    """A checked expression. `calls` are the cells that it names, in their order, each once.

    `chances` of an expression to be true by luck are the branches of its `or`: any one of them does; `risks` to be
    false by it are those of its `and`, and the links of a chain (`a < b < c` is `a < b and b < c`). The most or least
    of several numbers is as far out as any one of them: each argument of `max` and `min` counts on both sides. Who
    wants the whole to be right so often needs each comparison that much surer (Bonferroni).
    """

    text: str
    tree: ast.expr
    calls: tuple[Call, ...]
    constants: tuple[float, ...]

    @property
    def chances(self) -> int:
        """Comparisons any one of which can make the whole true."""
        return _branches(self.tree, ast.Or)

    @property
    def risks(self) -> int:
        """Comparisons any one of which can make the whole false."""
        return _branches(self.tree, ast.And)

    def value(self, functions: Mapping[str, Function], names: Mapping[str, float]) -> Value | None:
        """What it comes to; None while something that decides is not known."""
        return _Walk(functions, names).value(self.tree)


def _branches(node: ast.expr, kind: type[ast.boolop]) -> int:
    """How many comparisons can decide alone: all of an `or` (`and`) together, one of the other."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _branches(node.operand, ast.And if kind is ast.Or else ast.Or)
    if isinstance(node, ast.Compare):
        links = [
            _extremes(left) * _extremes(right) for left, right in itertools.pairwise((node.left, *node.comparators))
        ]
        return sum(links) if kind is ast.And else max(links)
    if not isinstance(node, ast.BoolOp):
        return 1
    counts = [_branches(child, kind) for child in node.values]
    return sum(counts) if isinstance(node.op, kind) else max(counts)


def _extremes(node: ast.expr) -> int:
    """Of how many numbers that are not exact one alone can make this one too large, or too small, by luck."""
    children = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    if not isinstance(node, ast.Call):
        return math.prod(map(_extremes, children))
    if not (isinstance(node.func, ast.Name) and node.func.id in ("min", "max")):
        return math.prod(map(_extremes, node.args))
    return max(1, sum(_extremes(one) for one in node.args if any(isinstance(part, ast.Call) for part in ast.walk(one))))


def parse(text: str, functions: Mapping[str, int], names: frozenset[str]) -> Expression:
    """Check an expression against the functions (with how many words they take) and names that it may use.

    Raises `ExpressionError` for anything else: attributes, subscripts, other calls, other words, other operators, and
    truths where a number belongs.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ExpressionError(f"not an expression: {error.msg}") from None
    calls: dict[Call, None] = {}
    constants: list[float] = []
    _check(tree, functions, names, calls, constants)
    return Expression(" ".join(text.split()), tree, tuple(calls), tuple(constants))


def _check(
    node: ast.expr,
    functions: Mapping[str, int],
    names: frozenset[str],
    calls: dict[Call, None],
    constants: list[float],
) -> None:
    children: list[ast.expr] = []
    of_truths = isinstance(node, ast.BoolOp) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))
    match node:
        case ast.BoolOp():
            children = node.values
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            children = [node.operand]
        case ast.BinOp() if type(node.op) in _BINARY:
            children = [node.left, node.right]
        case ast.Compare() if all(type(op) in _COMPARE for op in node.ops):
            children = [node.left, *node.comparators]
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            constants.append(float(number))
        case ast.Name(id=name) if name in names:
            pass
        case ast.Name(id=name):
            raise ExpressionError(f"unknown name {name!r}{did_you_mean(name, names)}")
        case ast.Call(func=ast.Name(id="abs"), keywords=[], args=[_]):
            children = node.args
        case ast.Call(func=ast.Name(id="min" | "max"), keywords=[]) if node.args:
            children = node.args
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in functions:
            calls[_cell(node, name, functions[name])] = None
        case ast.Call(func=ast.Name(id=name)):
            raise ExpressionError(f"cannot call {name!r} like this{did_you_mean(name, [*functions, *_PURE])}")
        case _:
            raise ExpressionError(f"not allowed here: {ast.unparse(node)}")
    for child in children:
        if is_truth(child) is not of_truths:
            raise ExpressionError(f"{'no truth' if of_truths else 'no number'}: {ast.unparse(child)}")
        _check(child, functions, names, calls, constants)


def is_truth(node: ast.expr) -> bool:
    """Whether it comes to true or false, and not to a number."""
    return isinstance(node, ast.BoolOp | ast.Compare) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    )


def _cell(node: ast.Call, name: str, count: int) -> Call:
    words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    texts = [word for word in words if isinstance(word, str)]
    if len(texts) != count or len(node.args) != count:
        raise ExpressionError(f"{name} takes {count} words in quotes: {ast.unparse(node)}")
    return Call(name, tuple(texts))


class _Walk:
    def __init__(self, functions: Mapping[str, Function], names: Mapping[str, float]) -> None:
        self.functions, self.names = functions, names

    def value(self, node: ast.expr) -> Value | None:
        return self._truth(node) if is_truth(node) else self._number(node)

    def _truth(self, node: ast.expr) -> bool | None:
        match node:
            case ast.BoolOp():
                return self._both(node)
            case ast.Compare():
                return self._compare(node)
            case ast.UnaryOp():
                inner = self._truth(node.operand)
                return None if inner is None else not inner
        raise AssertionError(f"parse let {ast.dump(node)} through")

    def _number(self, node: ast.expr) -> Interval | None:
        match node:
            case ast.UnaryOp():
                inner = self._number(node.operand)
                return None if inner is None else Interval(-inner.high, -inner.low)
            case ast.BinOp():
                left, right = self._number(node.left), self._number(node.right)
                return None if left is None or right is None else _BINARY[type(node.op)](left, right)
            case ast.Constant():
                return exact(float(node.value))  # type: ignore[arg-type]  # checked by parse
            case ast.Name():
                return exact(self.names[node.id])
            case ast.Call(func=ast.Name(id=name)):
                return self._call(node, name)
        raise AssertionError(f"parse let {ast.dump(node)} through")

    def _call(self, node: ast.Call, name: str) -> Interval | None:
        if name not in _PURE:
            return self.functions[name](
                *(argument.value for argument in node.args if isinstance(argument, ast.Constant))
            )
        values = [self._number(argument) for argument in node.args]
        known = [value for value in values if value is not None]
        return _PURE[name](*known) if len(known) == len(values) else None

    def _both(self, node: ast.BoolOp) -> bool | None:
        decides = isinstance(node.op, ast.Or)
        values = [self._truth(child) for child in node.values]
        if decides in values:
            return decides
        return None if None in values else not decides

    def _compare(self, node: ast.Compare) -> bool | None:
        values = [self._number(child) for child in (node.left, *node.comparators)]
        links = [
            None if left is None or right is None else _COMPARE[type(op)](left, right)
            for op, left, right in zip(node.ops, values, values[1:], strict=False)
        ]
        if False in links:
            return False
        return None if None in links else True
