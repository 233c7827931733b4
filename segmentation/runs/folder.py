"""A run: its folder, its files, its manifest, its publishing in one step."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from segmentation import ROOT, InputError
from segmentation.customers.extracts import hash_table
from segmentation.customers.text import hash_file

if TYPE_CHECKING:
    from segmentation.customers.card import Card
    from segmentation.segments.scorer import Scorer
    from segmentation.segments.tracking import Snapshot

WRITERS = {
    "preprocessed_data.csv": "02_preprocessing",
    "k_selection.csv": "03_k_selection",
    "selection.json": "03_k_selection",
    "clustered_data.csv": "04_modeling",
    "segments.json": "04_modeling",
    "segmenter.json": "04_modeling",
    "borderline.csv": "04_modeling",
    "segment_measures.csv": "04_modeling",
    "segment_levels.csv": "04_modeling",
    "segment_profiles.csv": "05_profiling",
    "segment_rules.csv": "05_profiling",
    "segment_prototypes.csv": "05_profiling",
    "changes.csv": "06_changes",
    "drift.csv": "06_changes",
    "changes.json": "06_changes",
}
"""Which notebook writes which file that a later one reads."""

RESERVED = {"latest", "by-hand", "failed", "partial", "running", "index.html", "README.md"}
UNSEALED = {"run.json", "run.log"}
"""Files of a run that its manifest does not list: itself, and the diary, which may go on."""

COMPARED = ("tables/clustered_data.csv", "segments.json", "artifacts/segmenter.json")
"""What of a previous run another is compared with."""

MEND = "compare with another run by `against`, or with none."

PACKAGES = [
    *("jupyterlab", "papermill", "nbconvert", "scikit-learn", "pandas"),
    *("numpy", "seaborn", "matplotlib", "tabulate", "joblib"),
]
FORMULA = re.compile(r"^'*[=+\-@\t\r](?![\d.,]*$)")
"""Text that a spreadsheet would run as a formula, disarmed or not; a signed number is not."""


@dataclass(frozen=True)
class Run:
    """The folder of one run; notebooks hand their files over through it, never kernel state."""

    folder: Path
    placed: set[Path] = field(default_factory=set, compare=False, repr=False)
    """The files, and the folder of the model, that a notebook asked for to write."""

    def figure(self, name: str) -> Path:
        """Where a figure of this run goes."""
        return self._place("figures", name)

    def table(self, name: str) -> Path:
        """Where a table goes that is not written by `save_table`."""
        return self._place("tables", name)

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """Write a table as CSV; text that a spreadsheet would run is disarmed by an apostrophe."""
        safe = table.copy()
        for column in safe.select_dtypes(["object", "string", "category"]):
            safe[column] = safe[column].map(disarm, na_action="ignore")
        safe.columns = [disarm(column) for column in safe.columns]
        write_text(self._place("tables", name), safe.to_csv(index=False))

    def read_table(self, name: str, *, text: tuple[str, ...] = ()) -> pd.DataFrame:
        """Read a table that an earlier notebook wrote; `text` names columns to keep as text."""
        path = self._find("tables", name)
        names = {disarm(column): str for column in text}
        table = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
        for column in table.select_dtypes(["object", "string"]):
            texts = table[column].map(_rearm, na_action="ignore")
            table[column] = texts.astype(table[column].dtype)
        table = table.rename(columns=_rearm)
        ids = [name for name in ("previous_cluster", "cluster") if name in table]
        return table.astype(dict.fromkeys(ids, "Int64"))

    def save_json(self, value: Any, name: str) -> None:
        """Write plain figures: a file of the `tables` folder, or `segments.json` at the top."""
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_text(self._place(_folder(name), name), text)

    def read_json(self, name: str) -> Any:
        """Read plain figures that an earlier notebook wrote."""
        return json.loads(self._find(_folder(name), name).read_text("utf-8"))

    def save_text(self, text: str, name: str) -> None:
        """Write a text file at the top of the run."""
        write_text(self._place("", name), text)

    def read_figures(self) -> dict[str, Any]:
        """Read the model's plain figures."""
        return json.loads(self._find("artifacts", "segmenter.json").read_text("utf-8"))

    def artifacts(self) -> Path:
        """The folder of the model."""
        folder = self.folder / "artifacts"
        self.placed.add(folder)
        return folder

    def finish(self, notebook: str, answer: str, warnings: Sequence[str] = ()) -> None:
        """Leave the proof that a notebook ran to its end: its answer, and what to warn of."""
        files = sorted(path.relative_to(self.folder).as_posix() for path in self.placed)
        proof = {"answer": answer, "warnings": list(warnings), "files": files, "finished": _now()}
        write_text(self._place("proofs", f"{notebook}.json"), json.dumps(proof, ensure_ascii=False))

    def read_proof(self, notebook: str) -> dict[str, Any] | None:
        """The proof that a notebook left, if it ran to its end."""
        path = self.folder / "proofs" / f"{notebook}.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def note(self, text: str) -> None:
        """Add to the run's diary; a full disk is told by what fails, not by its diary."""
        if not text:
            return
        with suppress(OSError), (self.folder / "run.log").open("a", encoding="utf-8") as file:
            file.write(f"{_now()} {text}\n")

    def _place(self, kind: str, name: str) -> Path:
        path = self.folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.placed.add(path)
        return path

    def _find(self, kind: str, name: str) -> Path:
        path = self.folder / kind / name
        if not path.is_file():
            writer = WRITERS.get(name, "the notebook that writes it")
            raise InputError(f"{path.name} is not in {self.folder}; run {writer} first.")
        return path


