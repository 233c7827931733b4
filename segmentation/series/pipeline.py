"""The series: its parameters, its notebooks in order, its failures, whom to tell."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Collection, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

import joblib
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tabulate import tabulate

from segmentation import ROOT, InputError, RunError
from segmentation.clustering import preprocessing as features
from segmentation.clustering import selection
from segmentation.customers import card as cards
from segmentation.customers import draft as drafts
from segmentation.customers import extracts
from segmentation.customers import table as customers
from segmentation.reports import pages as reports
from segmentation.runs import archive
from segmentation.runs import folder as runs
from segmentation.segments import model as segmenter
from segmentation.series import notebooks, plans, schedule, signals
from segmentation.series.kernels import Template
from segmentation.series.notebooks import NotebookError

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


class Job(BaseModel):
    """How the series is run: where, which notebooks, how long, whom to tell; no figure's matter."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    output_dir: Path = ROOT / "outputs"
    run_id: str = ""
    notebooks: Path = NOTEBOOKS
    start: str = ""
    only: str = ""
    keep: Annotated[int, Field(ge=1)] | None = None
    wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    cell_timeout: Annotated[int, Field(ge=1)] = 3600
    deadline: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    on_publish: str = ""
    on_failure: str = ""
    quiet: bool = False


class SeriesFailed(RunError):
    """The series stopped: the cause, where it is kept, the exit code."""

    def __init__(self, message: str, *, code: int = 1, run_id: str = "") -> None:
        super().__init__(message)
        self.code, self.run_id = code, run_id


@dataclass(frozen=True)
class Plan:
    """A run to come: what was checked, what each notebook will do, what is taken over."""

    parameters: Parameters
    job: Job
    card: cards.Card
    reasons: pd.DataFrame | None
    manifest: dict[str, Any]
    steps: dict[Path, str]
    base: dict[str, Any] | None

    @property
    def run_id(self) -> str:
        return str(self.manifest["run_id"])

    @property
    def whole(self) -> bool:
        """Whether every notebook has its place in the run, so that it can be published."""
        return plans.LEAVE not in self.steps.values()


def run_series(parameters: Parameters, job: Job) -> Path:
    """Run the notebooks in order and publish the run whole; returns the report's path.

    A run of `only` some notebooks is kept under `partial`, and the path is its overview's.

    Raises
    ------
    InputError
        The card, the table, a parameter or an option is refused; nothing was started.
    archive.Busy
        Another run holds the output folder.
    SeriesFailed
        A notebook failed or took too long; the run is kept under `failed`, `latest` has not moved.
    signals.Stopped
        A signal came; the same holds.
    """
    try:
        plan = plan_series(parameters, job)
        with archive.lock(job.output_dir, wait=job.wait):
            if job.wait:  # the table may have changed meanwhile
                plan = plan_series(parameters, job)
            report = _run_plan(plan)
    except (InputError, SeriesFailed, signals.Stopped) as error:
        _tell_failure(job, error)
        raise
    if plan.whole:
        _tell(job, job.on_publish, run_id=plan.run_id, status="published", report=str(report))
    return report


def run_again(folder: Path, scratch: Path) -> Path:
    """Run the series again as a published run tells, into `scratch`; the new run's folder.

    Raises
    ------
    InputError
        The table or the card is not what it was, or the parameters are of another time.
    """
    manifest = runs.read_manifest(folder) or {}
    try:
        against = manifest["parameters"]["against"]
        where = {} if against == "none" else {"against": str(folder.parent / against)}
        parameters = Parameters(**manifest["parameters"] | where)
    except (KeyError, ValidationError):
        raise InputError(f"{folder.name} does not tell the parameters of today.") from None
    job = Job(output_dir=scratch, run_id="again", quiet=True)
    now = plan_series(parameters, job).manifest
    for what, key in (("table", "input"), ("card", "card_sha256")):
        if manifest.get(key) != now[key]:
            raise InputError(f"the {what} of {folder.name} has changed since; bring it back.")
    return run_series(parameters, job).parents[1]


