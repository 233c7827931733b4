"""The series: its parameters, its notebooks in order, its failures, whom to tell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from subprocess import DEVNULL, STDOUT
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from pydantic import BaseModel, Field, ValidationError

from segmentation import ROOT, InputError
from segmentation.runs import (
    Archive,
    Manifest,
    Run,
    Step,
    check_file,
    compare_runs,
    describe_environment,
    read_manifest,
    write_text,
)
from segmentation.series import notebooks, signals
from segmentation.series.notebooks import LEAVE, NOTEBOOKS, TAKE, Notebook, SeriesFailed
from segmentation.series.signals import Stopped

if TYPE_CHECKING:
    import pandas as pd

    from segmentation.customers import Card
    from segmentation.series.execution import Kernel, Kernels

SPARE = 1_000_000  # bytes that the manifest of a failed run and the page of the runs need
HOOK_SECONDS = 600
NAMED = 6  # segments that the last lines of a run name; the others are counted
Rule = Literal["calibrated", "silhouette", "elbow", "gap", "prediction-strength", "stability"]


class Options(BaseModel, extra="forbid", use_attribute_docstrings=True):
    """What is given on the command line; the help tells what stands under each field."""


class Parameters(Options):
    """What a run is asked for; the notebooks' parameters carry the same names."""

    card: str = "data/mall_customers.yaml"
    """dataset card, or a table without one"""
    k: int | None = Field(default=None, ge=1)
    """number of segments (default: auto, the rule decides)"""
    rule: Rule = "calibrated"
    """calibrated, silhouette, elbow, gap, prediction-strength or stability"""
    k_max: int = Field(default=10, ge=2, le=50)
    """largest K tried"""
    features: str = ""
    """columns or labels to use, separated by commas"""
    resamples: int = Field(default=100, ge=20, le=10_000)
    """scale of every resampling"""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """seed of every random draw"""
    as_of: str = ""
    """date of the data"""
    encoding: str = ""
    """encoding of a CSV that is not UTF-8, such as cp1252"""
    sheet: str = ""
    """sheet of a workbook"""
    against: str = Field(default="previous", min_length=1)
    """run to compare with: previous, none, an id or a path"""


class Job(Options, populate_by_name=True):
    """How the series is run: where, which notebooks, how long, whom to tell; no figure's matter."""

    output_dir: Path = ROOT / "outputs"
    """where runs go"""
    run_id: str = ""
    """name of the run (default: the time, UTC)"""
    notebooks: Path = NOTEBOOKS
    """folder of the series"""
    start: str = Field(default="", alias="from")
    """number or name of the first to run; those before are taken over from the latest run"""
    only: str = ""
    """run only these, separated by commas; the run is not published"""
    keep: int | None = Field(default=None, ge=1)
    """keep only so many of the newest runs"""
    wait: float = Field(default=0, ge=0, allow_inf_nan=False)
    """seconds to wait for another run to end"""
    cell_timeout: int = Field(default=3600, ge=1)
    """seconds that one cell may take"""
    deadline: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """seconds that the whole run may take"""
    on_publish: str = ""
    """shell command after publishing"""
    on_failure: str = ""
    """shell command after anything else"""
    quiet: bool = False
    """print only the path of the report"""
    dry_run: bool = False
    """check everything, say what would be done"""


@dataclass(frozen=True)
class Plan:
    """A run to come: what was checked, what each notebook will do, what is taken over."""

    parameters: Parameters
    job: Job
    card: Card
    reasons: pd.DataFrame | None  # why a card was drafted as it is; None for a card of the user's
    manifest: Manifest
    steps: dict[Notebook, str]
    base: Run
    whole: bool  # every notebook has its place in the run, so that it can be published
    place: Path  # where the run goes once it is done


