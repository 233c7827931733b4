"""An output folder: its lock, its runs, what crashed in it, what is published, listed, kept."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from segmentation import InputError, RunError
from segmentation.runs.folder import Manifest, Run, read_manifest, write_text

ROOM, COPIES = 20_000_000, 3  # bytes that a run needs, and how often its table's on top
DIGITS = 1e-10  # relative difference from which two figures are not the same
APART = ("", "failed", "partial", "running")  # where runs lie; published ones at the top
FOLDERS = ("notebooks", "reports", "figures", "tables", "artifacts")  # of a run
RESERVED = {"latest", "by-hand", "failed", "partial", "running", "campaigns"}
RESERVED |= {"index.html", "README.md"}
MARKER, PROMISE = ".segmentation", ".publishing"  # of a folder of ours; of a run being published
# What may lie in a folder that becomes ours; no run touches it.
HARMLESS = {MARKER, ".lock", ".gitignore", ".gitkeep", "README.md", "by-hand", "campaigns"}
CRASHED = "its process ended without a word (killed, or the power failed)"


class Busy(RunError):
    """Another run holds the output folder."""

    code = 75


@dataclass(frozen=True)
class Archive:
    """The runs of an output folder.

    >>> Archive(Path("/nowhere")).list_runs()
    []
    """

    folder: Path

    def check(self, *, table: Path | None = None) -> None:
        """Refuse by an InputError a folder that is not ours, or has no room for a run."""
        nearest = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        latest, other = self.folder / "latest", "name another by --output-dir."
        if not nearest.is_dir():
            raise InputError(f"{nearest} is not a folder; {other}")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise InputError(f"{nearest} cannot be written; {other}")
        names = {path.name for path in self.folder.glob("*")}
        ours = MARKER in names or names <= HARMLESS
        if not ours and all(run.status == "unreadable" for run in self.list_runs()):
            raise InputError(f"{self.folder} holds other files and no run; give an empty folder.")
        if latest.exists() and not latest.is_symlink():
            raise InputError(f"{latest} is no link to a run; move it away, or {other}")
        free = shutil.disk_usage(nearest).free
        needed = ROOM + COPIES * (table.stat().st_size if table else 0)
        if free < needed:
            told = f"has {free / 1e6:,.0f} MB left, a run needs {needed / 1e6:,.0f} MB"
            raise InputError(f"{nearest} {told}; make room, or {other}")

    def check_run_id(self, run_id: str) -> str:
        """The run's id, made from the UTC time if empty; one that is taken is an InputError."""
        run_id = run_id or datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")[:-4] + "Z"
        check_name(run_id, "run-id")
        others = [self.folder / kind / run_id for kind in APART[1:]]
        foreign = [path for path in others if path.exists() and read_manifest(path) is None]
        if (self.folder / run_id).exists() or foreign:
            raise InputError(f"run-id {run_id} is taken in {self.folder}; give another or none.")
        return run_id

    @contextmanager
    def lock(self, *, wait: float = 0) -> Iterator[None]:
        """Hold the folder alone, and mark it; the system lets go of it when the process ends.

        Raises
        ------
        Busy
            Another run holds it, and did not let go of it in `wait` seconds.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            guard = FileLock(self.folder / ".lock").acquire(timeout=wait)
        except Timeout:
            manifests = map(read_manifest, self.folder.glob("running/*"))
            held = next((each for each in manifests if each), None)
            who = f" (process {held.pid}, run {held.run_id}, since {held.started})" if held else ""
            told = f"{self.folder} is held by another run{who}; wait for it by --wait S."
            raise Busy(told) from None
        with guard:
            (self.folder / MARKER).touch()
            yield

    def recover(self) -> list[str]:
        """Set aside the runs whose process died, and finish what was being published.

        The caller holds the lock, so none of them is alive. What was done, a sentence each.
        """
        shutil.rmtree(self.folder / ".removed", ignore_errors=True)
        done, promise = [], self.folder / PROMISE
        if promise.is_file():
            run = Run(self.folder / promise.read_text("utf-8"))
            if run.manifest.status == "published":
                self._point_to(run)
            promise.unlink()
            done.append(f"run {run.folder.name} was cut short while it was published")
        for run in map(Run, sorted(self.folder.glob("running/*"))):
            if manifest := read_manifest(run.folder):
                manifest.fail("crashed", CRASHED)
                run.write_manifest(manifest)
                kept = self.set_aside(run).folder
                done.append(f"run {kept.name} crashed; it is kept in {kept.parent}")
            elif {p.name for p in run.folder.rglob("*") if p.suffix != ".partial"} == {*FOLDERS}:
                shutil.rmtree(run.folder)  # its process died before the first file was whole
        with suppress(OSError):  # an odd one is in it, or there is none
            (self.folder / "running").rmdir()
        return done

    def start_run(self, run_id: str) -> Run:
        """A fresh folder beside the published runs, where a run is built."""
        folder = self.folder / "running" / run_id
        for name in FOLDERS:
            (folder / name).mkdir(parents=True)
        return Run(folder)

    def publish(self, run: Run) -> Run:
        """Move a finished run into place whole and point `latest` at it, each in one step."""
        write_text(self.folder / PROMISE, run.folder.name)
        published = _move(run, self.folder / run.folder.name)
        self._point_to(published)
        (self.folder / PROMISE).unlink()
        published.note("published")
        return published

    def _point_to(self, run: Run) -> None:
        link = self.folder / ".latest.partial"
        link.unlink(missing_ok=True)
        link.symlink_to(run.folder.name, target_is_directory=True)
        link.replace(self.folder / "latest")
        _sync(self.folder)

    def set_aside(self, run: Run, *, kind: str = "failed") -> Run:
        """Keep a failed (or partial) run apart from the published ones."""
        place = self.folder / kind / run.folder.name
        if read_manifest(place):
            shutil.rmtree(place)
        return _move(run, place)

    def list_runs(self) -> list[Manifest]:
        """The manifests of all runs, newest first, each with its `folder` from this one."""
        found = []
        for kind in APART:
            for path in (self.folder / kind).glob("*/run.json"):
                if not path.parent.is_symlink():
                    manifest = Run(path.parent).manifest
                    if manifest.status == "running" and not _is_alive(manifest):
                        manifest.fail("crashed", CRASHED)
                    manifest.folder = path.parent.relative_to(self.folder).as_posix()
                    found.append(manifest)
        return sorted(found, key=lambda run: (run.started, run.run_id), reverse=True)

    def list_published(self) -> list[Run]:
        """The published runs, the newest first."""
        published = [run for run in self.list_runs() if run.status == "published"]
        return [Run(self.folder / run.folder) for run in published if "/" not in run.folder]

    def find_run(self, name: str) -> Path:
        """The folder of a run by its path or its id; an InputError refuses what is none."""
        for place in [Path(name), *(self.folder / kind / name for kind in APART)]:
            if (place / "run.json").is_file():
                if read_manifest(place) is None:
                    raise InputError(f"{place / 'run.json'} cannot be read; the run is not judged.")
                return place.resolve()
        raise InputError(f"{name} is no run of {self.folder}; `segmentation runs` lists them.")

    def trim(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` runs of each kind.

        Never the one that `latest` points to, nor one that a campaign was drawn from.
        """
        latest, removed, bin_ = read_manifest(self.folder / "latest"), [], self.folder / ".removed"
        drawn = [path.read_text("utf-8") for path in self.folder.glob("campaigns/*.json")]
        for statuses in ("published", "failed aborted crashed", "partial"):
            listed = [run for run in self.list_runs() if run.status in statuses.split()]
            old = [run for run in listed[keep:] if not latest or run.run_id != latest.run_id]
            removed += [r.folder for r in old if not any(f'"{r.run_id}"' in text for text in drawn)]
        for name in removed:  # in one step: a run goes out of sight whole before its files go
            bin_.mkdir(exist_ok=True)
            (self.folder / name).replace(bin_ / Path(name).name)
            shutil.rmtree(bin_)
        return removed


