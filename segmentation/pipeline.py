"""The series: its parameters, its notebooks in order, its failures."""

from __future__ import annotations

import logging
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segmentation import (
    ROOT,
    cards,
    customers,
    drafts,
    features,
    runs,
    segmenter,
    selection,
    tables,
)

Rule = Literal["calibrated", "silhouette", "elbow", "gap", "prediction-strength", "stability"]
NOTEBOOKS = ROOT / "notebooks"


class Parameters(BaseModel):
    """What a run is asked for; the notebooks' parameters carry the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    card: str = "data/mall_customers.yaml"
    k: Annotated[int, Field(ge=0)] = 0
    rule: Rule = "calibrated"
    k_max: Annotated[int, Field(ge=2, le=50)] = 10
    features: str = ""
    resamples: Annotated[int, Field(ge=20, le=10_000)] = 100
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    as_of: str = ""
    against: Annotated[str, Field(min_length=1)] = "previous"


class NotebookError(RuntimeError):
    """A notebook did not reach its end: which, in which cell (its `In [n]`), and why."""

    def __init__(self, notebook: str, cell: int | None, cause: str) -> None:
        where = f" in cell [{cell}]" if cell is not None else ""
        super().__init__(f"{notebook} failed{where}: {cause}")
        self.record = {"notebook": notebook, "cell": cell, "cause": cause}


class SeriesFailed(RuntimeError):
    """The series stopped: the cause, and where the executed copy is kept."""


def run_series(
    parameters: Parameters, *, output_dir: Path, run_id: str = "", quiet: bool = False
) -> Path:
    """Run every notebook in order and publish the run whole; returns the report's path.

    Raises
    ------
    InputError
        The card, the table, a parameter or the run id is refused; nothing was started.
    SeriesFailed
        A notebook failed; the run is kept under `failed`, `latest` has not moved.
    """
    card, used = _check_input(parameters)
    run_id = runs.check_run_id(output_dir, run_id)
    settled = settle_previous(parameters, card, output_dir)
    run = runs.start_run(output_dir, run_id)
    manifest = _begin_manifest(parameters, card, run_id) | used
    runs.write_manifest(run, manifest)
    if card.path.suffix.lower() not in (".yaml", ".yml"):
        _save_draft(card, run, output_dir / run_id, quiet=quiet)
    try:
        for notebook in list_notebooks():
            record = _run_notebook(notebook, run, settled, quiet=quiet)
            manifest["warnings"] += record.pop("warnings")
            manifest["notebooks"].append(record)
        _check_unchanged(card, manifest)
        return _publish(run, manifest, output_dir)
    except BaseException as error:
        kept = _set_aside(run, manifest, output_dir, error)
        if isinstance(error, NotebookError):
            copy = kept.folder / "notebooks" / f"{error.record['notebook']}.ipynb"
            raise SeriesFailed(f"{error}\nThe executed copy is {copy}") from error
        raise


def list_notebooks() -> list[Path]:
    """The numbered notebooks in order, a user's own among them."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def _check_input(parameters: Parameters) -> tuple[cards.Card, dict[str, Any]]:
    """Refuse what the notebooks could not use, before any kernel starts."""
    card = customers.read_card(
        parameters.card, features=parameters.features, as_of=parameters.as_of
    )
    table, quality = customers.inspect_customers(card)
    digest = tables.hash_file(card.source)
    used = features.select_rows(table, card)
    segmenter.check_k(parameters.k or 1, used[card.distance])
    source = {"path": card.source.name, "sha256": digest}
    quality = features.describe_quality(table, quality, card)
    return card, {
        "input": source | {"rows_read": len(table), "rows_used": len(used)},
        "quality": quality.to_dict("records"),
    }


def settle_previous(parameters: Parameters, card: cards.Card, output_dir: Path) -> Parameters:
    """The parameters with the previous run found, so that all notebooks compare with the same."""
    place = runs.Run(output_dir / "running")
    previous = runs.find_previous(place, card, against=parameters.against)
    if parameters.against != "previous":
        return parameters
    return parameters.model_copy(update={"against": previous.run_id if previous else "none"})


def _check_unchanged(card: cards.Card, manifest: dict[str, Any]) -> None:
    """Refuse to publish what was read from a table that changed on the way."""
    if tables.hash_file(card.source) != manifest["input"]["sha256"]:
        last = manifest["notebooks"][-1]["name"]
        raise NotebookError(last, None, f"{card.source.name} changed while the series ran")