@signals.listen()
def run_series(parameters: Parameters, job: Job) -> Path:
    """Run the notebooks in order and publish the run whole; returns the report's path.

    A run of `only` some notebooks is kept under `partial`, and the path is its overview's.

    Raises
    ------
    InputError, runs.Busy
        Something is refused, or another run holds the folder; nothing was started.
    SeriesFailed, Stopped
        It failed, or a signal came; the run is kept under `failed`, `latest` has not moved.
    """
    run_id = ""
    try:
        plan = plan_series(parameters, job)
        with Archive(job.output_dir).lock(wait=job.wait):
            if job.wait:  # the table may have changed meanwhile
                plan = plan_series(parameters, job)
            run_id = plan.manifest.run_id
            report = _run_plan(plan)
    except (InputError, SeriesFailed, Stopped) as error:
        status = "refused" if isinstance(error, InputError) else "failed"
        status = "aborted" if isinstance(error, Stopped) else status
        last = job.output_dir / "latest" / "reports" / "report.html"
        shown = str(last) if last.is_file() else ""
        _tell(job, status, run_id, shown, cause=str(error))
        raise
    if plan.whole:
        _tell(job, "published", run_id, str(report))
    return report


def run_again(folder: Path) -> list[str]:
    """Run the series again as a published run tells; what comes out otherwise, a line each.

    An InputError says that the table, the card or the parameters are not what they were.
    """
    from segmentation.segments import campaigns

    before = Run(folder).manifest
    try:
        asked = Parameters(**before.parameters)
    except ValidationError:
        raise InputError(f"{folder.name} does not tell the parameters of today.") from None
    if asked.against != "none":
        asked = asked.model_copy(update={"against": str(folder.parent / asked.against)})
    with TemporaryDirectory() as scratch:
        job = Job(output_dir=Path(scratch), quiet=True)
        published = [run.folder for run in Archive(folder.parent).list_published()]
        with Archive(job.output_dir).lock():  # campaigns are looked for beside the run
            for each in (folder.parent / campaigns.CAMPAIGNS, *published):
                (job.output_dir / each.name).symlink_to(each.resolve())
        now = plan_series(asked, job).manifest
        if (before.input, before.card_sha256) != (now.input, now.card_sha256):
            told = f"the table or the card of {folder.name} has changed since"
            raise InputError(f"{told}; bring it back.")
        return compare_runs(folder, run_series(asked, job).parents[1])


def plan_series(parameters: Parameters, job: Job) -> Plan:
    """Check everything before a kernel starts, refuse by InputErrors; nothing is written."""
    from segmentation.customers import explain_card, is_large
    from segmentation.segments import campaigns, tracking

    listed, archive = notebooks.read_notebooks(job.notebooks), Archive(job.output_dir)
    steps = notebooks.choose_steps(listed, start=job.start, only=job.only)
    run_id, whole = archive.check_run_id(job.run_id), LEAVE not in steps.values()
    place = job.output_dir / ("" if whole else "partial") / run_id
    chosen = parameters.model_dump(include={"features", "as_of", "encoding", "sheet"})
    card, reasons = explain_card(parameters.card, **chosen)
    if reasons is not None:  # a drafted card lies in the run
        drafted = {"path": place / "card.yaml", "table": os.path.relpath(card.path, place)}
        card = card.model_copy(update=drafted)
    facts = _read_table(parameters, card)
    archive.check(table=None if is_large(card) else card.source)
    previous = tracking.find_previous(job.output_dir / "new", card, against=parameters.against)
    if parameters.against == "previous":  # found once, so that all notebooks compare with the same
        settled = {"against": previous.run_id if previous else "none"}
        parameters = parameters.model_copy(update=settled)
    campaigns.check_campaigns(Run(job.output_dir / "new"), card)
    facts["parameters"] = parameters.model_dump(mode="json")
    manifest = Manifest(run_id=run_id, status="running", pid=os.getpid(), **facts)
    base = Run(job.output_dir / "latest")
    for notebook in [notebook for notebook, does in steps.items() if does == TAKE]:
        check_taken(notebook, base, manifest)
    return Plan(parameters, job, card, reasons, manifest, steps, base, whole, place)