def _folder(name: str) -> str:
    return "" if name == "segments.json" else "tables"


def disarm(cell: Any) -> Any:
    """A cell with an apostrophe before it where a spreadsheet would run it as a formula."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def _rearm(cell: Any) -> Any:
    """What `disarm` was given."""
    return cell[1:] if isinstance(cell, str) and cell[:1] == "'" and FORMULA.match(cell) else cell


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def open_run(folder: str | Path) -> Run:
    """The run in a folder, made where it is not there; a relative path starts at the project's."""
    path = ROOT / folder
    path.mkdir(parents=True, exist_ok=True)
    return Run(path)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_run_id(output_dir: Path, run_id: str) -> str:
    """The run's id, made from the UTC time where none is given.

    Raises
    ------
    InputError
        The id cannot be a folder's name, is one of ours, or is taken.
    """
    run_id = run_id or datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")[:-4] + "Z"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", run_id) or run_id in RESERVED:
        raise InputError(
            f"run-id must be up to 64 letters, digits, '.', '_' or '-' and none of "
            f"{', '.join(sorted(RESERVED))}; got {run_id!r}."
        )
    if (output_dir / run_id).exists():
        raise InputError(f"run-id {run_id} is taken in {output_dir}; give another or none.")
    return run_id


def start_run(output_dir: Path, run_id: str) -> Run:
    """A fresh folder beside the published runs, where a run is built."""
    folder = output_dir / "running" / run_id
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("notebooks", "reports", "figures", "tables", "artifacts"):
        (folder / name).mkdir(parents=True)
    return Run(folder)


def write_manifest(run: Run, manifest: dict[str, Any]) -> None:
    """Write `run.json`, the only truth about a run."""
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(run.folder / "run.json", text)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What `run.json` tells of the run in a folder; None where it cannot be read."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and "run_id" in manifest else None


def seal(run: Run, manifest: dict[str, Any]) -> None:
    """Write the manifest of a finished run, every file listed; proofs have served."""
    shutil.rmtree(run.folder / "proofs", ignore_errors=True)
    kept = {key: value for key, value in manifest.items() if key != "pid"}
    write_manifest(run, kept | {"files": list_files(run)})


def find_files(run: Run) -> dict[str, Path]:
    """Every file of a run but its manifest and its diary, by its path in the run."""
    paths = sorted(path for path in run.folder.rglob("*") if path.is_file())
    named = {path.relative_to(run.folder).as_posix(): path for path in paths}
    return {name: path for name, path in named.items() if name not in UNSEALED}


def list_files(run: Run) -> list[dict[str, Any]]:
    """Every file of a run but its manifest and its diary, with SHA-256 and size in bytes."""
    return [
        {"path": name, "sha256": hash_file(path), "bytes": path.stat().st_size}
        for name, path in find_files(run).items()
    ]


def describe_environment() -> dict[str, Any]:
    """Versions of Python and the packages that the figures depend on, and the project's commit."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return {"versions": versions, "git_commit": _find_commit(), "code_sha256": _hash_package()}


def _hash_package() -> str:
    """SHA-256 of the package's code and words, whatever a commit may say."""
    folder = Path(__file__).parents[1]
    files = sorted([*folder.rglob("*.py"), *folder.glob("*.yaml")])
    return sha256("".join(map(hash_file, files)).encode()).hexdigest()


def _find_commit() -> str | None:
    try:
        command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def publish(run: Run, output_dir: Path) -> Run:
    """Move a finished run into place whole and point `latest` at it, each in one step."""
    published = move(run, output_dir / run.folder.name)
    link = output_dir / ".latest.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(published.folder.name, target_is_directory=True)
    link.replace(output_dir / "latest")
    _sync(output_dir)
    return published


def set_aside(run: Run, output_dir: Path, *, kind: str = "failed") -> Run:
    """Keep a failed (or partial) run apart from the published ones."""
    place = output_dir / kind / run.folder.name
    shutil.rmtree(place, ignore_errors=True)
    return move(run, place)


