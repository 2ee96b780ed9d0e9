"""The small language of claims: numbers, arithmetic, comparisons and a few named functions, and nothing else.

Read with Python's own parser and walked by hand; what is not on the list below is refused when a claim is read. An
operand that is not known yet makes the whole unknown, unless the rest decides: `False and unknown` is false.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from repro.errors import did_you_mean

Value = float | bool
Function = Callable[..., Value | None]

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_PURE: Mapping[str, Callable[..., float]] = {"abs": abs, "min": min, "max": max}


class ExpressionError(ValueError):
    """An expression that is not of this language; says which part."""


@dataclass(frozen=True)
class Call:
    """A cell that an expression names: `measured('deit_small/dense', 'params_m')`."""

    function: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Expression:
    """A checked expression. `calls` are the cells that it names, in their order, each once."""

    text: str
    tree: ast.expr
    calls: tuple[Call, ...]
    constants: tuple[float, ...]

    def value(self, functions: Mapping[str, Function], names: Mapping[str, float]) -> Value | None:
        """What it comes to; None while something that decides is not known. Raises `ZeroDivisionError`."""
        return _Walk(functions, names).value(self.tree)


def parse(text: str, functions: Mapping[str, int], names: frozenset[str]) -> Expression:
    """Check an expression against the functions (with how many words they take) and names that it may use.

    Raises `ExpressionError` for anything else: attributes, subscripts, other calls, other words, other operators.
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
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _PURE and node.args:
            children = node.args
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in functions:
            calls[_cell(node, name, functions[name])] = None
        case ast.Call(func=ast.Name(id=name)):
            raise ExpressionError(f"cannot call {name!r} like this{did_you_mean(name, [*functions, *_PURE])}")
        case _:
            raise ExpressionError(f"not allowed here: {ast.unparse(node)}")
    for child in children:
        _check(child, functions, names, calls, constants)


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
        match node:
            case ast.BoolOp():
                return self._both(node)
            case ast.Compare():
                return self._compare(node)
            case ast.UnaryOp():
                inner = self.value(node.operand)
                if inner is None:
                    return None
                return (not inner) if isinstance(node.op, ast.Not) else -inner
            case ast.BinOp():
                left, right = self.value(node.left), self.value(node.right)
                if left is None or right is None:
                    return None
                return float(_BINARY[type(node.op)](left, right))
            case ast.Constant():
                return float(node.value)  # type: ignore[arg-type]  # checked by parse
            case ast.Name():
                return self.names[node.id]
            case ast.Call(func=ast.Name(id=name)):
                return self._call(node, name)
        raise AssertionError(f"parse let {ast.dump(node)} through")

    def _call(self, node: ast.Call, name: str) -> Value | None:
        if name not in _PURE:
            return self.functions[name](
                *(argument.value for argument in node.args if isinstance(argument, ast.Constant))
            )
        values = [self.value(argument) for argument in node.args]
        known = [value for value in values if value is not None]
        return _PURE[name](*known) if len(known) == len(values) else None

    def _both(self, node: ast.BoolOp) -> bool | None:
        decides = isinstance(node.op, ast.Or)
        values = [self.value(child) for child in node.values]
        if any(value is not None and bool(value) is decides for value in values):
            return decides
        return None if None in values else not decides

    def _compare(self, node: ast.Compare) -> bool | None:
        values = [self.value(child) for child in (node.left, *node.comparators)]
        links = [
            None if left is None or right is None else _COMPARE[type(op)](left, right)
            for op, left, right in zip(node.ops, values, values[1:], strict=False)
        ]
        if False in links:
            return False
        return None if None in links else True