def _save_draft(card: cards.Card, run: runs.Run, place: Path, *, quiet: bool) -> None:
    """Keep the card that was drafted for a bare table in the run; say what it holds."""
    reasons = drafts.draft_card(card.path)[1]
    table = os.path.relpath(card.path, place)
    run.save_text(drafts.write_card(card.model_copy(update={"table": table}), reasons), "card.yaml")
    for column, role, reason in [] if quiet else reasons.itertuples(index=False):
        print(f"{cards.clean_text(column)}: {role} ({reason})", flush=True)


def _begin_manifest(parameters: Parameters, card: cards.Card, run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "title": card.title,
        "status": "running",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "k": None,
        "asked": bool(parameters.k),
        "rule": parameters.rule,
        "rules": {},
        "verdict": None,
        "as_of": card.as_of.isoformat() if card.as_of else None,
        "owner": card.owner or None,
        "parameters": parameters.model_dump(mode="json"),
        "input": {},
        **runs.describe_environment(),
        "notebooks": [],
        "files": [],
        "warnings": [],
    }


def _run_notebook(
    notebook: Path, run: runs.Run, parameters: Parameters, *, quiet: bool
) -> dict[str, Any]:
    """Execute one notebook into the run; its record holds the answer that it left."""
    started = time.monotonic()
    _execute(notebook, run, parameters, bar=not quiet and sys.stderr.isatty())
    proof = run.read_proof(notebook.stem)
    if proof is None:
        raise NotebookError(notebook.stem, None, "it ended without `run.finish(…)`, its last cell")
    seconds = round(time.monotonic() - started, 2)
    if not quiet:
        print(f"{notebook.stem:<20}{seconds:6.1f} s  {proof['answer']}", flush=True)
    return {
        "name": notebook.stem,
        "status": "completed",
        "seconds": seconds,
        "answer": proof["answer"],
        "warnings": proof["warnings"],
    }


def _execute(notebook: Path, run: runs.Run, parameters: Parameters, *, bar: bool) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    logging.getLogger("papermill").setLevel(logging.ERROR)
    target = run.folder / "notebooks" / notebook.name
    values = parameters.model_dump(mode="json") | {"run_dir": _relative(run.folder)}
    try:
        papermill.execute_notebook(
            _as_template(notebook),
            _as_template(target),
            values,
            kernel_name="python3",
            progress_bar={"desc": notebook.stem, "leave": False} if bar else False,
            extra_arguments=["--IPKernelApp.log_level=50"],
            config=Config(KernelManager={"transport_encryption": "auto"}),
        )
    except papermill.PapermillExecutionError as error:
        cause = f"{error.ename}: {error.evalue}".splitlines()[0]
        raise NotebookError(notebook.stem, error.exec_count, cause) from None
    except DeadKernelError:
        raise NotebookError(notebook.stem, None, "its kernel died (out of memory?)") from None


def _as_template(path: Path) -> str:
    """A path that papermill, which fills templates in paths, leaves as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _relative(path: Path) -> str:
    """A path as a page may show it: from the project's folder where it lies inside."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _publish(run: runs.Run, manifest: dict[str, Any], output_dir: Path) -> Path:
    from segmentation import briefing, explorer, reports

    _take_choice(manifest, run)
    report = briefing.write_report(run.folder, manifest)
    explorer.write_explorer(run.folder, manifest)
    reports.write_pages(run.folder, manifest)
    runs.seal(run, manifest)
    published = runs.publish(run, output_dir)
    return published.folder / report.relative_to(run.folder)


def _take_choice(manifest: dict[str, Any], run: runs.Run) -> None:
    """Enter what the finished notebooks chose."""
    chosen: selection.Selection = run.read_json("selection.json")
    manifest |= {key: chosen[key] for key in ("k", "asked", "rule", "rules", "verdict")}
    manifest["status"] = "published"


def _set_aside(
    run: runs.Run, manifest: dict[str, Any], output_dir: Path, error: BaseException
) -> runs.Run:
    stopped = isinstance(error, KeyboardInterrupt)
    manifest["status"] = "aborted" if stopped else "failed"
    manifest["failure"] = getattr(error, "record", {"cause": f"{type(error).__name__}: {error}"})
    runs.write_manifest(run, manifest)
    return runs.set_aside(run, output_dir)