def plan_series(parameters: Parameters, job: Job) -> Plan:
    """Check everything that can be checked before a kernel starts; nothing is written.

    Raises
    ------
    InputError
        The card, the table, a parameter or an option is refused.
    """
    listed = notebooks.list_notebooks(job.notebooks)
    steps = plans.choose_steps(listed, start=job.start, only=job.only)
    card, used, reasons = _check_input(parameters)
    run_id = runs.check_run_id(job.output_dir, job.run_id)
    archive.check_place(job.output_dir, table=None if extracts.is_large(card) else card.source)
    settled = settle_previous(parameters, card, job.output_dir)
    manifest = _begin_manifest(settled, card, run_id) | used
    base = archive.find_latest(job.output_dir)
    plans.check_take_over(steps, base, job.output_dir / "latest", manifest)
    return Plan(settled, job, card, reasons, manifest, steps, base)


def describe_plan(plan: Plan) -> str:
    """What the run would do, as text."""
    table = plan.manifest["input"]
    taken = f"from run {plan.base['run_id']}" if plan.base else ""
    facts = [
        ("card", f"{plan.card.title} ({plan.card.path})"),
        ("table", f"{table['path']}, {table['rows_read']:,} rows, {table['rows_used']:,} used"),
        ("previous", plan.parameters.against),
        ("run", f"{plan.job.output_dir / ('' if plan.whole else 'partial') / plan.run_id}"),
        *(
            (notebook.stem, f"{does} {taken if does == plans.TAKE else ''}".strip())
            for notebook, does in plan.steps.items()
        ),
    ]
    return tabulate(facts, tablefmt="plain", disable_numparse=True)


def list_notebooks(folder: Path = NOTEBOOKS) -> list[Path]:
    """The numbered notebooks in order, a user's own among them."""
    return notebooks.list_notebooks(folder)


def _run_plan(plan: Plan) -> Path:
    """Build the run aside and publish it; what fails on the way is set aside with its cause."""
    job = plan.job
    _recover(job.output_dir)
    run = runs.start_run(job.output_dir, plan.run_id)
    try:
        with Template(plans.find_modules(plan.steps)) as template:
            from segmentation.series import execution  # noqa: F401 – while the template imports as well

            with signals.limit(job.deadline):
                page = _build(plan, run, template)
    except (Exception, KeyboardInterrupt) as error:
        _fail(plan, run, error)
    with signals.ignore():
        try:
            return _move(plan, run) / page
        except OSError as error:
            _fail(plan, run, error)


def _build(plan: Plan, run: runs.Run, template: Template) -> Path:
    """Make every file of the run and seal it; where the page that is shown first lies in it."""
    runs.write_manifest(run, plan.manifest)
    _save_draft(plan, run)
    _take_steps(plan, run, template)
    _check_unchanged(plan.card, plan.manifest)
    page = _write_pages(plan, run)
    runs.seal(run, plan.manifest)
    _check_sealed(run, plan.manifest)
    return page.relative_to(run.folder)


def _recover(output_dir: Path) -> None:
    for run_id in archive.recover(output_dir):
        print(f"run {run_id} crashed; it is kept in {output_dir / 'failed'}", file=sys.stderr)


class Taken(NamedTuple):
    """A step that has been taken: its record, its line of progress, and whose the files are."""

    record: dict[str, Any]
    line: str
    changed: Set[str] = frozenset()  # files that were written while it ran
    claimed: Set[str] = frozenset()  # those (or their folder) that it asked for to write


