"""The runs and campaigns of an output folder, for people: their pages, and rows in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from segmentation import words
from segmentation.reports.display import format_value
from segmentation.reports.pages import CSP, environment, stylesheet, write_date
from segmentation.runs import Manifest, write_text

if TYPE_CHECKING:
    import pandas as pd

NONE_WHOLE = "No run has come through yet"
FAULTS = {"failed": "failed", "aborted": "was stopped", "crashed": "crashed"}
"""The statuses of a run that did not come through, and what one says of it."""

LINKED = ("report.html", "explore.html", "index.html")


def write_runs(output_dir: Path, latest: Manifest | None, listed: list[Manifest]) -> Path:
    """Write `output_dir/index.html`, the runs of an output folder, newest first; its path.

    `latest` is the manifest of the newest published run, `listed` those of all runs, each with
    its `folder` from `output_dir`; one that cannot be read has the status `unreadable`.
    """
    rows = [_describe_run(run, latest, output_dir) for run in listed]
    study = latest.title if latest else "Customer segments"
    text = environment().get_template("runs.html.j2").render(
        title=f"{study} – the runs",
        csp=CSP,
        style=stylesheet(),
        study=study,
        stale=summarize_stale(latest, listed),
        newest=next((row for row in rows if row["newest"]), None),
        latest=latest,
        none_whole=NONE_WHOLE,
        runs=rows,
    )  # fmt: skip
    path = output_dir / "index.html"
    write_text(path, text)
    return path


def write_checks(path: Path, title: str, told: str, balance: pd.DataFrame) -> None:
    """Write how alike the groups of a campaign are, as `campaigns.check_balance` gives it."""
    known = balance[balance["fewest"] >= words.FEWEST].to_dict("records")
    facts = {"title": title, "csp": CSP, "style": stylesheet(), "told": told, "rows": known}
    write_text(path, environment().get_template("checks.html.j2").render(facts))


def _describe_run(run: Manifest, latest: Manifest | None, output_dir: Path) -> dict[str, Any]:
    """A run as the page of the runs shows it; links only to pages that are there."""
    row, folder = tell_run(run, latest), run.folder or run.run_id
    places = {name: f"{folder}/reports/{name}" for name in LINKED}
    shown = run.status in ("published", "partial")
    told = "Its run.json cannot be read." if run.status == "unreadable" else ""
    return row | {
        "run_id": run.run_id,
        "status": run.status,
        "told": f"It {row['cause']}." if row["cause"] else told,
        "pages": {n: quote(p) for n, p in places.items() if shown and (output_dir / p).is_file()},
        "newest": row["status"] != run.status,
    }


def tell_run(run: Manifest, latest: Manifest | None) -> dict[str, Any]:
    """A run as a row of text."""
    whole = run.status == "published"  # a failed run may have had the same id as the latest
    newest = whole and latest is not None and run.run_id == latest.run_id
    return {
        "run": run.run_id,
        "status": f"{run.status}{', latest' if newest else ''}",
        "when": write_date(run.started),
        "k": run.k,
        "verdict": run.verdict,
        "customers": format_value(run.input.get("rows_used")),
        "cause": describe_failure(run) if run.status in FAULTS else "",
    }


def describe_failure(run: Manifest) -> str:
    """What happened to a run that did not come through: "failed in 03_k_selection: …"."""
    failure = run.failure
    where = f" in {failure.notebook}" if failure and failure.notebook else ""
    cell = f", cell [{failure.cell}]" if failure and failure.cell else ""
    cause = (failure and failure.cause) or "unknown"
    return f"{FAULTS[run.status]}{where}{cell}: {cause}".rstrip(".")


def summarize_stale(latest: Manifest | None, listed: list[Manifest]) -> str:
    """Why the newest report is older than the newest run; empty where it is not."""
    begun = latest.started if latest else ""
    later = [run for run in listed if run.status in FAULTS and run.started > begun]
    if not later:
        return ""
    first = f"The report of {write_date(begun)} is the newest that is whole"
    last = f"the run of {write_date(later[0].started)} {describe_failure(later[0])}"
    if len(later) > 1:
        last = f"{len(later):,} later runs did not come through. The last: {last}"
    return f"{first if latest else NONE_WHOLE}; {last}."
