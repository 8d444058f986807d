"""Numbers of OpenQASM: expressions of constants, and of a definition's angles. No numpy here."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from scoring.errors import CircuitError

_MAX_NUMBER = 1000
"""Signs of one angle."""
_CONSTANTS = {"pi": math.pi, "π": math.pi, "tau": math.tau, "τ": math.tau, "euler": math.e}
_CONSTANTS["\u0190"] = math.e  # what Python makes of OpenQASM's "\u2107" in a name
_OPERATIONS: dict[type[ast.AST], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS = {"sin", "cos", "tan", "sqrt", "exp", "log"}


def value_of(text: str, known: Mapping[str, float]) -> float:
    """What an expression is worth.

    Args:
        text: The expression.
        known: Names that stand for numbers, beside the constants.

    Raises:
        CircuitError: It is no finite number.
    """
    try:
        value = _value(_tree(text), known)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise CircuitError(
            f"{short(text)} is no number.",
            hint="Angles are numbers here: bind parameters before exporting.",
        ) from error
    if not math.isfinite(value):
        raise CircuitError(f"{short(text)} is not finite.")
    return value


@lru_cache(maxsize=1024)
def _tree(text: str) -> ast.AST:
    """An angle as Python's syntax knows it."""
    if len(text) > _MAX_NUMBER:
        raise ValueError("too long")
    return ast.parse(text.strip(), mode="eval").body


def _value(tree: ast.AST, known: Mapping[str, float]) -> float:
    match tree:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=sign, operand=inner) if type(sign) in _OPERATIONS:
            return float(_OPERATIONS[type(sign)](_value(inner, known)))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATIONS:
            return float(_OPERATIONS[type(sign)](_value(left, known), _value(right, known)))
        case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]) if name in _FUNCTIONS:
            return float(getattr(math, name)(_value(inner, known)))
    raise ValueError("not understood")


def short(text: str) -> str:
    """The beginning of a text as messages quote it."""
    return repr(text.strip().split("\n", 1)[0][:60])