class Steps:
    """The steps of a run as they are taken: `run.json` tells at any moment which are at work."""

    def __init__(self, plan: Plan, run: runs.Run) -> None:
        self.plan, self.run = plan, run
        self.order = [n for n, does in plan.steps.items() if does != plans.LEAVE]
        self.records: dict[Path, dict[str, Any]] = {}
        self.taken: dict[Path, Taken] = {}
        self.beside: dict[Path, set[Path]] = {each: set() for each in self.order}
        self.told = 0

    def begin(self, notebook: Path, others: Collection[Path]) -> None:
        """Enter a step that is at work."""
        self.records[notebook] = {"name": notebook.stem, "status": "running"}
        self.beside[notebook] |= {*others}
        for other in others:
            self.beside[other].add(notebook)
        self._enter()
        runs.write_manifest(self.run, self.plan.manifest)

    def end(self, notebook: Path, taken: Taken) -> None:
        """Enter a step that has been taken, and tell of all that are, in their order."""
        self.taken[notebook] = taken
        self.records[notebook] = taken.record
        self._enter()
        while self.told < len(self.order) and self.order[self.told] in self.taken:
            self._tell(self.taken[self.order[self.told]])
            self.told += 1

    def fail(self, _: Path, others: Collection[Path]) -> None:
        """Enter that others are stopped because a step failed."""
        for other in others:
            self.records[other]["status"] = "aborted"

    def finish(self) -> None:
        """Enter which files are each notebook's own."""
        for notebook, taken in self.taken.items():
            others = [self.taken[other].claimed for other in self.beside[notebook]]
            if taken.record["status"] == "completed" and "files" not in taken.record:
                taken.record["files"] = plans.find_own(taken.changed, taken.claimed, others)

    def _enter(self) -> None:
        self.plan.manifest["notebooks"] = [
            self.records[each] for each in self.order if each in self.records
        ]

    def _tell(self, taken: Taken) -> None:
        _say(self.run, taken.line, self.plan.job)
        self.plan.manifest["warnings"] += taken.record["warnings"]
        for warning in taken.record["warnings"]:
            self.run.note(f"warning: {warning}")


def _take_steps(plan: Plan, run: runs.Run, template: Template) -> None:
    """Run the notebooks or take them over, each once those that it needs are done."""
    steps, at_once = Steps(plan, run), joblib.cpu_count()
    needs = plans.find_needs(steps.order)
    with ThreadPoolExecutor(at_once + 1) as pool, closing(template):
        pool.submit(reports.load_exporter)  # a second that the pages need not wait for
        take = partial(_take_step, plan, run, template)
        schedule.take_all(needs, take, steps, pool=pool, at_once=at_once)
    steps.finish()


def _take_step(plan: Plan, run: runs.Run, template: Template, notebook: Path) -> Taken:
    """Run a notebook or take it over."""
    if plan.steps[notebook] == plans.TAKE and plan.base:
        record = plans.take_over(notebook, plan.base, plan.job.output_dir / "latest", run)
        return Taken(record, f"{notebook.stem:<20}taken over from run {plan.base['run_id']}")
    return _run_notebook(plan, run, template, notebook)


def _check_input(
    parameters: Parameters,
) -> tuple[cards.Card, dict[str, Any], pd.DataFrame | None]:
    """Refuse what the notebooks could not use, before any kernel starts."""
    card, reasons = customers.explain_card(
        parameters.card, features=parameters.features, as_of=parameters.as_of
    )
    table, quality = customers.inspect_customers(card, seed=parameters.seed)
    digest = extracts.hash_table(card)
    used = features.select_rows(table, card)
    segmenter.check_k(parameters.k or 1, used[card.distance])
    read = round(customers.count_customers(table).sum())
    source = {"path": card.name, "sha256": digest}
    quality = features.describe_quality(table, quality, card)
    facts = {
        "input": source | {"rows_read": read, "rows_used": features.count_used(table, card)},
        "quality": quality.to_dict("records"),
    }
    return card, facts, reasons


