"""Database servers for real, each a process of its own on 127.0.0.1, in a folder of its own."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

HERE, WORD = "127.0.0.1", "p@ss/word?"
DEBIAN = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:], "/usr/sbin"]  # not on every PATH
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, DEBIAN)])


def find_port():
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return probe.getsockname()[1]


def end_with_parent():
    """A test that is killed leaves no process behind (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def stop(process):
    """End a process and all that it started."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex((HERE, port)) == 0


def wait_for(holds, what, seconds=300):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what} did not start"
        time.sleep(0.1)


@contextmanager
def run_server(user, make, serve):
    """A server in a folder that only its user reads; the command to make it runs before."""
    who = {"user": user, "group": user, "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="segmentation-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "word").write_text(WORD)
        for path in (folder, folder / "word") if who else ():
            shutil.chown(path, user, user)
        with (folder / "log").open("wb") as log:
            said = {"stdout": log, "stderr": log, "cwd": folder} | who
            subprocess.run(make(folder), check=True, **said)
            port = find_port()
            process = subprocess.Popen(
                serve(folder, port), start_new_session=True, preexec_fn=end_with_parent, **said
            )
        try:
            wait_for(lambda: answers(port) or process.poll() is not None, serve(folder, port)[0])
            assert process.poll() is None, (folder / "log").read_text("utf-8", "replace")
            yield folder, port
        finally:
            process.send_signal(signal.SIGINT if user == "postgres" else signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            stop(process)


@contextmanager
def run_postgres():
    """PostgreSQL with a password; the user and database `postgres` are its own."""

    def make(folder):
        own = ["-U", "postgres", "-A", "scram-sha-256", f"--pwfile={folder / 'word'}"]
        return ["initdb", "-D", folder / "data", *own, "-E", "UTF8", "--no-locale", "--no-sync"]

    def serve(folder, port):
        quick = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_wal_size=4GB"]
        place = ["-h", HERE, "-p", str(port), "-k", folder]
        return ["postgres", "-D", folder / "data", *place, *quick]

    with run_server("postgres", make, serve) as (_, port):
        yield {"host": HERE, "port": port, "user": "postgres", "password": WORD}


@contextmanager
def run_mariadb():
    """MariaDB; the user `shop` with a password has all rights, the database is `shop`."""
    import pymysql

    def make(folder):
        own = ["--no-defaults", f"--datadir={folder / 'data'}", "--auth-root-socket-user=mysql"]
        return ["mariadb-install-db", *own, "--skip-test-db", f"--tmpdir={folder}"]

    def serve(folder, port):
        place = [f"--socket={folder / 'socket'}", f"--bind-address={HERE}", f"--port={port}"]
        own = ["--no-defaults", f"--datadir={folder / 'data'}", f"--tmpdir={folder}", *place]
        first = folder / "first.sql"
        first.write_text(
            "CREATE DATABASE shop CHARACTER SET utf8mb4;\n"
            f"CREATE USER shop@'{HERE}' IDENTIFIED BY '{WORD}';\n"
            f"GRANT ALL ON *.* TO shop@'{HERE}' WITH GRANT OPTION;\n"
        )
        first.chmod(0o644)
        quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=1G"]
        return ["mariadbd", *own, f"--init-file={first}", "--skip-name-resolve", *quick]

    with run_server("mysql", make, serve) as (_, port):
        own = {"host": HERE, "port": port, "user": "shop", "password": WORD}

        def opens():
            with suppress(pymysql.err.OperationalError):
                pymysql.connect(**own, database="shop").close()
                return True

        wait_for(opens, "MariaDB", 60)
        yield own


# Tables ------------------------------------------------------------------------------------

KINDS = {"i": "BIGINT", "u": "BIGINT", "f": "DOUBLE PRECISION", "b": "BOOLEAN"}


def put_rows(connection, frame, name, mark="%s", **kinds):
    """Write a table by a plain connection of a driver; a gap is NULL.

    mark : how the driver marks a value to be filled in. kinds : types of columns by name, where
    they are not those of the table.
    """
    told = {column: KINDS.get(kind.kind, "TEXT") for column, kind in frame.dtypes.items()} | kinds
    rows = frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None)
    cursor = connection.cursor()
    if type(connection).__module__.startswith("pymysql"):
        cursor.execute("SET sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES'")
    cursor.execute(f'DROP TABLE IF EXISTS "{name}"')
    columns = ", ".join(f'"{column}" {kind}' for column, kind in told.items())
    cursor.execute(f'CREATE TABLE "{name}" ({columns})')
    if hasattr(cursor, "register"):  # DuckDB takes a millisecond for a row otherwise
        cursor.register("given", pa.Table.from_pandas(frame, preserve_index=False))
        cursor.execute(f'INSERT INTO "{name}" FROM given')
    elif hasattr(cursor, "copy"):
        with cursor.copy(f'COPY "{name}" FROM STDIN') as copy:
            for row in rows:
                copy.write_row(row)
    else:
        cursor.executemany(
            f'INSERT INTO "{name}" VALUES ({", ".join([mark] * len(told))})', [*rows]
        )
    connection.commit()
