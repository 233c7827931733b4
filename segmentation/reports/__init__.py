"""Everything that people look at: what a notebook shows, the pages of a run, the report.

Nothing here computes a figure; all come from the tables of a run and carry their place with them.
"""

from segmentation.reports.display import show
from segmentation.reports.explorer import describe_points, write_explorer
from segmentation.reports.history import summarize_stale, tell_run, write_checks, write_runs
from segmentation.reports.pages import stylesheet, write_pages
from segmentation.reports.report import write_report

__all__ = [
    "describe_points",
    "figures",
    "show",
    "stylesheet",
    "summarize_stale",
    "tell_run",
    "write_checks",
    "write_explorer",
    "write_pages",
    "write_report",
    "write_runs",
]
