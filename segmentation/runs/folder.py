"""One run: its folder, its files, its manifest."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import file_digest, sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic_core import to_jsonable_python

from segmentation import BUNDLE, InputError

if TYPE_CHECKING:
    import pandas as pd

WRITERS = {  # which notebook writes which files that a later one reads
    "02_preprocessing": "preprocessed_data.csv preprocessor.joblib",
    "03_k_selection": "k_selection.csv cuts.csv alternatives.csv families.csv selection.json",
    "04_modeling": "clustered_data.csv segments.json segmenter.json borderline.csv "
    "segment_measures.csv segment_levels.csv",
    "05_profiling": "segment_profiles.csv segment_rules.csv segment_prototypes.csv "
    "segment_values.csv value_bands.csv actions.csv outcomes.csv",
    "06_changes": "changes.csv drift.csv changes.json",
    "07_campaigns": "campaigns.csv campaign_results.csv",
}
# The folder of each JSON file that is not a table.
PLACES = {"run.json": "", "study.json": "", "proof.json": "", "segments.json": ""}
PLACES |= {"segmenter.json": "artifacts"}
UNSEALED = {"run.json", "run.log"}  # not in the manifest: itself, and the diary, which may go on
PACKAGES = ["jupyterlab", "papermill", "nbconvert", "scikit-learn", "pandas"]
PACKAGES += ["numpy", "seaborn", "matplotlib", "tabulate", "joblib"]
# Text that a spreadsheet would run as a formula, disarmed or not; a signed number is not.
FORMULA = re.compile(r"^'*[=+\-@\t\r](?![\d.,]*$)")
Fault = Literal["failed", "aborted", "crashed"]


def _check_moment(text: str) -> str:
    return str(text and datetime.fromisoformat(text) and text)


class Part(BaseModel, extra="allow"):
    """A part of a manifest; what another version wrote into it is kept."""


class Step(Part):
    """A notebook of a run: how it ended, what it answered, which files it wrote."""

    name: str
    status: str = "running"
    seconds: float | None = None
    answer: str = ""
    warnings: list[str] = []
    code_sha256: str = ""
    files: list[str] | None = None
    taken_from: str | None = None


class Failure(Part):
    """Why a run did not come through: in which notebook, in which cell (its `In [n]`)."""

    notebook: str | None = None
    cell: int | None = None
    cause: str = ""


class Entry(Part):
    """A file of a run."""

    path: str
    sha256: str
    bytes: int = 0


class Manifest(Part):
    """`run.json`, the only truth about a run."""

    run_id: str
    title: str = ""
    status: Literal["running", "published", "partial", "unreadable"] | Fault
    started: Annotated[str, AfterValidator(_check_moment)] = ""
    pid: int | None = Field(default=None, gt=0, lt=2**31)
    k: int | None = None
    asked: bool = False
    rule: str = ""
    rules: dict[str, Any] = {}
    verdict: str | None = None
    as_of: str | None = None
    owner: str | None = None
    parameters: dict[str, Any] = {}
    card_sha256: str = ""
    input: dict[str, Any] = {}
    quality: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    git_commit: str | None = None
    code_sha256: str = ""
    notebooks: list[Step] = []
    files: list[Entry] = []
    warnings: list[str] = []
    failure: Failure | None = None
    folder: str = ""
    """Where the run lies in its output folder; told where runs are listed, not in the file."""

    def fail(self, status: Fault, cause: str, *, cell: int | None = None) -> Failure:
        """Enter why the run did not come through, and in which notebook."""
        at_work = next((step for step in self.notebooks if step.status == "running"), None)
        self.status, self.failure = status, Failure(cause=cause, cell=cell)
        if at_work:
            at_work.status, self.failure.notebook = "failed", at_work.name
        return self.failure


@dataclass(frozen=True)
class Run:
    """The folder of one run; notebooks hand their files over through it, never kernel state.

    >>> from tempfile import mkdtemp
    >>> run = Run(Path(mkdtemp()))
    >>> run.save_json({"k": 4}, "selection.json")
    >>> run.read_json("selection.json")
    {'k': 4}
    """

    folder: Path

    @property
    def manifest(self) -> Manifest:
        """What `run.json` says; a run without one, or with an odd one, is `unreadable`."""
        return read_manifest(self.folder) or Manifest(run_id=self.folder.name, status="unreadable")

    @property
    def outputs(self) -> Path:
        """The output folder that the run lies in, or is being built in."""
        above = self.folder.parent
        return above.parent if above.name in ("running", "failed", "partial") else above

    def place(self, kind: str, name: str) -> Path:
        """Where a file goes, by the folder in the run: figures, tables or artifacts."""
        path = self.folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def find(self, kind: str, name: str) -> Path:
        """Where a file is that an earlier notebook wrote; an InputError names the notebook."""
        path = self.folder / kind / name
        if not path.is_file():
            wrote = [notebook for notebook, names in WRITERS.items() if name in names.split()]
            writer = wrote[0] if wrote else "the notebook that writes it"
            raise InputError(f"{path.name} is not in {self.folder}; run {writer} first.")
        return path

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """Write a table as CSV; text that a spreadsheet would run is disarmed by an apostrophe."""
        safe = table.rename(columns=disarm)
        for column in safe.select_dtypes(["object", "string", "category"]):
            safe[column] = safe[column].map(disarm, na_action="ignore")
        write_text(self.place("tables", name), safe.to_csv(index=False))

    def read_table(self, name: str, *, text: tuple[str, ...] = ()) -> pd.DataFrame:
        """Read a table that an earlier notebook wrote; `text` names columns to keep as text."""
        import pandas as pd

        names = {disarm(column): str for column in text}
        path = self.find("tables", name)
        table = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
        for column in table.select_dtypes(["object", "string"]):
            texts = table[column].map(_rearm, na_action="ignore")
            table[column] = texts.astype(table[column].dtype)
        table = table.rename(columns=_rearm)
        ids = [name for name in ("previous_cluster", "cluster") if name in table]
        return table.astype(dict.fromkeys(ids, "Int64"))

    def save_json(self, value: Any, name: str) -> None:
        """Write plain figures into the folder where a file of this name belongs."""
        text = json.dumps(
            value, indent=1, ensure_ascii=False, allow_nan=False, default=to_jsonable_python
        )
        write_text(self.place(PLACES.get(name, "tables"), name), text + "\n")

    def read_json(self, name: str) -> Any:
        """Read plain figures that an earlier notebook wrote."""
        return json.loads(self.find(PLACES.get(name, "tables"), name).read_text("utf-8"))

    def note(self, text: str) -> None:
        """Add to the run's diary; a full disk is told by what fails, not by its diary."""
        if text:
            line = f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n"
            with suppress(OSError), (self.folder / "run.log").open("a", encoding="utf-8") as file:
                file.write(line)

    def write_manifest(self, manifest: Manifest) -> None:
        """Write `run.json`."""
        self.save_json(manifest.model_dump(mode="json", exclude={"folder"}), "run.json")

    def seal(self, manifest: Manifest) -> None:
        """Write the manifest of a finished run, every file listed."""
        manifest.pid = None
        manifest.files = [
            Entry(path=name, sha256=hash_file(path), bytes=path.stat().st_size)
            for name, path in self.find_files().items()
        ]
        self.write_manifest(manifest)

    def find_files(self) -> dict[str, Path]:
        """Every file of a run but its manifest and its diary, by its path in the run."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        named = {path.relative_to(self.folder).as_posix(): path for path in paths}
        return {name: path for name, path in named.items() if name not in UNSEALED}

    def verify(self) -> list[str]:
        """What differs from the manifest: files missing, changed or extra, a line each."""
        listed = {entry.path: entry.sha256 for entry in self.manifest.files}
        there = {path: hash_file(place) for path, place in self.find_files().items()}
        missing = [f"missing: {path}" for path in listed if path not in there]
        changed = [f"changed: {p}" for p in listed if p in there and there[p] != listed[p]]
        return missing + changed + [f"extra: {path}" for path in there if path not in listed]


def disarm(cell: Any) -> Any:
    """A cell with an apostrophe before it where a spreadsheet would run it as a formula.

    >>> disarm("=1+1"), disarm("-5")
    ("'=1+1", '-5')
    """
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def _rearm(cell: Any) -> Any:
    """What `disarm` was given."""
    return cell[1:] if isinstance(cell, str) and cell[:1] == "'" and FORMULA.match(cell) else cell


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


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


def read_manifest(folder: Path) -> Manifest | None:
    """What `run.json` tells of the run in a folder; None where it cannot be read."""
    try:
        return Manifest.model_validate_json((folder / "run.json").read_bytes())
    except (OSError, ValidationError):
        return None


def check_file(folder: Path, manifest: Manifest, name: str, *, mend: str) -> None:
    """Refuse by an InputError a file that is missing or not as its manifest says."""
    path, digests = folder / name, {entry.path: entry.sha256 for entry in manifest.files}
    if not path.is_file() or hash_file(path) != digests.get(name):
        raise InputError(f"{folder.name}/{name} is not the file that the run wrote; {mend}")


def describe_environment() -> dict[str, Any]:
    """Versions of Python and of what the figures depend on, the project's commit, its code's hash.

    The hash is SHA-256 of the package's code and words, whatever the commit may say.
    """
    versions, commit = {"python": platform.python_version()}, ""
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # JupyterLab is an extra
            versions[name] = version(name)
    folder = Path(__file__).parents[1]
    if folder != BUNDLE:  # a checkout; an installed package may lie in anybody's
        command = ["git", "-C", str(BUNDLE), "rev-parse", "HEAD"]
        with suppress(OSError):
            commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    files = sorted([*folder.rglob("*.py"), *folder.glob("*.yaml")])
    code = sha256("".join(map(hash_file, files)).encode()).hexdigest()
    return {"versions": versions, "git_commit": commit or None, "code_sha256": code}
