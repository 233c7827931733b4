"""Tables that stay where they are: in a database, a cluster, a Parquet file beyond memory."""

from __future__ import annotations

import glob
import os
import re
import tempfile
import warnings
import weakref
from collections.abc import Iterable, Mapping
from functools import reduce
from importlib.util import find_spec
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import numpy as np
import pandas as pd

from segmentation import InputError
from segmentation.customers import text as tables
from segmentation.customers.card import suggest
from segmentation.customers.numbers import WHOLE_ID

if TYPE_CHECKING:
    import ibis

DUCKDB: dict[str, Any] = {
    "memory_limit": "50%",  # of the machine's; beyond it spills to disk
    "autoinstall_known_extensions": False,
    "preserve_insertion_order": False,  # a third of the memory to write a table
}
MYSQL = {
    "charset": "utf8mb4",
    "collation": "utf8mb4_bin",  # texts are compared letter by letter: see `recast`
    "init_command": "SET time_zone = '+00:00'",
}
APART = {"enable_external_access": False}  # else a table called `/x.csv` is read from that file
ROWS_TOGETHER = 61_440  # in a Parquet file: half of DuckDB's own, a third less memory to write it
SPARK = {"spark", "sc", "pyspark"}  # a cluster, Spark Connect, a session by `?spark.…=`
SERVERS = {"mysql", "postgres"}
FILES = {"duckdb", "sqlite"}  # their URL is the path of a file, made where there is none
TRIED = {*SERVERS, *FILES, *SPARK}
KNOWN = sorted({*TRIED, "bigquery", "databricks", "snowflake"})
ALIASES = {"mariadb": "mysql", "postgresql": "postgres"}
VARIABLE = r"\$(?:(\w+)|\{(\w+)\})"  # of the environment, in a URL
MOST_LEVELS = 10_000  # distinct cells of a descriptor that are fetched to be read by the card
QUARTILES = (0.25, 0.5, 0.75)
QUANTILES = {"duckdb", "postgres", "pyspark"}  # interpolate as numpy does
COUNTED = ["missing", "negative", "beyond", "low", "high"]
FIGURES = ("customers", "mean", "sd", "min", "q25", "median", "q75", "max")


def connect(url: str, *, apart: Mapping[str, Any] = APART) -> Any:
    """Connect to a database or cluster by its URL, as Ibis writes them.

    `duckdb://sales.ddb`, `sqlite://sales.db`, `postgres://user:password@host/database`,
    `mysql://…`, `spark://host:7077`; no other host is spoken to, and DuckDB fetches no extensions
    and reads no other file. An InputError tells what is wrong with the URL, the driver, the
    connection or, later, a query; never with a password.
    """
    driver = tables.load_extra("ibis", "a database")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InputError("the URL cannot be opened: it is no URL; correct the URL.") from None
    try:
        backend = _open_backend(driver, url, parts, apart)
    except InputError:
        raise
    except Exception as error:
        told = hide_secrets(str(error), url)
        raise InputError(f"{show_url(url)} cannot be opened: {told}; correct the URL.") from None
    from segmentation.customers import dialects

    dialects.teach(backend)
    execute, own = type(backend).execute, weakref.ref(backend)  # no circle: it ends when unused

    def execute_or_tell(*args: Any, **kwargs: Any) -> Any:
        try:
            return execute(own(), *args, **kwargs)
        except Exception as error:  # the driver's own, of many kinds
            told = hide_secrets(str(error), url)
            raise InputError(f"{show_url(url)} does not answer a query: {told}.") from None

    backend.execute = execute_or_tell
    return backend


