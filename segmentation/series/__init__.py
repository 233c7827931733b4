"""The notebooks in order, by papermill, published whole or not at all.

Nothing heavy is imported before a run is planned: the command's help reads its options here.
"""

from segmentation.series.notebooks import SeriesFailed, copy_notebooks
from segmentation.series.pipeline import (
    Job,
    Parameters,
    describe_outcome,
    describe_plan,
    freeze,
    plan_series,
    run_again,
    run_series,
)
from segmentation.series.signals import Stopped, listen

__all__ = [
    "Job",
    "Parameters",
    "SeriesFailed",
    "Stopped",
    "copy_notebooks",
    "describe_outcome",
    "describe_plan",
    "freeze",
    "listen",
    "plan_series",
    "run_again",
    "run_series",
]
