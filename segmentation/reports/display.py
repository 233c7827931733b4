"""What a notebook shows: findings, tables as people read them, figures that carry their finding."""

from __future__ import annotations

import base64
import re
import warnings
from dataclasses import dataclass, field
from io import BytesIO
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI, SHOWN_DPI = 160, 80
MOST_PIXELS, MOST_BYTES = 12_000_000, 3_500_000
"""Where a picture becomes coarser: as text in a notebook it has a third more bytes."""


@dataclass(frozen=True)
class Shown:
    """Something to look at: plain text in a terminal, and what a notebook takes in its place."""

    text: str
    data: dict[str, str]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        return self.data, self.metadata


def show(thing: object, finding: str = "", *, path: Path | None = None) -> None:
    """Show a text, a table or a figure, and below it what it says.

    Parameters
    ----------
    thing : a text (findings, a paragraph each); a DataFrame, shown as people read it: thousands
        set apart, two decimals where there are fractions, blanks for missing values; or Axes, a
        Figure or a seaborn grid, which is closed.
    finding : one sentence on a table or figure; a figure has it as its alt text.
    path : where the figure is saved as PNG, the finding inside.

    Examples
    --------
    >>> import pandas as pd
    >>> show(pd.DataFrame({"k": [2, 3], "inertia": [1234.5, None]}), "Three is too many.")
      k    inertia
    ---  ---------
      2   1,234.50
      3
    Three is too many.
    """
    from IPython.display import display

    for shown in render(thing, finding, path=path):
        display(shown)


def render(thing: object, finding: str = "", *, path: Path | None = None) -> list[Shown]:
    """What `show` shows, one after the other."""
    figure: Any = getattr(thing, "figure", None)
    if isinstance(thing, str):
        shown = [_render_text(part) for part in thing.split("\n\n")]
    elif hasattr(thing, "to_html"):
        shown = [_render_table(thing)]
    elif hasattr(figure, "savefig"):
        shown = [_render_figure(figure.get_figure(root=True), finding, path)]
    else:
        raise TypeError(f"show takes a text, a DataFrame or a figure, got {type(thing)}")
    return shown + ([_render_text(finding)] if finding else [])


def _render_text(text: str) -> Shown:
    """A finding; a text is data and may hold any character."""
    markup = f'<blockquote class="finding"><p>{escape(text)}</p></blockquote>'
    return Shown(text, {"text/html": markup, "text/plain": text})


def escape(text: str) -> str:
    """One line of text, inert in HTML, in Markdown and (dollar signs stand apart) in MathJax."""
    line = " ".join(text.split())
    entities = re.sub(r"[^\w\s.,;:–’]|_", lambda match: f"&#{ord(match[0])};", line)
    return entities.replace("&#36;", "<span>&#36;</span>")


# Tables ------------------------------------------------------------------------------------


def _render_table(frame: Any) -> Shown:
    """The table; a plain running index is left out, any other is shown with its name."""
    if type(frame.index).__name__ != "RangeIndex" or frame.index.name is not None:
        names = [name or "" for name in frame.index.names]
        frame = frame.reset_index(names=names, allow_duplicates=True)
    columns, numbers = [], []
    for i, kind in enumerate(dtype.kind for dtype in frame.dtypes):
        values = frame.iloc[:, i]
        whole = kind == "f" and bool((values.dropna() % 1 == 0).all())
        columns.append([format_value(value, 0 if whole else 2) for value in values.to_list()])
        numbers.append(kind in "iufc")
    heads = [name if isinstance(name, tuple) else (name,) for name in frame.columns]
    options: dict[str, Any] = {
        "headers": [" · ".join(filter(None, map(str, head))) for head in heads],
        "colalign": ["right" if number else "left" for number in numbers] if len(frame) else None,
        "disable_numparse": True,
    }
    rows = list(zip(*columns, strict=True))
    markup = str(tabulate(rows, tablefmt="html", **options))
    text = tabulate(rows, tablefmt="simple", **options)
    return Shown(text, {"text/html": markup, "text/plain": text})


def format_value(value: object, digits: int = 2) -> str:
    """A cell's text: 1,234 for a whole number, 1,234.50 for a real one, blank for a missing one."""
    if value is None or str(value) in {"nan", "<NA>", "NaT"}:
        return ""
    if type(value).__name__ in {"bool", "bool_"}:
        return "yes" if value else "no"
    if not isinstance(value, Real):
        return str(value)
    if isinstance(value, Integral):
        return f"{int(value):,}"
    return f"{float(value):z,.{digits}f}"


# Figures -----------------------------------------------------------------------------------


def _render_figure(figure: Figure, finding: str, path: Path | None) -> Shown:
    """The figure as PNG, saved where a path is given, and closed."""
    from matplotlib import pyplot as plt

    if figure.get_layout_engine() is None:
        figure.set_layout_engine("tight")

    png, dpi = _draw(figure, finding)
    plt.close(figure)
    if path:
        path.write_bytes(png)
    width = int(int.from_bytes(png[16:20], "big") * SHOWN_DPI / dpi)
    data = {"image/png": base64.b64encode(png).decode(), "text/plain": finding or "A figure"}
    metadata = {"alt": finding, "width": width} if finding else {"width": width}
    return Shown("A figure", data, {"image/png": metadata})


def _draw(figure: Figure, finding: str) -> tuple[bytes, float]:
    """The picture and its dots an inch: fewer where it would have too many pixels or bytes."""
    width, height = figure.get_size_inches()
    dpi = min(DPI, (MOST_PIXELS / (width * height)) ** 0.5)
    while True:
        file = BytesIO()
        form: dict[str, Any] = {"bbox_inches": "tight", "metadata": {"Description": finding}}
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Glyph .* missing")
            try:
                figure.savefig(file, dpi=dpi, **form)
            except UserWarning:
                from segmentation.reports import figures

                file = BytesIO()
                figures.spell_out(figure).savefig(file, dpi=dpi, **form)
        if file.tell() <= MOST_BYTES:
            return file.getvalue(), dpi
        dpi *= 0.9 * (MOST_BYTES / file.tell()) ** 0.5