def _open_backend(driver: Any, url: str, parts: SplitResult, apart: Mapping[str, Any]) -> Any:
    scheme, path = ALIASES.get(parts.scheme, parts.scheme), parts.netloc + parts.path
    if scheme not in KNOWN:
        raise InputError(f"{show_url(url)}: no such backend; {suggest(scheme, KNOWN)}")
    passing = path in ("", ":memory:")
    if scheme in FILES and not passing and not path.startswith("md:") and not Path(path).is_file():
        raise InputError(f"{path}: no such database; correct the URL.")
    options: dict[str, Any] = {"duckdb": DUCKDB, "mysql": MYSQL}.get(scheme, {})
    if scheme in SERVERS:  # Ibis leaves a user quoted and takes a + in a password for a space
        own = {"user": parts.username, "password": parts.password}
        options = options | {name: unquote(word) for name, word in own.items() if word}
    if scheme == "duckdb" and not path.startswith("md:"):
        options = options | {**apart}
    if scheme == "duckdb" and passing:  # it has no place of its own to spill
        place = f"{tempfile.gettempdir()}/segmentation-{os.getpid()}"
        options = options | {"temp_directory": place}
    try:
        if scheme in SPARK:
            return _open_spark(driver, url, parts)
        if scheme == "databricks":  # Ibis reads no host from this URL
            own = dict(parse_qsl(parts.query))
            return driver.databricks.connect(server_hostname=parts.hostname, **own)
        if scheme == "mysql" and not find_spec("MySQLdb"):  # the driver that Ibis asks for
            import pymysql  # needs no compiler

            pymysql.install_as_MySQLdb()
        url = scheme + url[len(parts.scheme) :]
        with warnings.catch_warnings():  # MariaDB knows the time zone that Ibis wants as +00:00
            warnings.filterwarnings("ignore", "Unable to set session timezone")
            return driver.connect(url, **options)
    except ImportError as error:
        extra = f"{'customer-segments' if scheme in TRIED else 'ibis-framework'}[{scheme}]"
        extra = "customer-segments[scale]" if scheme in SPARK else extra
        told = hide_secrets(str(error), url)
        raise InputError(f"{scheme}:// needs its driver ({told}); pip install '{extra}'.") from None


def _open_spark(driver: Any, url: str, parts: SplitResult) -> Any:
    """A Spark session; Ibis would set what can only be said before a session begins."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.config(map=dict(parse_qsl(parts.query)))
    if parts.scheme == "spark":
        builder = builder.master(f"spark://{parts.netloc}")
    elif parts.scheme == "sc":
        builder = builder.remote(url)
    return driver.pyspark.connect(builder.getOrCreate())


def open_table(url: str, name: str) -> ibis.Table:
    """A table of a database by its name, also `schema.table`; the nearest is told for none."""
    backend, (place, own) = connect(url), split_name(name)
    if (table := _find_table(backend, name)) is not None:
        return table
    known = _list_tables(backend, place)
    if own in known:
        raise InputError(f"table {name} cannot be read; see whether you may.")
    near = suggest(own, known) if known else "there are no tables where it should be."
    raise InputError(f"table {name} is not known; {near}")


def close(table: ibis.Table) -> None:
    """Close a table's connection, which locks a file; a Spark session may be someone else's too."""
    backend: Any = table.get_backend()
    if backend.name != "pyspark":
        backend.disconnect()


def _find_table(backend: ibis.BaseBackend, name: str) -> ibis.Table | None:
    place, own = split_name(name)
    try:
        return backend.table(own, database=place)
    except Exception:
        return None


def _list_tables(backend: Any, place: tuple[str, ...] | None) -> list[str]:
    """The tables of a schema; none where it is unknown or they cannot be listed."""
    try:
        if backend.name != "duckdb":
            return backend.list_tables(database=place)
        listed = backend.table("tables", database="information_schema")  # Ibis 12 needs DuckDB 1
        schema = place[-1] if place else "main"
        return listed.filter(listed.table_schema == schema).table_name.execute().tolist()
    except Exception:
        return []


def check_free(backend: ibis.BaseBackend, name: str) -> None:
    """Refuse a name that a table has already."""
    if _find_table(backend, name) is not None:
        raise InputError(f"table {name} is there already; drop it, or name another.")


def save_table(query: ibis.Table, name: str, *, url: str) -> ibis.Table:
    """Write a query's rows as a new table of its database in one statement: whole or not at all."""
    import sqlglot

    backend: Any = query.get_backend()
    check_free(backend, name)
    place, own = split_name(name)
    parts = dict(zip(("db", "catalog"), reversed(place or ()), strict=False))
    target = sqlglot.table(own, quoted=True, **parts).sql(backend.dialect)
    try:
        backend.raw_sql(f"CREATE TABLE {target} AS {backend.compile(query)}")
    except Exception as error:  # nothing is dropped: it might be another's, made meanwhile
        told = hide_secrets(str(error), url)
        raise InputError(f"table {name} cannot be written: {told}.") from None
    return backend.table(own, database=place)


