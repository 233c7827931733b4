"""The segments: who is in them, what they are like and are called, who continues whom; the model.

A notebook calls the functions here and those of `profiles` and `tracking`; `queries` is the model
as expressions, for tables that stay where they are.
"""

from segmentation.segments import model, profiles, queries, scorer, tracking, value
from segmentation.segments.model import (
    NoCentres,
    assign_customers,
    build_figures,
    measure_segments,
    polish,
)
from segmentation.segments.scorer import Scorer

__all__ = [
    "NoCentres",
    "Scorer",
    "assign_customers",
    "build_figures",
    "measure_segments",
    "model",
    "polish",
    "profiles",
    "queries",
    "scorer",
    "tracking",
    "value",
]
