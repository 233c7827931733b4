"""A small run to look at: two notebooks of ours, one executed, and their pages."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import papermill
from nbformat import v4

from segmentation.palette import MARKERS, PALETTE
from segmentation.reports import pages
from segmentation.runs import Manifest

CELLS: list[tuple[str, list[str], str]] = [
    (
        "markdown",
        [],
        "# 3 · How many segments?\n\n<!-- answer -->\n\n"
        "Reads `preprocessed_data.csv` · Writes `k_selection.csv`, `selection.json`",
    ),
    (
        "code",
        ["parameters"],
        'card: str = ""  # the dataset card\nk: int = 0  # 0: let the rule decide\n'
        "k_max: int = 10  # the largest number to try",
    ),
    (
        "code",
        [],
        "import warnings\n\nimport matplotlib.pyplot as plt\nimport numpy as np\n"
        "import pandas as pd\n\nfrom segmentation import reports\nfrom shown import Figure",
    ),
    (
        "markdown",
        [],
        "## Where does the curve bend?\n\nInertia is the sum of squared distances to the nearest "
        "centre. It always falls as *K* grows; the question is where it stops falling **fast**.",
    ),
    (
        "code",
        [],
        "table = pd.DataFrame({'K': range(1, 11), 'Inertia': 600 / np.arange(1, 11) ** 1.1,\n"
        "    'Silhouette': np.r_[np.nan, np.linspace(.335, .428, 9)], 'Best of starts': .35,\n"
        "    'Calinski-Harabasz': np.linspace(90, 135, 10), 'Davies-Bouldin': 1.1,\n"
        "    'Smallest share': .19, 'Note': 'as expected'}).set_index('K')\n"
        "reports.show(table)",
    ),
    (
        "markdown",
        [],
        "A fall from 600.0 to 47.7; the bend is not where the silhouette peaks.",
    ),
    (
        "code",
        [],
        "# one long line, as people write them when no one is looking and the screen is wide\n"
        "figure, axes = plt.subplots(figsize=(7.6, 3.8)); axes.plot(table.index, "
        "table['Inertia'], marker='o'); axes.set(xlabel='Segments', ylabel='Inertia'); "
        "plt.close(figure)\nFigure(figure, 'Inertia by K: a curve that bends at four segments.')",
    ),
    ("code", [], "reports.show('The curve bends at K = 4; the silhouette peaks at K = 6.')"),
    ("markdown", [], "## Does the table itself look sane?\n\nThe first rows, without the id."),
    (
        "code",
        [],
        "pd.DataFrame({'Gender': ['Male', 'Female'], 'Age': [19, 31], 'Annual Income (k$)': "
        "[15, 17.5]})",
    ),
    ("code", [], "warnings.warn('two rows have no income', stacklevel=1)\nprint('200 rows read')"),
    ("markdown", [], "## Hand over"),
    ("code", [], "done = table.sum()"),
]

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}

SHOWN = '''
"""A figure as notebooks show it."""
import base64, io

class Figure:
    def __init__(self, figure, alt):
        self.figure, self.alt = figure, alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=160)
        png = base64.b64encode(buffer.getvalue()).decode()
        text = {"image/png": png, "text/plain": "<Figure>"}
        return text, {"image/png": {"alt": self.alt, "width": 760}}
'''


def make_notebook(cells: list[tuple[str, list[str], str]]) -> nbformat.NotebookNode:
    """A notebook from (kind, tags, source)."""
    make = {"markdown": v4.new_markdown_cell, "code": v4.new_code_cell}
    nb = v4.new_notebook(metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})
    nb.cells = [make[kind](source, metadata={"tags": tags}) for kind, tags, source in cells]
    return nb


def draw_segments(path: Path) -> None:
    """A stand-in for the picture of the segments: ten colours, ten markers."""
    figure, axes = plt.subplots(figsize=(6, 4.5))
    for i, (colour, marker) in enumerate(zip(PALETTE, MARKERS, strict=True)):
        axes.scatter([i, i + 0.3, i + 0.1], [i % 3, i % 4, 1], c=colour, marker=marker)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def make_manifest(**changes: Any) -> Manifest:
    """A manifest as a run writes it, with a hostile answer among the sober ones."""
    told = {
        "run_id": "20261121T224500Z",
        "title": "Mall customers",
        "status": "published",
        "started": "2026-11-21T22:45:00+00:00",
        "k": 4,
        "asked": False,
        "rule": "elbow",
        "rules": {"elbow": 4, "silhouette": 6},
        "parameters": {"card": "mall_customers.yaml", "k": 0, "rule": "elbow", "k_max": 10},
        "input": {
            "path": "Mall_Customers.csv",
            "sha256": "194975e1f84d29ee7a99ca72bc14dcd55af355384f35171ef7e9e053ac7f6612",
            "rows_read": 200,
            "rows_used": 198,
        },
        "versions": {"python": "3.11", "scikit-learn": "1.9.1"},
        "git_commit": None,
        "notebooks": [
            {
                "name": "02_preprocessing",
                "status": "completed",
                "seconds": 1.4,
                "answer": "Age, income and spending, each as a z-score; gender stays out.",
            },
            {
                "name": "03_k_selection",
                "status": "completed",
                "seconds": 2.1,
                "answer": "The elbow rule answers 4 and the silhouette 6: they disagree, and the "
                "elbow decided. [x](javascript:alert(1)) *k$* <script>alert(1)</script>",
            },
        ],
        "files": [],
        "warnings": ["2 rows have no income; the median stands in for it."],
        "figures": {"customer_segmentation_2d.png": "Income against spending: four groups."},
    }
    return Manifest.model_validate(told | changes)


def make_run(run: Path) -> Path:
    """A run folder with two notebooks (one executed), figures, tables and pages, in `run`."""
    for folder in ("notebooks", "figures", "tables", "artifacts"):
        (run / folder).mkdir()
    (run / "shown.py").write_text(SHOWN)
    source = run / "source.ipynb"
    nbformat.write(make_notebook(CELLS), source)
    papermill.execute_notebook(
        source,
        run / "notebooks/03_k_selection.ipynb",
        {"k_max": 10},
        cwd=run,
        progress_bar=False,
        start_timeout=600,
    )
    short = [("markdown", [], "# 2 · What does the distance see?\n\n<!-- answer -->")]
    nbformat.write(make_notebook(short), run / "notebooks/02_preprocessing.ipynb")
    for name in pages.PICTURES:
        draw_segments(run / "figures" / name)
    for name in ("tables/k_selection.csv", "summary.txt", "artifacts/segmenter.json"):
        (run / name).write_text("k\n1\n")
    pages.write_pages(run, make_manifest())
    return run
