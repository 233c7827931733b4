"""The next customers: an API with its page, a file of any size, a database's table.

Each is put into the segments of a published model, which is loaded by its hashes.
"""

from typing import Any

from segmentation.serving.batch import Tally, Unwritable, score_file, score_into
from segmentation.serving.model import Model, Refusal, load_model

__all__ = [
    "Model",
    "Refusal",
    "Tally",
    "Unwritable",
    "build_app",
    "load_model",
    "score_file",
    "score_into",
    "serve",
]


def __getattr__(name: str) -> Any:
    """The service is loaded when it is asked for: to score a file takes no FastAPI."""
    if name in ("build_app", "serve"):
        from segmentation.serving import service

        return getattr(service, name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