def settle_previous(parameters: Parameters, card: cards.Card, output_dir: Path) -> Parameters:
    """The parameters with the previous run found, so that all notebooks compare with the same."""
    place = runs.Run(output_dir / "new")
    previous = runs.find_previous(place, card, against=parameters.against)
    if parameters.against != "previous":
        return parameters
    return parameters.model_copy(update={"against": previous.run_id if previous else "none"})


def _check_unchanged(card: cards.Card, manifest: dict[str, Any]) -> None:
    """Refuse to publish what was read from a table that changed on the way."""
    if extracts.hash_table(card) != manifest["input"]["sha256"]:
        last = manifest["notebooks"][-1]["name"]
        raise NotebookError(last, None, f"{card.name} changed while the series ran")


def _save_draft(plan: Plan, run: runs.Run) -> None:
    """Keep the card that was drafted for a bare table in the run; say what it holds."""
    if plan.reasons is None:
        return
    table = os.path.relpath(plan.card.path, plan.job.output_dir / plan.run_id)
    card = plan.card.model_copy(update={"table": table})
    run.save_text(drafts.write_card(card, plan.reasons), "card.yaml")
    for column, role, reason in plan.reasons.itertuples(index=False):
        _say(run, f"{cards.clean_text(column)}: {role} ({reason})", plan.job)


def _begin_manifest(parameters: Parameters, card: cards.Card, run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "title": card.title,
        "status": "running",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "pid": os.getpid(),
        "k": None,
        "asked": bool(parameters.k),
        "rule": parameters.rule,
        "rules": {},
        "verdict": None,
        "as_of": card.as_of.isoformat() if card.as_of else None,
        "owner": card.owner or None,
        "parameters": parameters.model_dump(mode="json"),
        "card_sha256": sha256(
            card.model_dump_json(exclude={"path", "table", "backend"}).encode()
        ).hexdigest(),
        "input": {},
        **runs.describe_environment(),
        "notebooks": [],
        "files": [],
        "warnings": [],
    }


def _run_notebook(plan: Plan, run: runs.Run, template: Template, notebook: Path) -> Taken:
    """Execute one notebook into the run; its record holds its answer."""
    from segmentation.series import execution

    started, before = time.monotonic(), _see_files(run)
    execution.execute_notebook(
        notebook,
        run.folder / "notebooks" / notebook.name,
        plan.parameters.model_dump(mode="json") | {"run_dir": _relative(run.folder)},
        template=template,
        cell_timeout=plan.job.cell_timeout,
        bar=not plan.job.quiet and sys.stderr.isatty(),
    )
    proof = run.read_proof(notebook.stem)
    if proof is None:
        raise NotebookError(notebook.stem, None, "it ended without `run.finish(…)`, its last cell")
    seconds = round(time.monotonic() - started, 2)
    record = {
        "name": notebook.stem,
        "status": "completed",
        "seconds": seconds,
        "answer": proof["answer"],
        "warnings": proof["warnings"],
        "code_sha256": notebooks.hash_code(notebook),
    }
    return Taken(
        record,
        f"{notebook.stem:<20}{seconds:6.1f} s  {proof['answer']}",
        changed={name for name, when in _see_files(run).items() if before.get(name) != when},
        claimed={*proof["files"], f"notebooks/{notebook.name}"},
    )


def _see_files(run: runs.Run) -> dict[str, int]:
    """The files of a run, each with the time that it was written; not what is half written."""
    seen = {}
    for name, path in runs.find_files(run).items():
        with suppress(FileNotFoundError):
            if name[:7] != "proofs/" and path.suffix != ".partial":
                seen[name] = path.stat().st_mtime_ns
    return seen


