"""The runs of an output folder, for people: their page, and their rows in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from segmentation.reports.display import format_value
from segmentation.reports.pages import CSP, Facts, environment, read_facts, stylesheet, write_date
from segmentation.runs import write_text

NONE_WHOLE = "No run has come through yet"
FAULTS = {"failed": "failed", "aborted": "was stopped", "crashed": "crashed"}
"""The statuses of a run that did not come through, and what one says of it."""

LINKED = ("report.html", "explore.html", "index.html")


def write_runs(output_dir: Path, latest: Facts | None, listed: list[Facts]) -> Path:
    """Write `output_dir/index.html`, the runs of an output folder, newest first; its path.

    `latest` is the manifest of the newest published run, `listed` those of all runs, each with
    its `folder` from `output_dir`; one that cannot be read has the status `unreadable`.
    """
    newest = read_facts(latest) if latest else None
    rows = [_describe_run(read_facts(run), newest, output_dir) for run in listed]
    study = newest["title"] if newest else "Customer segments"
    text = environment().get_template("runs.html.j2").render(
        title=f"{study} – the runs",
        csp=CSP,
        style=stylesheet(),
        study=study,
        stale=summarize_stale(latest, listed),
        newest=next((row for row in rows if row["newest"]), None),
        latest=newest,
        none_whole=NONE_WHOLE,
        runs=rows,
    )  # fmt: skip
    path = output_dir / "index.html"
    write_text(path, text)
    return path


def _describe_run(
    run: dict[str, Any], latest: dict[str, Any] | None, output_dir: Path
) -> dict[str, Any]:
    """A run as the page of the runs shows it; links only to pages that are there."""
    folder, status = run.get("folder") or run["run_id"], run["status"]
    places = {name: f"{folder}/reports/{name}" for name in LINKED}
    shown = status in ("published", "partial")
    told = "Its run.json cannot be read." if status == "unreadable" else ""
    return tell_run(run, latest) | {
        **{key: run.get(key) for key in ("run_id", "title", "status")},
        "told": f"It {describe_failure(run)}." if status in FAULTS else told,
        "pages": {n: quote(p) for n, p in places.items() if shown and (output_dir / p).is_file()},
        "newest": _is_latest(run, latest),
    }


def tell_run(run: Facts, latest: Facts | None) -> dict[str, Any]:
    """A run as a row of text."""
    run, latest = read_facts(run), read_facts(latest) if latest else None
    return {
        "run": run["run_id"],
        "status": f"{run['status']}{', latest' if _is_latest(run, latest) else ''}",
        "when": write_date(run.get("started")),
        "k": run.get("k"),
        "verdict": run.get("verdict"),
        "customers": format_value((run.get("input") or {}).get("rows_used")),
        "cause": describe_failure(run) if run["status"] in FAULTS else "",
    }


def _is_latest(run: dict[str, Any], latest: dict[str, Any] | None) -> bool:
    published = run["status"] == "published"  # a failed run may have had the same id
    return published and latest is not None and run["run_id"] == latest["run_id"]


def describe_failure(run: dict[str, Any]) -> str:
    """What happened to a run that did not come through: "failed in 03_k_selection: …"."""
    failure = run.get("failure") or {}
    where = f" in {failure['notebook']}" if failure.get("notebook") else ""
    cell = f", cell [{failure['cell']}]" if failure.get("cell") else ""
    cause = failure.get("cause") or "unknown"
    return f"{FAULTS[run['status']]}{where}{cell}: {cause}".rstrip(".")


def summarize_stale(latest: Facts | None, listed: list[Facts]) -> str:
    """Why the newest report is older than the newest run; empty where it is not."""
    begun = read_facts(latest)["started"] if latest else ""
    failed = [run for run in map(read_facts, listed) if run["status"] in FAULTS]
    later = [run for run in failed if (run.get("started") or "") > begun]
    if not later:
        return ""
    first = f"The report of {write_date(begun)} is the newest that is whole"
    last = f"the run of {write_date(later[0]['started'])} {describe_failure(later[0])}"
    if len(later) > 1:
        last = f"{len(later):,} later runs did not come through. The last: {last}"
    return f"{first if latest else NONE_WHOLE}; {last}."