def _read_table(asked: Parameters, card: Card) -> dict[str, Any]:
    """What the manifest tells of what is read; refused is what the notebooks could not use."""
    from segmentation.clustering import keep_rows, rows
    from segmentation.customers import hash_table, read_customers

    read = read_customers(card, seed=asked.seed, check_ids=True)
    used = keep_rows(read.table, card)[card.distance]
    rows.check_k(asked.k or 1, len(used))
    different = len(used.drop_duplicates())
    most = min(len(used) - 1, different)
    if not 1 <= (asked.k or 1) <= most:
        kinds = f", {different:,} of them different" if different < len(used) else ""
        told = f"for {len(used):,} customers{kinds}, got {asked.k or 1}."
        raise InputError(f"k must be 1…{most} {told}")
    counts = {"rows_read": read.total, "rows_used": read.total if read.sampled else len(used)}
    settled = card.model_dump_json(exclude={"path", "table", "backend"})
    return describe_environment() | {
        "title": card.title,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "asked": bool(asked.k),
        "rule": asked.rule,
        "as_of": card.as_of.isoformat() if card.as_of else None,
        "owner": card.owner or None,
        "warnings": [*read.questions],
        "card_sha256": sha256(settled.encode()).hexdigest(),
        "input": {"path": card.name, "sha256": hash_table(card)} | counts,
        "quality": rows.describe_quality(read.table, read.quality, card).to_dict("records"),
    }


def check_taken(notebook: Notebook, base: Run, now: Manifest) -> None:
    """Refuse to take over from the latest run what would not be made again today."""
    then = base.manifest
    if then.status == "unreadable":
        none = f"{base.folder.parent} has no published run to take {notebook.name} over from"
        raise InputError(f"{none}; run the whole series first.")
    step = next((step for step in then.notebooks if step.name == notebook.name), Step(name=""))
    told = {
        "that run does not tell which files are its own": step.files is None,
        "the table has changed": then.input.get("sha256") != now.input["sha256"],
        "the card has changed": then.card_sha256 != now.card_sha256,
        "the notebook has changed": step.code_sha256 != notebook.code_sha256,
        "the code of the package has changed": then.code_sha256 != now.code_sha256,
        "versions of packages have changed": then.versions != now.versions,
    }
    for name in sorted(notebook.parameters & set(now.parameters) - {"card"}):
        old, new = then.parameters.get(name), now.parameters[name]
        told[f"{name} was {old!r} and is {new!r}"] = old != new
    for words in [words for words, differs in told.items() if differs]:
        cause = f"{notebook.name} cannot be taken over from run {then.run_id}: {words}"
        raise InputError(f"{cause}; run from there by --from {notebook.name[:2]}.")
    for path in step.files or []:
        mend = f"run from {notebook.name} on by --from {notebook.name[:2]}."
        check_file(base.folder, then, path, mend=mend)


def describe_plan(plan: Plan) -> str:
    """What the run would do, as text."""
    table, card = plan.manifest.input, plan.card
    facts = {
        "card": f"{card.title} ({card.path})",
        "table": f"{table['path']}, {table['rows_read']:,} rows, {table['rows_used']:,} used",
        "previous": plan.parameters.against,
        "run": f"{plan.place}",
    }
    for notebook, does in plan.steps.items():
        taken = f" from run {plan.base.manifest.run_id}" if does == TAKE else ""
        facts[notebook.name] = does + taken
    return "\n".join(f"{name:<20}{fact}" for name, fact in facts.items())