def check_name(name: str, what: str) -> str:
    """The name of a run or campaign, which names a file too; an InputError says what it may be."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name in RESERVED:
        kinds = "up to 64 letters, digits, '.', '_' or '-'"
        others = ", ".join(sorted(RESERVED))
        raise InputError(f"{what} must be {kinds} and none of {others}; got {name!r}.")
    return name


def _is_alive(run: Manifest) -> bool:
    """Whether the process of a run is there, be it ours or another's."""
    with suppress(PermissionError):
        try:
            os.kill(run.pid or 0, 0)
        except ProcessLookupError:
            return False
    return run.pid is not None


def _move(run: Run, place: Path) -> Run:
    """Bring a run's files to the disk, and then the run to its place in one step."""
    for path in [*run.folder.rglob("*"), run.folder]:
        if path.is_file() or path.is_dir():
            _sync(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    run.folder.replace(place)
    _sync(place.parent)
    with suppress(OSError):  # another's folder beside it
        run.folder.parent.rmdir()
    return Run(place)


def _sync(path: Path) -> None:
    """Have a file or folder written to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def compare_runs(one: Path, two: Path) -> list[str]:
    """The tables and plain figures of two runs that differ before the tenth digit, a line each."""
    files = [path for run in (one, two) for path in [*run.glob("tables/*"), run / "segments.json"]]
    names = {file.relative_to(one if file.is_relative_to(one) else two) for file in files}
    return [f"differs: {name}" for name in sorted(names) if not _is_same(one / name, two / name)]


def _is_same(one: Path, two: Path) -> bool:
    """Whether two files hold the same, numbers to ten digits, which pandas heeds in lists alone."""
    import pandas as pd

    def read(path: Path) -> pd.DataFrame:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix == ".csv":
            return pd.read_csv(path, keep_default_na=False, na_values=[""])
        pairs = json.loads(path.read_text("utf-8"), object_pairs_hook=list)
        return pd.DataFrame({"figures": [pairs]})

    try:
        pd.testing.assert_frame_equal(read(one), read(two), rtol=DIGITS, atol=1e-14)
    except (AssertionError, FileNotFoundError):
        return False
    return True