def _relative(path: Path) -> str:
    """A path as a page may show it: from the project's folder where it lies inside."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _write_pages(plan: Plan, run: runs.Run) -> Path:
    """Enter what was chosen and write the pages; the one that is shown first."""
    from segmentation.reports import explorer
    from segmentation.reports import report as briefing

    manifest = plan.manifest
    if plan.whole:
        _take_choice(manifest, run)
        page = briefing.write_report(run.folder, manifest)
        explorer.write_explorer(run.folder, manifest)
        reports.write_pages(run.folder, manifest)
    else:
        manifest["status"] = "partial"
        page = reports.write_pages(run.folder, manifest)
    return page


def _take_choice(manifest: dict[str, Any], run: runs.Run) -> None:
    """Enter what the finished notebooks chose."""
    chosen: selection.Selection = run.read_json("selection.json")
    manifest |= {key: chosen[key] for key in ("k", "asked", "rule", "rules", "verdict")}
    segments = run.read_json("segments.json")
    manifest["input"]["rows_used"] = sum(segment["size"] for segment in segments)
    manifest["status"] = "published"


def _check_sealed(run: runs.Run, manifest: dict[str, Any]) -> None:
    """Refuse to publish what is not as its manifest says, read again from the disk."""
    if differs := archive.verify_run(run.folder):
        last = manifest["notebooks"][-1]["name"]
        raise NotebookError(last, None, f"the run is not as its manifest says: {differs[0]}")


def _move(plan: Plan, run: runs.Run) -> Path:
    """Bring the finished run to its place, tidy up, and write the page of the runs; its folder."""
    job = plan.job
    if plan.whole:
        moved = runs.publish(run, job.output_dir)
        moved.note("published")
    else:
        moved = runs.set_aside(run, job.output_dir, kind="partial")
    _tidy(job)
    return moved.folder


def _tidy(job: Job) -> None:
    """Keep the newest runs where that is asked, and write the page of the runs.

    What goes wrong here is told and changes no outcome: the runs themselves are in place.
    """
    try:
        if job.keep:
            archive.trim(job.output_dir, job.keep)
        latest = archive.find_latest(job.output_dir)
        reports.write_runs(job.output_dir, latest, archive.list_runs(job.output_dir))
    except OSError as error:
        print(f"{job.output_dir}: {error.strerror}; the page of the runs is old.", file=sys.stderr)


def _fail(plan: Plan, run: runs.Run, error: BaseException) -> NoReturn:
    """Keep a run that did not come through, with its cause, and raise what ends the command."""
    manifest = plan.manifest
    step = next((each for each in manifest["notebooks"] if each["status"] == "running"), None)
    if step:
        step["status"] = "failed"
    failure = _describe_failure(error, step["name"] if step else None, run, plan.job)
    code = _find_code(error)
    stopped = isinstance(error, KeyboardInterrupt) and code != notebooks.TIMED_OUT
    manifest |= {"status": "aborted" if stopped else "failed", "failure": failure}
    run.note(f"{manifest['status']}: {failure['cause']}")
    run.note(_tell_details(error))
    kept = _keep_failed(plan, run)
    _tidy(plan.job)
    if stopped:
        error.run_id = plan.run_id  # type: ignore[attr-defined]
        raise error
    told = "\n".join([_write_failure(failure), *_point_to(kept, failure)])
    raise SeriesFailed(told, code=code, run_id=plan.run_id) from error


def _tell_details(error: BaseException) -> str:
    """The traceback that mends something: the notebook's, or that of a fault of ours."""
    if isinstance(error, NotebookError | KeyboardInterrupt):
        return getattr(error, "details", "")
    return "".join(traceback.format_exception(error))


def _find_code(error: BaseException) -> int:
    return int(getattr(error, "code", 130 if isinstance(error, KeyboardInterrupt) else 1))


def _describe_failure(
    error: BaseException, notebook: str | None, run: runs.Run, job: Job
) -> dict[str, Any]:
    """Which notebook, which cell, and why."""
    if isinstance(error, NotebookError):
        return error.record
    cause = f"{type(error).__name__}: {error}"
    if isinstance(error, signals.Stopped):
        cause = error.cause + (f" ({job.deadline:g} s)" if error.code == 124 else "")
    elif isinstance(error, KeyboardInterrupt):
        cause = "it was interrupted"
    elif isinstance(error, InputError):
        cause = str(error)
    elif isinstance(error, OSError) and error.strerror:
        cause = f"{error.strerror} ({run.folder.parent.parent})"
    cell = notebooks.find_last_cell(run.folder / f"notebooks/{notebook}.ipynb")
    return {"notebook": notebook, "cell": cell, "cause": cause.splitlines()[0]}