def move(run: Run, place: Path) -> Run:
    """Bring a run's files to the disk, and then the run to its place in one step."""
    for path in [*filter(_is_plain, run.folder.rglob("*")), run.folder]:
        _sync(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    run.folder.replace(place)
    _sync(place.parent)
    if not any(run.folder.parent.iterdir()):
        run.folder.parent.rmdir()
    return Run(place)


def _is_plain(path: Path) -> bool:
    return path.is_file() or path.is_dir()


def _sync(path: Path) -> None:
    """Have a file or folder written to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


# The previous run --------------------------------------------------------------------------


def find_previous(run: Run, card: Card, *, against: str = "previous") -> Snapshot | None:
    """The published run that this one is compared with, verified; None where there is none.

    Parameters
    ----------
    run : the run at hand; the others lie in the same output folder.
    against : an id in that folder, or a path; `none`; or `previous`: the newest published run
        with the card's title and the same columns in the distance, of another table (by its
        SHA-256) and of no later date.

    Raises
    ------
    InputError
        There is no such run, it was not published, a file of it was changed, or the card lacks a
        column that it was cut by.
    """
    if against == "none":
        return None
    if against != "previous":
        return read_snapshot(_verify(_find_named(run, against)), card)
    digest = hash_table(card)
    for other in list_published(_find_place(run)):
        if _is_previous(other, card, digest):
            return read_snapshot(other, card)
    return None


def list_published(output_dir: Path) -> list[Run]:
    """The published runs of an output folder, the newest first."""
    folders = [path.parent for path in output_dir.glob("*/run.json")]
    told = {f: read_manifest(f) or {} for f in folders if not f.is_symlink()}
    published = [f for f, manifest in told.items() if manifest.get("status") == "published"]
    newest = sorted(published, key=lambda f: (told[f].get("started", ""), f.name), reverse=True)
    return [Run(folder) for folder in newest]


def read_snapshot(run: Run, card: Card) -> Snapshot:
    """What a run left behind, as far as another is compared with it.

    Raises
    ------
    InputError
        A file is missing or of another version, or the card lacks a column that was cut by.
    """
    from segmentation.segments.tracking import Snapshot, index_customers

    scorer, manifest = _read_scorer(run), read_manifest(run.folder) or {}
    known = {*card.features, *card.descriptors}
    if gone := [column for column in _list_columns(scorer) if column not in known]:
        raise InputError(f"{run.folder.name} was cut by {gone[0]}, unknown to the card; {MEND}")
    texts = (card.id, *card.descriptors, "segment", "second", "status")
    customers = index_customers(run.read_table("clustered_data.csv", text=texts), card)
    segments = run.read_json("segments.json")
    highest = max(run.read_figures().get("highest_id", 0), *(s["id"] for s in segments))
    day = manifest.get("as_of") or manifest.get("started", "")[:10]
    return Snapshot(run.folder.name, customers, segments, scorer, highest, day)


def _find_place(run: Run) -> Path:
    """The output folder of a run, be it built, published or made by hand."""
    inside = run.folder.parent
    return inside.parent if inside.name in ("running", "failed", "partial") else inside


def _find_named(run: Run, against: str) -> Run:
    """The published run of an id or a path."""
    for folder in (_find_place(run) / against, ROOT / against):
        named = Run(folder.resolve())
        if (read_manifest(named.folder) or {}).get("status") == "published":
            return named
    raise InputError(
        f"against: {against} is no published run; give an id in the output folder, a path or none."
    )


def _is_previous(run: Run, card: Card, digest: str) -> bool:
    manifest = read_manifest(run.folder) or {}
    listed = {entry["path"] for entry in manifest.get("files", [])}
    day, same = manifest.get("as_of"), manifest.get("input", {}).get("sha256") == digest
    later = card.as_of and day and day > card.as_of.isoformat()
    if manifest.get("title") != card.title or same or later:
        return False
    if not {*COMPARED} <= listed:
        return False
    try:
        return {*_list_columns(_read_scorer(_verify(run)))} == {*card.distance}
    except AnotherVersion:
        return False


def check_file(folder: Path, manifest: dict[str, Any], name: str, *, mend: str) -> None:
    """Refuse a file of a run that is not what the run wrote."""
    digests = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    path = folder / name
    if not path.is_file() or hash_file(path) != digests.get(name):
        raise InputError(f"{folder.name}/{name} is not the file that the run wrote; {mend}")


def _verify(run: Run) -> Run:
    """The run, if what is compared is what it wrote."""
    manifest = read_manifest(run.folder) or {"files": []}
    for name in COMPARED:
        check_file(run.folder, manifest, name, mend=MEND)
    return run


class AnotherVersion(InputError):
    """A run whose figures this version cannot read."""


def _read_scorer(run: Run) -> Scorer:
    from segmentation.segments.scorer import Scorer

    figures = run.read_figures()
    try:
        return Scorer.from_figures(figures)
    except InputError:
        name = run.folder.name
        raise AnotherVersion(f"{name} was written by another version; {MEND}") from None


def _list_columns(scorer: Scorer) -> list[str]:
    """The columns in the distance."""
    return [*scorer.columns, *scorer.levels]