def describe_outcome(folder: Path, *, colour: bool = False) -> str:
    """What a published run answers, as text: its verdict and its segments, largest first.

    With `colour`, each has its mark and the verdict is bold, as a terminal shows it.
    """
    from segmentation import words

    run = Run(folder)
    segments = sorted(run.read_json("segments.json"), key=lambda segment: -segment["size"])
    verdict = words.find_verdict(run.read_json("selection.json"))["word"]
    used, named = sum(segment["size"] for segment in segments), segments[:NAMED]
    names = [_clean_line(segment["name"]) for segment in named]
    wide = max(map(len, names))
    marks = ["  "] * len(named)
    if colour:
        verdict = f"\033[1m{verdict}\033[0m"
        parts = [bytes.fromhex(segment["colour"][1:]) for segment in named]
        marks = [f"\033[38;2;{r};{g};{b}m●\033[0m " for r, g, b in parts]
    count = f"{len(segments)} segment{'s' * (len(segments) > 1)}"
    lines = [f"{verdict}: {count} among {used:,} customers"]
    for mark, name, segment in zip(marks, names, named, strict=True):
        lines.append(f"{mark}{name:<{wide}}  {segment['size']:>9,}  {segment['share']:>6.1%}")
    more = len(segments) - NAMED
    return "\n".join([*lines, f"  and {more} more"] if more > 0 else lines)


# The run -------------------------------------------------------------------------------------


def _run_plan(plan: Plan) -> Path:
    """Build the run aside and publish it; what fails on the way is set aside with its cause."""
    archive = Archive(plan.job.output_dir)
    for done in archive.recover():
        _warn(done)
    run = archive.start_run(plan.manifest.run_id)
    try:
        with signals.limit(plan.job.deadline):
            page = _build(plan, run)
        with signals.listen(signals.ignore):
            moved = archive.publish(run) if plan.whole else archive.set_aside(run, kind="partial")
            _tidy(plan.job)
    except (Exception, Stopped) as error:
        _fail(plan, run, error)
    return moved.folder / page


def _build(plan: Plan, run: Run) -> Path:
    """Make every file of the run and seal it; where the page that is shown first lies in it."""
    from segmentation.customers import cards, hash_table
    from segmentation.series.execution import Kernels

    manifest, card = plan.manifest, plan.card
    run.write_manifest(manifest)
    freeze(run, card, plan.parameters, plan.reasons)
    for column, role, reason, *_ in [] if plan.reasons is None else plan.reasons.to_numpy():
        _say(plan, run, f"{cards.clean_text(column)}: {role} ({reason})")
    Thread(target=import_module, args=["nbconvert"], daemon=True).start()  # a second, for later
    with Kernels(run.folder.parent / ".kernels") as kernels:
        _take_steps(plan, run, kernels)
    for what, now, then in (
        (card.name, hash_table(card), manifest.input["sha256"]),
        ("the package's code", describe_environment()["code_sha256"], manifest.code_sha256),
    ):
        if now != then:
            raise SeriesFailed(f"{what} changed while the series ran; run it again")
    page = _write_pages(plan, run)
    run.seal(manifest)
    return page.relative_to(run.folder)


def freeze(run: Run, card: Card, asked: Parameters, reasons: pd.DataFrame | None = None) -> None:
    """Keep the card as it is used, and the choices, for the notebooks to read.

    A password in the card's `backend` stays in the file that it is in. A card that was drafted
    tells why it is as it is.
    """
    from segmentation.customers import cards, database

    choices = {"card": asked.card, "table_folder": _relative(card.path.parent)}
    choices |= asked.model_dump(include={"features", "as_of", "against", "seed"})
    if database.has_secret(card.backend):
        choices["backend_of"] = asked.card
        card = card.model_copy(update={"backend": ""})
    run.folder.mkdir(parents=True, exist_ok=True)
    text = cards.write_card(card) if reasons is None else cards.write_draft(card, reasons)
    write_text(run.folder / "card.yaml", text)
    run.save_json(choices, "study.json")


def _relative(path: Path) -> str:
    """A path as a page may show it: from the project's folder where it lies inside."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _take_steps(plan: Plan, run: Run, kernels: Kernels) -> None:
    """Run the notebooks in order, or take them over; the next kernel is started ahead."""
    order = [notebook for notebook, does in plan.steps.items() if does == notebooks.RUN]
    starts, ahead = map(kernels.start, order), None
    for notebook, does in plan.steps.items():
        if does == TAKE:
            _take_over(plan, run, notebook)
        elif does == notebooks.RUN:
            plan.manifest.notebooks.append(Step(name=notebook.name))
            run.write_manifest(plan.manifest)
            kernel = ahead or next(starts)
            ahead = next(starts, None)
            _run_notebook(plan, run, notebook, kernel)


def _take_over(plan: Plan, run: Run, notebook: Notebook) -> None:
    """Copy a notebook's files from the latest run; its record names that run."""
    then = plan.base.manifest
    step = next(step for step in then.notebooks if step.name == notebook.name)
    for path in step.files or []:
        target = run.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plan.base.folder / path, target)
    step.taken_from = step.taken_from or then.run_id
    plan.manifest.notebooks.append(step)
    plan.manifest.warnings += step.warnings
    _say(plan, run, f"{step.name:<20}taken over from run {then.run_id}")