def _write_failure(failure: dict[str, Any]) -> str:
    name, cell = failure["notebook"], failure["cell"]
    where = f" in cell [{cell}]" if cell is not None else ""
    return f"{name or 'the run'} failed{where}: {failure['cause']}"


def _keep_failed(plan: Plan, run: runs.Run) -> Path | None:
    """Keep a failed run apart; on a full disk what it made goes first, at last all of it."""
    for products in ((), ("artifacts", "figures", "reports", "tables"), ("notebooks",)):
        for name in products:
            shutil.rmtree(run.folder / name, ignore_errors=True)
        with suppress(OSError):
            runs.write_manifest(run, plan.manifest)
            return runs.set_aside(run, plan.job.output_dir).folder
    shutil.rmtree(run.folder, ignore_errors=True)
    return None


def _point_to(kept: Path | None, failure: dict[str, Any]) -> list[str]:
    """Where to look: the executed copy, else the diary."""
    if kept is None:
        return []
    copy = kept / "notebooks" / f"{failure['notebook']}.ipynb"
    return [f"The executed copy is {copy}" if copy.is_file() else f"See {kept / 'run.log'}"]


def _say(run: runs.Run, line: str, job: Job) -> None:
    """A line of progress, for the diary and for who watches; a closed pipe stops no run."""
    run.note(line)
    if not job.quiet:
        with suppress(OSError):
            print(line, flush=True)


# Whom to tell ------------------------------------------------------------------------------


HOOK_SECONDS = 600


def _tell_failure(job: Job, error: BaseException) -> None:
    """Tell of a run that was refused, failed or stopped; the report is the last good one."""
    report = job.output_dir / "latest" / "reports" / "report.html"
    status = "refused" if isinstance(error, InputError) else "failed"
    _tell(
        job,
        job.on_failure,
        run_id=getattr(error, "run_id", ""),
        status="aborted" if isinstance(error, KeyboardInterrupt) else status,
        report=str(report) if report.is_file() else "",
        cause=str(error).splitlines()[0] if str(error) else "",
    )


def _tell(
    job: Job, command: str, *, run_id: str, status: str, report: str, cause: str = ""
) -> None:
    """Run a command of the user's; that it fails is told and changes no outcome."""
    if not command:
        return
    facts = {"RUN": run_id, "STATUS": status, "REPORT": report, "CAUSE": cause}
    facts["OUTPUT"] = str(job.output_dir)
    told = {f"SEGMENTATION_{name}": value for name, value in facts.items()}
    fault, printed = _call(command, os.environ | told)
    folders = [job.output_dir / kind / run_id for kind in ("", "failed") if run_id]
    run = next((runs.Run(folder) for folder in folders if folder.is_dir()), None)
    if run and printed:
        run.note(f"{command}: {printed}")
    if fault:
        print(f"the command told of the outcome {fault}: {command}", file=sys.stderr)
        if run:
            run.note(f"{command}: it {fault}")


def _call(command: str, environment: dict[str, str]) -> tuple[str, str]:
    """Run a shell command with all its children; what went wrong, and the end of what it said."""
    shell = subprocess.Popen(
        command,
        shell=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        printed = shell.communicate(timeout=HOOK_SECONDS)[0]
        return f"failed with {shell.returncode}" if shell.returncode else "", printed[-2000:]
    except subprocess.TimeoutExpired:
        return f"took longer than {HOOK_SECONDS} s", ""
    finally:
        if shell.returncode is None:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.communicate()
