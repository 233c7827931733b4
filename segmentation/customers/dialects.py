"""What PostgreSQL, MySQL and SQLite lack or do otherwise, told to Ibis's own compilers."""

from __future__ import annotations

import hashlib
import math
import sys
from typing import Any

import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import sqlglot.expressions as sge
from ibis.backends.sql.compilers.mysql import MySQLCompiler
from ibis.backends.sql.compilers.postgres import PostgresCompiler
from ibis.backends.sql.compilers.sqlite import SQLiteCompiler
from sqlglot.optimizer.eliminate_subqueries import eliminate_subqueries

MOST = sys.float_info.max
STEP = 50  # 2 to this power is a whole number that every parser reads exactly


class _Fenced:
    """A compiler that lets no planner merge a subquery into the query around it.

    Merged, all that a subquery computes stands wherever one of its columns is used: a scored table
    of 10 kB would become a plan of megabytes.
    """

    __slots__ = ()
    ALL: int | None = None
    """The limit that is none, where an offset needs one."""

    def to_sqlglot(self, *args: Any, **kwargs: Any) -> Any:
        query = super().to_sqlglot(*args, **kwargs)  # type: ignore[misc]
        for part in query.find_all(sge.Subquery, sge.CTE):
            inner = part.this
            if isinstance(inner, sge.Select) and not inner.args.get("limit"):
                inner = inner if self.ALL is None else inner.limit(self.ALL, copy=False)
                inner.offset(0, copy=False)
        return query


class _Postgres(_Fenced, PostgresCompiler):
    __slots__ = ()


class _MySQL(_Fenced, MySQLCompiler):
    __slots__ = ()
    ALL = 2**64 - 1
    UNSUPPORTED_OPS = tuple({*MySQLCompiler.UNSUPPORTED_OPS} - {ops.RegexReplace})

    def visit_Cast(self, op: Any, *, arg: Any, to: Any) -> Any:
        value = _find_constant(op)
        return super().visit_Cast(op, arg=arg, to=to) if value is None else _write_e(value)

    def visit_Hash(self, _: Any, *, arg: Any) -> Any:
        digits = self.f.left(self.f.md5(arg), 15)
        return self.cast(self.f.anon.conv(digits, 16, 10), dt.int64)

    def visit_IsNan(self, *_: Any, **__: Any) -> Any:
        return sge.false()

    def visit_RegexReplace(self, _: Any, *, arg: Any, pattern: Any, replacement: Any) -> Any:
        return self.f.anon.regexp_replace(arg, pattern, replacement)


class _SQLite(_Fenced, SQLiteCompiler):
    __slots__ = ()
    ALL = -1
    UNSUPPORTED_OPS = tuple({*SQLiteCompiler.UNSUPPORTED_OPS} - {ops.IsNan})

    def to_sqlglot(self, *args: Any, **kwargs: Any) -> Any:
        """Subqueries stand side by side: the parser's stack is a hundred deep."""
        return eliminate_subqueries(super().to_sqlglot(*args, **kwargs))

    def visit_Cast(self, op: Any, *, arg: Any, to: Any) -> Any:
        """A column of numbers may hold text, which would be cast to 0."""
        if (value := _find_constant(op)) is not None:
            return _write_exact(value)
        cast = super().visit_Cast(op, arg=arg, to=to)
        if to.is_floating() and isinstance(op.arg, ops.Field):
            return self.if_(self.f.anon.typeof(arg).eq(sge.convert("text")), sge.null(), cast)
        return cast

    def visit_Hash(self, _: Any, *, arg: Any) -> Any:
        return self.f.anon.segmentation_hash(arg)

    def visit_IsNan(self, *_: Any, **__: Any) -> Any:
        return sge.false()


COMPILERS = {"postgres": _Postgres, "mysql": _MySQL, "sqlite": _SQLite}


def teach(backend: Any) -> None:
    """Have a backend compile by what is told here."""
    if backend.name in COMPILERS:
        backend.compiler = COMPILERS[backend.name]()
    if backend.name == "sqlite":
        backend.con.create_function("segmentation_hash", 1, _hash, deterministic=True)


def _hash(cell: str | None) -> int | None:
    """Seven bytes of a digest: of a text, as `database.hash_cells` asks."""
    return None if cell is None else int(hashlib.md5(cell.encode()).hexdigest()[:14], 16)


def _find_constant(op: Any) -> float | None:
    """The number of a text that is cast to one, as `database.write_number` does; never infinite."""
    if not (op.to.is_floating() and isinstance(op.arg, ops.Literal) and op.arg.dtype.is_string()):
        return None
    return max(-MOST, min(MOST, float(op.arg.value)))


def _write_e(value: float) -> Any:
    """A literal that MySQL does not read as a decimal number."""
    told = repr(value)
    return sge.Literal.number(told if "e" in told else f"{told}e0")


def _write_exact(value: float) -> Any:
    """A constant to the last bit; SQLite rounds long decimals now and then to a neighbour."""
    share, power = math.frexp(value)
    told, power = f"{int(share * 2**53)}.0", power - 53
    while power:
        step = max(-STEP, min(STEP, power))
        told += f" {'*' if step > 0 else '/'} {2 ** abs(step)}.0"
        power -= step
    return sge.Paren(this=sge.Literal.number(told))