def _run_notebook(plan: Plan, run: Run, notebook: Notebook, kernel: Kernel) -> None:
    """Execute one notebook into the run and enter its answer."""
    from segmentation.series import execution

    started = time.monotonic()
    before = {name: path.stat().st_mtime_ns for name, path in run.find_files().items()}
    asked = plan.manifest.parameters | {"run_dir": _relative(run.folder)}
    execution.execute_notebook(
        notebook,
        run.folder / "notebooks" / notebook.path.name,
        {name: value for name, value in asked.items() if name in notebook.parameters},
        kernel=kernel,
        cell_timeout=plan.job.cell_timeout,
        bar=not plan.job.quiet and sys.stderr is not None and sys.stderr.isatty(),
    )
    proof, step = run.folder / "proof.json", plan.manifest.notebooks[-1]
    if not proof.is_file():
        raise SeriesFailed("it ended without `study.finish(…)`, its last cell")
    told = run.read_json(proof.name)
    proof.unlink()
    step.status, step.seconds = "completed", round(time.monotonic() - started, 2)
    step.answer, step.warnings = told["answer"], told["warnings"]
    step.code_sha256 = notebook.code_sha256
    there = run.find_files().items()
    step.files = sorted(n for n, path in there if path.stat().st_mtime_ns != before.get(n))
    plan.manifest.warnings += step.warnings
    _say(plan, run, f"{step.name:<20}{step.seconds:6.1f} s  {step.answer}")


def _say(plan: Plan, run: Run, line: str) -> None:
    """A line of progress, for the diary and for who watches; a stream that is gone stops no run."""
    line = _clean_line(line)
    run.note(line)
    if not plan.job.quiet:
        with suppress(OSError, ValueError):
            print(line, flush=True)


