"""The distance, the cut, how many segments, how sure: knows matrices, not customers.

Drop-ins for scikit-learn stand here; `stability`, `null`, `selection` and `sensitivity` hold
what no library has.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from segmentation.clustering import rows
from segmentation.clustering.rows import keep_rows, name_code

if TYPE_CHECKING:
    from segmentation.clustering import null, selection, sensitivity, stability
    from segmentation.clustering.kmeans import KMeans, draw_rows
    from segmentation.clustering.preprocessing import BlockScaler, Clipper
    from segmentation.clustering.silhouettes import silhouette_samples

__all__ = [
    "BlockScaler",
    "Clipper",
    "KMeans",
    "draw_rows",
    "keep_rows",
    "name_code",
    "null",
    "rows",
    "selection",
    "sensitivity",
    "silhouette_samples",
    "stability",
]

HOMES = {"BlockScaler": "preprocessing", "Clipper": "preprocessing", "KMeans": "kmeans"}
HOMES |= {"draw_rows": "kmeans", "silhouette_samples": "silhouettes"}


def __getattr__(name: str) -> Any:
    """What takes scikit-learn and numba, seconds that a command without a fit need not wait."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{HOMES.get(name, name)}")
    return getattr(home, name) if name in HOMES else home