def split_name(name: str) -> tuple[tuple[str, ...] | None, str]:
    """Where a table lies (catalog, schema), None where its name says nothing; and its own name."""
    *place, own = name.split(".")
    if len(place) > 2 or not all([*place, own]):
        raise InputError(f"table {name!r} is no name; write TABLE or SCHEMA.TABLE.")
    return tuple(place) or None, own


def open_file(path: Path, **options: Any) -> ibis.Table:
    """A Parquet file of any size, read by the embedded DuckDB as needed, with DuckDB's options."""
    tables.check_file(path, limit=None)
    tables.count_rows(path)  # refuses what is none, and columns of one name
    backend = connect("duckdb://", apart={})
    try:
        return backend.read_parquet(glob.escape(str(path)), hive_partitioning=False, **options)
    except Exception as error:
        raise InputError(tables.explain_parquet(path, str(error))) from None


def has_secret(url: str) -> bool:
    """Whether a database's URL holds a password or token, not just a variable's name.

    >>> has_secret("postgres://me:pa/ss@host/shop"), has_secret("postgres://me:$PASS@host/shop")
    (True, False)
    """
    _, user, place = split_url(url)
    words = [user.partition(":")[2], *(value for _, value in parse_qsl(place.partition("?")[2]))]
    return any(word and not word.startswith("$") for word in words)


def split_url(url: str) -> tuple[str, str, str]:
    """A database's URL as scheme, user with password (all before the last @), and place.

    >>> split_url("postgres://me:p@/?ss@host/shop")
    ('postgres', 'me:p@/?ss', 'host/shop')
    """
    scheme, _, rest = url.partition("://") if "://" in url else ("", "", url)
    user, _, place = rest.rpartition("@")
    return scheme, user, place


def show_url(url: str) -> str:
    """A URL as it may be shown: without user, password and parameters.

    >>> show_url("postgres://me:p/w@rd@host/shop?token=x"), show_url("sales.ddb")
    ('postgres://host/shop', 'sales.ddb')
    """
    scheme, user, place = split_url(url)
    if "?" in user:  # an @ among the parameters, or a ? in a password
        place = ""
    return f"{scheme}://{place.partition('?')[0]}" if scheme else place.partition("?")[0]


def hide_secrets(message: str, url: str) -> str:
    """The first line of a driver's message, without what the URL keeps to itself."""
    _, user, place = split_url(url)
    line = message.partition("\n")[0].rstrip(" .;\r")
    hidden = [user, *user.split(":", 1)]
    hidden += [part for part in re.split("[:/?#@]", user) if len(part) > 2]  # of a URL misread
    for text in (user, place):
        hidden += [value for _, value in parse_qsl(text.partition("?")[2])]
    for secret in sorted({*hidden, *map(unquote, hidden), url} - {""}, key=len, reverse=True):
        line = line.replace(secret, "…")
    return line


