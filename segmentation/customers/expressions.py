"""Features by expression: `Yearly spend / Orders`, read as arithmetic and as nothing else."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.USub: operator.neg,
}
END = r"(?=\s*(?:[-+*/)]|$))"
NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
TOKEN = (
    rf"\s*(?:`(?P<quoted>[^`]+)`|(?P<known>KNOWN){END}|(?P<number>{NUMBER}){END}"
    r"|(?P<sign>[-+*/()])|(?P<other>[^-+*/()`]+|`))"
)  # known names first, the longest before those within it


def divide_arrays(left: Any, right: Any) -> Any:
    """Quotients as floats, NaN where something is divided by zero."""
    divisor = np.where(np.equal(right, 0), np.nan, right)
    return np.asarray(left, dtype=np.float64) / divisor


@dataclass(frozen=True)
class Expression:
    """An expression that was read: the columns in it, and its arithmetic on x0, x1, …"""

    columns: tuple[str, ...]
    tree: ast.expr

    def compute(
        self,
        columns: Mapping[str, Any],
        *,
        divide: Callable[[Any, Any], Any] = divide_arrays,
        number: Callable[[float], Any] = float,
    ) -> Any:
        """Its value for columns of any kind that can be added and multiplied, by their names."""
        known = {f"x{i}": columns[name] for i, name in enumerate(self.columns)}
        acts = OPERATIONS | {ast.Div: divide}

        def solve(node: Any) -> Any:
            match node:
                case ast.Name(name):
                    return known[name]
                case ast.Constant(int(value) | float(value)):
                    return number(float(value))
                case ast.UnaryOp(sign, operand):
                    return acts[type(sign)](solve(operand))
            return acts[type(node.op)](solve(node.left), solve(node.right))

        return solve(self.tree)


@cache
def parse_expression(text: str, names: tuple[tuple[str, str], ...] = ()) -> Expression:
    """Read an expression of columns, numbers, + - * / and parentheses; a ValueError if it is none.

    text : columns stand there by name; in backticks where a name that is not known holds signs.
    names : pairs of a known name and the column that it means; any other name is a column's.

    >>> parse_expression("Yearly spend / Orders", (("Yearly spend", "spend"),)).columns
    ('spend', 'Orders')
    """
    known = {name.casefold(): column for name, column in reversed(names) if name}
    longest = "|".join(map(re.escape, sorted(known, key=len, reverse=True))) or "(?!)"
    parts, found = [], dict[str, str]()
    for token in re.finditer(TOKEN.replace("KNOWN", longest), text, re.IGNORECASE):
        if sign := token["sign"] or token["number"]:
            parts.append(sign)
        elif name := (token["quoted"] or token["known"] or token["other"]).strip():
            column = known.get(name.casefold(), name)
            parts.append(found.setdefault(column, f"x{len(found)}"))
    try:
        tree = ast.parse(" ".join(parts), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):
        tree = ast.List(elts=[])
    allowed = (ast.BinOp, ast.UnaryOp, ast.Name, ast.Constant, ast.Load, ast.Div, *OPERATIONS)
    if not found or not all(isinstance(node, allowed) for node in ast.walk(tree)):
        mend = "write columns, numbers, + - * / and parentheses; names with signs in `backticks`"
        raise ValueError(f"the expression {text!r} cannot be read; {mend}")
    return Expression(tuple(found), tree)
