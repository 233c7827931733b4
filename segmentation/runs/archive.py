"""The runs of an output folder: its lock, what crashed in it, what is kept, listed, verified."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from segmentation import InputError, RunError
from segmentation.customers.text import hash_file
from segmentation.runs.folder import Run, find_files, read_manifest, set_aside, write_manifest

ROOM = 20_000_000
"""Bytes that a run of a small table needs; a large one takes as much again for each copy."""

COPIES = 3
DIGITS = 1e-10
"""Relative difference from which two figures are not the same."""

APART = ("", "failed", "partial", "running")
"""Where runs lie in an output folder; published ones at its top."""

CRASHED = "its process ended without a word (killed, or the power failed)"


class Busy(RunError):
    """Another run holds the output folder."""

    code = 75


def check_place(output_dir: Path, *, table: Path | None = None) -> None:
    """Refuse an output folder that cannot be written, or has no room for a run.

    Raises
    ------
    InputError
        It is a file, read-only, or too full for a run of this table.
    """
    nearest = next(path for path in (output_dir, *output_dir.parents) if path.exists())
    mend = "name another by --output-dir."
    if not nearest.is_dir():
        raise InputError(f"{nearest} is not a folder; {mend}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{nearest} cannot be written; {mend}")
    free = shutil.disk_usage(nearest).free
    needed = ROOM + COPIES * (table.stat().st_size if table else 0)
    if free < needed:
        raise InputError(
            f"{nearest} has {free / 1e6:,.0f} MB left, a run needs {needed / 1e6:,.0f} MB; "
            f"make room, or {mend}"
        )


@contextmanager
def lock(output_dir: Path, *, wait: float = 0) -> Iterator[None]:
    """Hold the output folder alone; the system lets go of it when the process ends.

    Raises
    ------
    Busy
        Another run holds it, and did not let go of it in `wait` seconds.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    guard = FileLock(output_dir / ".lock")
    try:
        guard.acquire(timeout=wait)
    except Timeout:
        raise Busy(_describe_holder(output_dir)) from None
    try:
        yield
    finally:
        guard.release()


def _describe_holder(output_dir: Path) -> str:
    """Who holds the folder: the run tells it itself."""
    manifests = map(read_manifest, (output_dir / "running").glob("*"))
    held = next((each for each in manifests if each), {})
    who = ", ".join(
        [
            *([f"process {held['pid']}"] if "pid" in held else []),
            *([f"run {held['run_id']}"] if held else []),
            *([f"since {held['started']}"] if held else []),
        ]
    )
    return f"{output_dir} is held by another run{f' ({who})' * bool(who)}; wait for it by --wait S."


def recover(output_dir: Path) -> list[str]:
    """Set aside the runs whose process died; the caller holds the lock, so none is alive."""
    shutil.rmtree(output_dir / ".removed", ignore_errors=True)
    crashed = []
    for folder in sorted((output_dir / "running").glob("*")):
        manifest = read_manifest(folder)
        if manifest is None:  # what a kernel wrote that outlived its runner by a second
            shutil.rmtree(folder, ignore_errors=True)
            continue
        steps = manifest.get("notebooks", [])
        at_work = [step for step in steps if step.get("status") == "running"]
        for step in at_work:
            step["status"] = "failed"
        name = at_work[-1]["name"] if at_work else None
        failure = {"notebook": name, "cell": None, "cause": CRASHED}
        write_manifest(Run(folder), manifest | {"status": "crashed", "failure": failure})
        set_aside(Run(folder), output_dir)
        crashed.append(folder.name)
    return crashed


def list_runs(output_dir: Path) -> list[dict[str, Any]]:
    """The manifests of all runs, newest first, each with its `folder`, from the output folder."""
    found = []
    for kind in APART:
        for path in (output_dir / kind).glob("*/run.json"):
            manifest = read_manifest(path.parent)
            if manifest and not path.parent.is_symlink():
                folder = path.parent.relative_to(output_dir).as_posix()
                found.append(_judge(manifest) | {"folder": folder})
    return sorted(found, key=lambda run: (run["started"], run["run_id"]), reverse=True)


def _judge(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest whose status is true also of a run whose process has died."""
    if manifest["status"] != "running" or _is_alive(manifest["pid"]):
        return manifest
    return manifest | {"status": "crashed", "failure": {"cause": CRASHED}}


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def find_latest(output_dir: Path) -> dict[str, Any] | None:
    """The manifest of the run that `latest` points to."""
    return read_manifest(output_dir / "latest")


def trim(output_dir: Path, keep: int) -> list[str]:
    """Remove all but the newest `keep` runs of each kind, never the one `latest` points to."""
    latest = find_latest(output_dir) or {"run_id": None}
    removed = []
    for statuses in (("published",), ("failed", "aborted", "crashed"), ("partial",)):
        listed = [run for run in list_runs(output_dir) if run["status"] in statuses]
        old = [run for run in listed[keep:] if run["run_id"] != latest["run_id"]]
        removed += [run["folder"] for run in old]
    for folder in removed:
        _remove(output_dir / folder, output_dir)
    return removed


def _remove(folder: Path, output_dir: Path) -> None:
    """Remove a run in one step: it goes out of sight whole before its files go."""
    bin_ = output_dir / ".removed"
    bin_.mkdir(exist_ok=True)
    folder.replace(bin_ / folder.name)
    shutil.rmtree(bin_)


def find_run(name: str, output_dir: Path) -> Path:
    """The folder of a run by its path or its id.

    Raises
    ------
    InputError
        There is no such run, or its manifest cannot be read.
    """
    places = [Path(name), *(output_dir / kind / name for kind in APART)]
    for place in places:
        if (place / "run.json").is_file():
            if read_manifest(place) is None:
                raise InputError(f"{place / 'run.json'} cannot be read; the run cannot be judged.")
            return place.resolve()
    raise InputError(f"{name} is no run of {output_dir}; `segmentation runs` lists them.")


def verify_run(folder: Path) -> list[str]:
    """What differs from the manifest: files that are missing, changed or extra, a line each."""
    manifest = read_manifest(folder) or {"files": []}
    listed = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    there = find_files(Run(folder))
    missing = [f"missing: {path}" for path in listed if path not in there]
    changed = [
        f"changed: {path}"
        for path, digest in listed.items()
        if path in there and hash_file(there[path]) != digest
    ]
    return [*missing, *changed, *(f"extra: {path}" for path in there if path not in listed)]


def compare_runs(one: Path, two: Path) -> list[str]:
    """The tables and plain figures of two runs that differ before the tenth digit, a line each."""
    names = {
        path.relative_to(run).as_posix()
        for run in (one, two)
        for path in [*run.glob("tables/*"), *run.glob("segments.json")]
    }
    return [f"differs: {name}" for name in sorted(names) if not _is_same(one / name, two / name)]


def _is_same(one: Path, two: Path) -> bool:
    if not (one.is_file() and two.is_file()):
        return False
    read = _read_json if one.suffix == ".json" else _read_table
    return _is_close(read(one), read(two))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _read_table(path: Path) -> Any:
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    return table.astype(object).where(table.notna(), None).to_dict("list")


def _is_close(one: Any, two: Any) -> bool:
    """Whether two values are the same, numbers to ten significant digits."""
    if isinstance(one, dict) and isinstance(two, dict):
        return list(one) == list(two) and all(_is_close(one[key], two[key]) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(_is_close, one, two))
    if isinstance(one, float) and isinstance(two, float):
        return math.isclose(one, two, rel_tol=DIGITS, abs_tol=1e-14)
    return bool(one == two)