def _warn(line: str) -> None:
    """A line for who watches; a stream that is gone stops no run."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{_clean_line(line)}\n")
        sys.stderr.flush()


def _clean_line(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _write_pages(plan: Plan, run: Run) -> Path:
    """Enter what was chosen and write the pages; the one that is shown first."""
    from segmentation import reports

    if not plan.whole:
        plan.manifest.status = "partial"
        return reports.write_pages(run.folder, plan.manifest)
    _take_choice(plan.manifest, run)
    page = reports.write_report(run.folder, plan.manifest)
    reports.write_explorer(run.folder, plan.manifest)
    reports.write_pages(run.folder, plan.manifest)
    return page


def _take_choice(manifest: Manifest, run: Run) -> None:
    """Enter what the finished notebooks chose."""
    chosen = run.read_json("selection.json")
    for name in ("k", "asked", "rule", "rules", "verdict"):
        setattr(manifest, name, chosen[name])
    manifest.input["rows_used"] = sum(each["size"] for each in run.read_json("segments.json"))
    manifest.status = "published"


def _tidy(job: Job) -> None:
    """Keep the newest runs where that is asked, and write the page of the runs.

    What goes wrong here is told and changes no outcome: the runs themselves are in place.
    """
    from segmentation.reports import write_runs

    try:
        if job.keep:
            Archive(job.output_dir).trim(job.keep)
        latest = read_manifest(job.output_dir / "latest")
        write_runs(job.output_dir, latest, [*Archive(job.output_dir).list_runs()])
    except Exception as error:
        _warn(f"{job.output_dir}: {error}; the page of the runs is old.")


# What fails ----------------------------------------------------------------------------------


def _fail(plan: Plan, run: Run, error: BaseException) -> NoReturn:
    """Keep a run that did not come through, with its cause, and raise what ends the command."""
    fault = error if isinstance(error, SeriesFailed) else _explain(plan, run, error)
    stopped = isinstance(error, Stopped) and fault.code != notebooks.TIMED_OUT
    failure = plan.manifest.fail("aborted" if stopped else "failed", str(fault), cell=fault.cell)
    run.note(f"{plan.manifest.status}: {fault}\n{fault.details}".rstrip())
    kept = _keep_failed(plan, run)
    _tidy(plan.job)
    if stopped:
        raise error
    where = f" in cell [{fault.cell}]" if fault.cell else ""
    told = f"{failure.notebook or 'the run'} failed{where}: {fault}"
    if kept:
        copy = kept / "notebooks" / f"{failure.notebook}.ipynb"
        told += f"\nThe executed copy is {copy}" if copy.is_file() else f"\nSee {kept / 'run.log'}"
    fault.args = (told,)
    raise fault from None


def _explain(plan: Plan, run: Run, error: BaseException) -> SeriesFailed:
    """Why the run ended, whatever ended it, and in which cell of the notebook at work."""
    code, cause, details = 1, str(error), ""
    if isinstance(error, Stopped):
        code = error.code
        cause += f" ({plan.job.deadline:g} s)" if code == notebooks.TIMED_OUT else ""
    else:
        details = "".join(traceback.format_exception(error))
        if isinstance(error, OSError) and error.strerror:
            cause = f"{error.strerror} ({plan.job.output_dir})"
        elif not isinstance(error, InputError):
            cause = f"{type(error).__name__}: {error}"
    at_work = [step.name for step in plan.manifest.notebooks if step.status == "running"]
    copies = [run.folder / "notebooks" / f"{name}.ipynb" for name in at_work]
    cell = notebooks.find_last_cell(copies[0]) if copies else None
    return SeriesFailed(cause.splitlines()[0], cell=cell, code=code, details=details)


def _keep_failed(plan: Plan, run: Run) -> Path | None:
    """Keep a failed run apart, on a full disk without what it made, at last not at all."""
    if shutil.disk_usage(run.folder).free < SPARE:
        for name in ("artifacts", "figures", "reports", "tables"):
            shutil.rmtree(run.folder / name, ignore_errors=True)
    try:
        run.write_manifest(plan.manifest)
        return Archive(plan.job.output_dir).set_aside(run).folder
    except OSError:
        shutil.rmtree(run.folder, ignore_errors=True)
        return None


def _tell(job: Job, status: str, run_id: str, report: str, *, cause: str = "") -> None:
    """Run the user's shell command; that it fails is told and changes no outcome.

    What it prints goes to the run's diary; what it leaves in the background holds nobody.
    """
    command = job.on_publish if status == "published" else job.on_failure
    if not command:
        return
    facts = {"RUN": run_id, "STATUS": status, "REPORT": report, "OUTPUT": str(job.output_dir)}
    facts["CAUSE"] = cause.partition("\n")[0]
    told = os.environ | {f"SEGMENTATION_{name}": fact for name, fact in facts.items()}
    folder = job.output_dir / ("" if status == "published" else "failed") / run_id
    diary = folder / "run.log" if run_id and folder.is_dir() else Path(os.devnull)
    with diary.open("a", encoding="utf-8") as said:
        print(f"{command}:", file=said, flush=True)
        options: dict[str, Any] = {"env": told, "timeout": HOOK_SECONDS, "start_new_session": True}
        options |= {"stdin": DEVNULL, "stdout": said, "stderr": STDOUT}
        try:
            code = subprocess.call(command, shell=True, **options)
            fault = f"failed with {code}" if code else ""
        except subprocess.TimeoutExpired:
            fault = f"took longer than {HOOK_SECONDS} s"
        if fault:
            said.write(f"{fault}\n")
            _warn(f"the command told of the outcome {fault}: {command}")
