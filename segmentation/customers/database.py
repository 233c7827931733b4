"""Tables that stay where they are: in a database, a cluster, a Parquet file beyond memory."""

from __future__ import annotations

import glob
import os
import tempfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from segmentation import InputError
from segmentation.customers import text as tables
from segmentation.customers.card import suggest

if TYPE_CHECKING:
    import ibis

MEMORY = "50%"
"""The share of the machine's memory that the embedded DuckDB uses; beyond it spills to disk."""

ROWS_TOGETHER = 61_440
"""Rows of a group in a Parquet file: half of DuckDB's own, with a third less memory to write it."""

SPARK = {"spark", "sc", "pyspark"}
"""Schemes of Spark: a cluster's own address, Spark Connect, a session by `?spark.…=`."""

FILES = {"duckdb", "sqlite"}
"""Schemes whose URL is the path of a file; one that is not there would be made."""


def connect(url: str) -> ibis.BaseBackend:
    """Connect to a database or cluster by its URL, as Ibis writes them.

    `duckdb://sales.ddb`, `postgres://user:password@host/database`, `bigquery://project/dataset`,
    `spark://host:7077`; no other host is spoken to, and DuckDB fetches no extensions.

    Raises
    ------
    InputError
        The URL is none, its driver is missing, or there is no connection; never with a password.
    """
    driver = tables.load_extra("ibis", "a database")
    try:
        parts = urlsplit(url)
        return _open_backend(driver, url, parts)
    except InputError:
        raise
    except Exception as error:
        told = hide_secrets(str(error), url)
        raise InputError(f"{show_url(url)} cannot be opened: {told}; correct the URL.") from None


def _open_backend(driver: Any, url: str, parts: SplitResult) -> Any:
    scheme = parts.scheme.replace("postgresql", "postgres")
    known = {*SPARK, *(entry.name for entry in entry_points(group="ibis.backends"))}
    if scheme not in known:
        raise InputError(f"{show_url(url)}: no such backend; {suggest(scheme, sorted(known))}")
    try:
        if scheme in SPARK:
            return _open_spark(driver, url, parts)
        if scheme == "databricks":  # Ibis reads no host from this URL
            own = dict(parse_qsl(parts.query))
            return driver.databricks.connect(server_hostname=parts.hostname, **own)
        if scheme in FILES:
            _check_path(parts)
        return driver.connect(url, **_set_limits(parts))
    except ImportError:
        extra = "segmentation[scale]" if scheme in SPARK else f"ibis-framework[{scheme}]"
        raise InputError(f"{scheme}:// needs its driver; pip install '{extra}'.") from None


def _check_path(parts: SplitResult) -> None:
    path = parts.netloc + parts.path
    if path not in ("", ":memory:") and not path.startswith("md:") and not Path(path).is_file():
        raise InputError(f"{path}: no such database; correct the URL.")


def _set_limits(parts: SplitResult) -> dict[str, Any]:
    """DuckDB's settings; without a file of its own it spills into the system's place for that."""
    if parts.scheme != "duckdb":
        return {}
    limits: dict[str, Any] = {"memory_limit": MEMORY, "autoinstall_known_extensions": False}
    limits["preserve_insertion_order"] = False  # a third of the memory to write a table
    if parts.netloc + parts.path in ("", ":memory:"):
        limits["temp_directory"] = f"{tempfile.gettempdir()}/segmentation-{os.getpid()}"
    return limits


def _open_spark(driver: Any, url: str, parts: SplitResult) -> Any:
    """A Spark session; Ibis would set what can only be said before a session begins."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    for name, value in parse_qsl(parts.query):
        builder = builder.config(name, value)
    if parts.scheme == "spark":
        builder = builder.master(f"spark://{parts.netloc}")
    elif parts.scheme == "sc":
        builder = builder.remote(url)
    return driver.pyspark.connect(builder.getOrCreate())


def open_table(url: str, name: str) -> ibis.Table:
    """A table of a database by its name, `schema.table` and `catalog.schema.table` too.

    Raises
    ------
    InputError
        There is no connection or no such table; the message names the nearest one.
    """
    return find_table(connect(url), name)


def find_table(backend: ibis.BaseBackend, name: str) -> ibis.Table:
    """A table of a connected database by its name; the nearest is named where there is none."""
    place, own = split_name(name)
    try:
        return backend.table(own, database=place)
    except Exception:
        known = _list_tables(backend, place)
    if own in known:
        raise InputError(f"table {name} cannot be read; see whether you may.")
    near = suggest(own, known) if known else "there are no tables where it should be."
    raise InputError(f"table {name} is not known; {near}")


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
    place, own = split_name(name)
    try:
        backend.table(own, database=place)
    except Exception:
        return
    raise InputError(f"table {name} is there already; drop it, or name another.")


def save_table(query: ibis.Table, name: str, *, url: str) -> ibis.Table:
    """Write a query's rows as a new table of its database, in one statement: whole or not at all.

    Raises
    ------
    InputError
        The name is taken, or the database refuses, with its reason.
    """
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
    return find_table(backend, name)


def save_file(query: ibis.Table, path: Path) -> None:
    """Write a query's rows as a Parquet file."""
    query.to_parquet(path, row_group_size=ROWS_TOGETHER)


def split_name(name: str) -> tuple[tuple[str, ...] | None, str]:
    """Where a table lies (catalog, schema), None where its name says nothing; and its own name."""
    *place, own = name.split(".")
    if len(place) > 2 or not all([*place, own]):
        raise InputError(f"table {name!r} is no name; write TABLE or SCHEMA.TABLE.")
    return tuple(place) or None, own


def open_file(path: Path) -> ibis.Table:
    """A Parquet file of any size, read by the embedded DuckDB as needed.

    Raises
    ------
    InputError
        There is no such file, or it is not Parquet.
    """
    tables.check_file(path, limit=None)
    backend = connect("duckdb://")
    try:
        return backend.read_parquet(glob.escape(str(path)), hive_partitioning=False)
    except Exception:
        raise InputError(f"{path.name} is not a Parquet file; write it anew.") from None


def show_url(url: str) -> str:
    """A URL as it may be shown: without user, password and parameters."""
    try:
        parts = urlsplit(url)
        scheme = f"{parts.scheme}://" if parts.scheme else ""
        return f"{scheme}{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return "the URL"


def hide_secrets(message: str, url: str) -> str:
    """The first line of a driver's message, without what the URL keeps to itself."""
    line = next(iter(message.splitlines()), "").rstrip(" .;")
    try:
        parts = urlsplit(url)
    except ValueError:
        return "it is no URL"
    person = parts.netloc.rpartition("@")[0]
    hidden = [*person.split(":", 1), *(value for _, value in parse_qsl(parts.query))]
    for secret in sorted({*hidden, *map(unquote, hidden), url} - {""}, key=len, reverse=True):
        line = line.replace(secret, "…")
    return line


def write_number(value: float) -> ibis.Scalar:
    """A constant to the last bit: as text, for a literal may be read as a decimal number."""
    import ibis

    return ibis.literal(repr(float(value))).cast("float64")
