"""The distance, the cut, how many segments, how sure: knows matrices, not customers.

Drop-ins for scikit-learn stand here; `stability`, `null`, `selection` and `sensitivity` hold
what no library has.
"""

from segmentation.clustering import null, selection, sensitivity, stability
from segmentation.clustering.kmeans import KMeans, draw_rows
from segmentation.clustering.preprocessing import (
    BlockScaler,
    Clipper,
    describe_quality,
    keep_rows,
    name_code,
)
from segmentation.clustering.silhouettes import silhouette_samples

__all__ = [
    "BlockScaler",
    "Clipper",
    "KMeans",
    "describe_quality",
    "draw_rows",
    "keep_rows",
    "name_code",
    "null",
    "selection",
    "sensitivity",
    "silhouette_samples",
    "stability",
]
