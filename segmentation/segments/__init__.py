"""The segments: who is in them, what they are like and are called, who continues whom; the model.

A notebook calls the functions here and those of `profiles` and `tracking`; `queries` is the model
as expressions, for tables that stay where they are.
"""

from segmentation.segments import (
    campaigns,
    model,
    outcomes,
    profiles,
    queries,
    scorer,
    tracking,
    value,
)
from segmentation.segments.model import assign_customers, build_figures, measure_segments
from segmentation.segments.scorer import Scorer

__all__ = [
    "Scorer",
    "assign_customers",
    "build_figures",
    "campaigns",
    "measure_segments",
    "model",
    "outcomes",
    "profiles",
    "queries",
    "scorer",
    "tracking",
    "value",
]