def expand_url(url: str) -> str:
    """A URL with its $NAMEs taken from the environment, quoted where they are user or password.

    An InputError names one that is not set.

    >>> os.environ["SHOP_PASSWORD"] = "p@ss/word"
    >>> expand_url("postgres://me:$SHOP_PASSWORD@host/shop")
    'postgres://me:p%40ss%2Fword@host/shop'
    """
    scheme, user, place = split_url(url)

    def look_up(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in os.environ:
            raise InputError(f"backend: ${name} is not set; set it in the environment.")
        return os.environ[name]

    told = re.sub(VARIABLE, look_up, place)
    if user:
        told = f"{re.sub(VARIABLE, lambda found: quote(look_up(found), safe=''), user)}@{told}"
    return f"{scheme}://{told}" if scheme else told


def write_number(value: float) -> ibis.Scalar:
    """A constant to the last bit: as text, for a literal may be read as a decimal number."""
    import ibis

    return ibis.literal(repr(float(value))).cast("float64")


def recast(cells: ibis.Column, kind: str) -> ibis.Column:
    """A column as a type, by a cast that is written even where it is said to be that already.

    MySQL then compares text letter by letter, and SQLite sees text in a column of numbers.
    """
    return cells.cast(f"!{kind}").cast(kind)


def count_texts(table: ibis.Table, columns: Mapping[str, str]) -> dict[str, int]:
    """How many cells of columns of numbers hold text, by name, where there are any.

    Only SQLite has such; an empty text is a gap.
    """
    if not columns or table.get_backend().name != "sqlite":
        return {}
    cells = {name: table[column] for name, column in columns.items()}
    asked = [
        (each.typeof() == "text").ifelse(each.cast("string").strip() != "", False)
        for each in cells.values()
    ]
    counts = table.aggregate(**{f"n{i}": sign.sum() for i, sign in enumerate(asked)}).execute()
    told = zip(cells, counts.fillna(0).iloc[0].astype(int), strict=True)
    return {name: rows for name, rows in told if rows}


def take_number(cells: ibis.Column, gaps: Iterable[float] = ()) -> ibis.Column:
    """A numeric column as float64, NULL where missing, NaN, or one of the card's `gaps`."""
    values = recast(cells, "float64")
    values = values if cells.type().is_integer() else values.isnan().ifelse(None, values)
    gone = [write_number(gap) for gap in gaps]
    return values.isin(gone).ifelse(None, values) if gone else values


def divide_columns(left: ibis.Column, right: ibis.Column) -> ibis.Column:
    """Quotients of float64, NULL where something is divided by zero."""
    return left / right.nullif(write_number(0))


def take_text(cells: ibis.Column) -> ibis.Column:
    """Cells as text; whole numbers without a fraction."""
    kind, text = cells.type(), recast(cells, "string")
    return text.re_replace(r"\.0+$", "") if kind.is_floating() or kind.is_decimal() else text


def hash_cells(cells: ibis.Column) -> ibis.Column:
    """A whole number for each cell, the same for the same cell; NULL for NULL."""
    own = cells.as_table().get_backend().name in ("duckdb", "pyspark")  # hash any type, and faster
    return (cells if own else recast(cells, "string")).hash()


def take_ids(cells: ibis.Column) -> ibis.Column:
    """Ids as text; in a column of text, too, `17850.0` is `17850` where all are whole numbers."""
    text = take_text(cells)
    if not cells.type().is_string():
        return text
    text = text.strip()
    few = text.name("own").as_table().limit(1_000).own.execute()
    if not few.str.fullmatch(r"[0-9]+\.0+").any():
        return text
    whole = (text.re_search(f"^{WHOLE_ID}$") | (text == "")).all().execute()
    return text.re_replace(r"\.0+$", "") if whole else text


def count_values(
    table: ibis.Table, numbers: Mapping[str, Any], limits: Mapping[str, tuple[float, float]]
) -> pd.DataFrame:
    """One row a column of numbers, from one pass: rows, missing, negative, beyond, low, high.

    `beyond` counts values beyond the column's limits, infinite ones among them.
    """
    asked = {"rows": table.count()}
    for i, (name, values) in enumerate(numbers.items()):
        low, high = map(write_number, limits[name])
        signs = [values.isnull(), values < 0, (values < low) | (values > high)]
        each = [*(sign.sum() for sign in signs), values.min(), values.max()]
        asked |= {f"{figure}{i}": found for figure, found in zip(COUNTED, each, strict=True)}
    (found,) = table.aggregate(**asked).to_pandas().fillna(0).to_dict("records")
    rows = [[found[f"{figure}{i}"] for figure in COUNTED] for i in range(len(numbers))]
    told = pd.DataFrame(rows, index=[*numbers], columns=COUNTED).assign(rows=found["rows"])
    return told.astype(dict.fromkeys(["rows", *COUNTED[:3]], int))


def measure_columns(table: ibis.Table, numbers: Mapping[str, ibis.Column]) -> pd.DataFrame:
    """One row a column of numbers of everyone, and after them one per cluster and column.

    Rows with an empty `cluster` are left out. Columns: cluster (empty for everyone), size,
    variable, customers (of them those with a value), mean, sd (divisor n), min, q25, median, q75,
    max. Exact; quantiles are interpolated as by numpy, by the database or between ranked rows.
    """
    exact = table.get_backend().name in QUANTILES
    known = table.cluster.notnull()  # no filter: planners would write all that makes it into it
    plain = {f"x{i}": known.ifelse(values, None) for i, values in enumerate(numbers.values())}
    used = table.select("cluster", **plain).view()
    means = used.aggregate(**{name: used[name].mean() for name in plain}).to_pandas().iloc[0]
    shifts = [float(mean) for mean in means.fillna(0.0)]
    figures: dict[str, Any] = {"size": used.cluster.count()}
    for i, shift in enumerate(shifts):  # about its mean, where digits would be lost
        values, moved = used[f"x{i}"], used[f"x{i}"] - write_number(shift)
        each = [values.count(), moved.mean(), moved.std(how="pop"), values.min()]
        each += [values.quantile(share) if exact else values.min() for share in QUARTILES]
        each.append(values.max())
        figures |= {f"{figure}{i}": e for figure, e in zip(FIGURES, each, strict=True)}
    wide = aggregate_by_cluster(used, figures)
    for i in range(0 if exact else len(numbers)):
        ranked = _rank_quartiles(used, f"x{i}")
        names = [f"{figure}{i}" for figure in FIGURES[4:7]]
        wide[names] = [ranked.get(None if pd.isna(c) else c, [np.nan] * 3) for c in wide.cluster]
    parts = []
    for i, (name, shift) in enumerate(zip(numbers, shifts, strict=True)):
        part = wide[["cluster", "size"]].assign(variable=name)
        part[[*FIGURES]] = wide[[f"{figure}{i}" for figure in FIGURES]]
        parts.append(part.assign(mean=part["mean"] + shift))
    long = pd.concat(parts).astype({"cluster": "Int64", "size": int, "customers": int})
    return long.sort_values("cluster", kind="stable", ignore_index=True)


def aggregate_by_cluster(table: ibis.Table, figures: Mapping[str, ibis.Scalar]) -> pd.DataFrame:
    """Figures of everyone, with an empty cluster, and after them a row per cluster."""
    everyone = table.aggregate(**figures).to_pandas().assign(cluster=pd.NA)
    clusters = table.group_by("cluster").aggregate(**figures).order_by("cluster").to_pandas()
    both = pd.concat([everyone, clusters.dropna(subset="cluster")], ignore_index=True)
    return both.astype({"cluster": "Int64"})


def _rank_quartiles(used: ibis.Table, name: str) -> dict[int | None, list[float]]:
    """The quartiles of a column by cluster, None for everyone, interpolated between its rows."""
    import ibis

    known, quartiles = used.select("cluster", x=name).filter(used[name].notnull()), {}
    for groups in ([], ["cluster"]):
        place = ibis.row_number().over(group_by=groups, order_by="x")
        ranked = known.mutate(place=place, rows=known.x.count().over(group_by=groups))
        away = [4 * ranked.place - part * (ranked.rows - 1) for part in (1, 2, 3)]
        near = reduce(or_, [each.between(-3, 4) for each in away])  # at a quartile, and next to it
        found = ranked.filter(near).execute().astype(float).sort_values("place")
        for cluster, own in found.groupby("cluster" if groups else "rows"):
            at = (own["rows"].iloc[0] - 1) * np.array(QUARTILES)
            quartiles[cluster if groups else None] = np.interp(at, own["place"], own["x"]).tolist()
    return quartiles
