"""The next customers: an API with its page, a file of any size, a database's table.

Each is put into the segments of a published model, which is loaded by its hashes. The API is in
`service`, which is imported by itself: to score a file takes no FastAPI.
"""

from segmentation.serving.batch import Tally, Unwritable, score_file, score_into
from segmentation.serving.model import Model, Refusal, load_model

__all__ = [
    "Model",
    "Refusal",
    "Tally",
    "Unwritable",
    "load_model",
    "score_file",
    "score_into",
]
