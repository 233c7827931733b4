"""Figures that no library has; standard ones stand in the notebooks in seaborn's own words.

Each function takes a table (and, where it adds to a figure, its Axes) and gives Axes or a Figure
back. `segments` are the entries of `segments.json`: id, name, colour, size, centre.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap as fill
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from segmentation.clustering import stability
from segmentation.palette import LOOKS
from segmentation.reports.drawings import choose_map

if TYPE_CHECKING:
    from segmentation.customers import Card

INK, QUIET, NOISE = "#333333", "#9aa0a6", "#eceef0"
NEUTRAL = ["#5f6f8c", "#8793aa"]
"""Of everything that is not a segment: the colours of plots that know of none."""

Segments = Sequence[Mapping[str, Any]]


FALLBACKS = [
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Droid Sans Fallback",
    "WenQuanYi Zen Hei",
    "Yu Gothic",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
]
"""Fonts of the machine that draw what the style's own does not, where one is there."""


def apply_style() -> None:
    """Draw from now on in the series' style, in neutral colours; once, before the first figure.

    >>> apply_style()
    """
    plt.style.use([Path(__file__).with_name("segments.mplstyle")])
    known = {font.name for font in fontManager.ttflist}
    warnings.filterwarnings("ignore", "Glyph .* missing")  # `show` writes it out: see `spell_out`
    plt.rcParams["font.family"] = ["DejaVu Sans", *[name for name in FALLBACKS if name in known]]
    plt.rcParams["axes.prop_cycle"] = cycler(color=[*NEUTRAL, INK, QUIET])


def spell_out(figure: Figure) -> Figure:
    """Write in Latin letters what no font at hand draws, so that no box stands for a sign.

    >>> figure, ax = plt.subplots()
    >>> spell_out(ax.set_title("\u9f98 spend").figure).axes[0].get_title().isascii()
    True
    """
    from anyascii import anyascii

    maps = [get_font(findfont(name)).get_charmap() for name in plt.rcParams["font.family"]]
    drawn = {chr(code) for each in maps for code in each} | {"\n"}

    def spell(written: str) -> str:
        return "".join(sign if sign in drawn else anyascii(sign) for sign in written)

    for axis in [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]:
        told = [label.get_text() for label in axis.get_ticklabels()]
        if not {*"".join(told)} <= drawn:
            axis.set_ticks(axis.get_ticklocs(), labels=[*map(spell, told)])
    for text in figure.findobj(Text):
        text.set_text(spell(text.get_text()))
    return figure


def wrap(text: object, *, width: int = 30, lines: int | None = None) -> str:
    r"""Text broken into lines of so many characters (at most so many lines).

    >>> wrap("Annual income in k$", width=14)
    'Annual income\nin k$'
    """
    return "\n".join(fill(str(text), width, max_lines=lines, placeholder=" …"))


def _make_axes(width: float, height: float) -> Axes:
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


# How many segments -------------------------------------------------------------------------


def mark_choice(ax: Axes, k: int) -> Axes:
    """One thin line at the chosen K and the axis' name, the same in every figure over K.

    >>> ax = sns.lineplot(x=[1, 2, 3], y=[9.0, 4.0, 3.5])
    >>> mark_choice(ax, 2).lines[-1].get_xdata()[0]
    2
    """
    ax.axvline(k, color=INK, linewidth=0.8, zorder=0)
    ax.annotate(f"K = {k}", (k, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom",
                fontsize=8, color=INK, annotation_clip=False)  # fmt: skip
    ax.set_xlabel("Number of segments K")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def draw_null_band(ax: Axes, sweep: pd.DataFrame, figure: str) -> Axes:
    """Where structureless data like these lie: from their mean to their 95 % quantile.

    `sweep` has a column k, `figure` is silhouette, prediction_strength or ari; nothing is drawn
    where the sweep was not compared with structureless data.

    >>> sweep = pd.DataFrame({"k": [2, 3], "null_ari": [0.4, 0.3], "null_ari_q95": [0.6, 0.5]})
    >>> len(draw_null_band(plt.subplots()[1], sweep, "ari").collections)
    1
    """
    if f"null_{figure}" in sweep:
        low, high = sweep[f"null_{figure}"], sweep[f"null_{figure}_q95"]
        ax.fill_between(sweep["k"], low, high, color=NOISE, linewidth=0, zorder=0)
        ax.plot(sweep["k"], high, color=QUIET, linewidth=1.2)
        end = high.dropna().iloc[-1:].sum()
        _label_right(ax, end, "structureless\ndata (95 %)")
    return ax


def _label_right(ax: Axes, y: float, text: str) -> None:
    """Write at a height of the data, right of the frame."""
    ax.annotate(
        text, (1.01, y), xycoords=("axes fraction", "data"), va="center", color="#5f6368",
        fontsize=9, annotation_clip=False,
    )  # fmt: skip


def silhouette_profile(samples: pd.DataFrame, sweep: pd.DataFrame) -> Axes:
    """Each customer's silhouette as a bar, by segment, against the mean of structureless data.

    `samples` has a row a customer with position and silhouette; `sweep` a row a K.

    >>> samples = pd.DataFrame({"position": [0, 0, 1], "silhouette": [0.5, 0.2, 0.4]})
    >>> silhouette_profile(samples, pd.DataFrame({"k": [2]})).get_xlabel()
    'Silhouette'
    """
    ax = _make_axes(7, 4.2)
    row = sweep[sweep["k"] == samples["position"].nunique()].iloc[0]
    if row.get("null_silhouette", np.nan) > 0:
        ax.axvspan(row["null_silhouette"], row["null_silhouette_q95"], color="#d9dce0")
    if samples["silhouette"].isna().all():
        ax.annotate("One segment: no silhouettes", (0.5, 0.5), ha="center", color=INK)
    start, ticks = 0, {}
    for position, values in samples.dropna().groupby("position")["silhouette"]:
        bars = np.sort(values)[::-1]
        rows = np.arange(start, start + len(bars))
        ax.fill_betweenx(rows, 0, bars, color=NEUTRAL[int(position) % 2], linewidth=0.5)
        ticks[start + len(bars) / 2] = f"{len(bars):,} customers"
        start += len(bars) + max(2, len(samples) // 60)
    if ticks:
        mean = samples["silhouette"].mean()
        ax.axvline(mean, color=INK, linestyle="--", linewidth=1.2)
        ax.annotate(f" mean {mean:.2f}", (mean, start), color=INK, fontsize=9)
    ax.set_yticks(list(ticks), list(ticks.values()))
    ax.grid(axis="y", visible=False)
    ax.invert_yaxis()
    ax.set(xlabel="Silhouette", title="Silhouette of each customer", xlim=(None, 1))
    return ax


def flow(series: stability.Flow, *, scores: bool = False) -> Axes:
    """Segments by K as nodes, shared customers as edges; the darker a node, the higher its SLSa.

    `series` is what `stability.track_cuts(X, {2: labels, 3: labels})` gives. With `scores` the
    nodes stand at their means on the first principal axis: a clustergram (Schonlau 2002).
    """
    ax, nodes = _make_axes(7, 4.6), series.nodes
    nodes = nodes.assign(y=nodes["score"] if scores else nodes["segment"] - (nodes["k"] - 1) / 2)
    place = nodes.set_index(["k", "segment"])["y"]
    for edge in series.edges[series.edges["share"] > 0.01].itertuples():
        ends = [place[edge.previous_k, edge.previous], place[edge.k, edge.segment]]
        ax.plot([edge.previous_k, edge.k], ends, color="#c5cbd5", linewidth=30 * edge.share,
                solid_capstyle="butt", zorder=1)  # fmt: skip
    shade = nodes["slsa"].fillna(1.0).clip(0, 1) ** 2
    dots = ax.scatter(
        nodes["k"], nodes["y"], s=60 + 500 * nodes["size"] / nodes["size"].max(), c=shade,
        cmap=sns.light_palette(INK, as_cmap=True), vmin=0, vmax=1, edgecolor=INK, linewidth=0.8,
        zorder=2,
    )  # fmt: skip
    bar = ax.figure.colorbar(dots, ax=ax, shrink=0.6, ticks=[0, 0.25, 0.64, 1])
    bar.ax.set_yticklabels(["0", "0.5", "0.8", "1"])
    bar.set_label("SLSa")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(visible=False)
    ax.set(xlabel="Number of segments K", title="Where do segments come from?")
    ax.tick_params(axis="y", labelleft=scores, length=0)
    if scores:
        ax.set(ylabel="Mean on the first principal axis", title="Clustergram")
    return ax


# The segments ------------------------------------------------------------------------------


def map_segments(customers: pd.DataFrame, segments: Segments, card: Card) -> Figure:
    """Customers over two features: all in colour, below each segment alone among the rest in grey.

    `customers` has a row each with the features and `cluster`, the segment's id.

    >>> from segmentation.customers import Card
    >>> card = Card(title="t", table="t.csv", features={"Age": {}, "Income": {"unit": "€"}})
    >>> customers = pd.DataFrame({"Age": [20, 40], "Income": [8, 10], "cluster": [0, 1]})
    >>> looks = {"name": "A", "colour": "#004db6"}, {"name": "B", "colour": "#e7740a"}
    >>> segments = [{"id": i} | look for i, look in enumerate(looks)]
    >>> figure = map_segments(customers, segments, card)
    >>> [ax.get_title("left") for ax in figure.axes]
    ['', 'A', 'B']
    """
    few, (x, y) = len(segments) < 2, choose_map(customers, card)
    columns = 3 if len(segments) in (3, 5, 6, 9) else min(4, len(segments))
    rows = 0 if few else -(-len(segments) // columns)
    figure = plt.figure(figsize=(6.8, 4.6 + 2.1 * rows), layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[4.6, *[2.1] * rows])
    whole, size = figure.add_subplot(grid[0, :]), 26 if len(customers) < 2_000 else 9
    looks = {each["id"]: each["colour"] for each in segments}
    sns.scatterplot(
        customers, x=x, y=y, hue="cluster", style="cluster", palette=looks, s=size, alpha=0.7,
        markers={each: LOOKS.get(colour, "o") for each, colour in looks.items()}, linewidth=0,
        legend=False, ax=whole,
    )  # fmt: skip
    scales = {n: "symlog" if f.transform == "log" else "linear" for n, f in card.features.items()}
    whole.set(xlabel=card.titles[x], ylabel=card.titles[y], xscale=scales[x], yscale=scales[y])
    for axis in [axis for axis in (whole.xaxis, whole.yaxis) if axis.get_scale() == "symlog"]:
        axis.set_major_formatter("{x:,.0f}")  # no formulas: a table's signs stay what they are
    for i, segment in enumerate([] if few else segments):
        ax = figure.add_subplot(grid[1 + i // columns, i % columns], sharex=whole, sharey=whole)
        own = customers["cluster"] == segment["id"]
        for part, colour in ((~own, "#dcdfe3"), (own, segment["colour"])):
            ax.scatter(x, y, data=customers[part], s=size / 3, color=colour, linewidth=0)
        ax.set_title(wrap(segment["name"], width=28 if columns < 4 else 22, lines=5), fontsize=8)
        ax.tick_params(labelbottom=False, labelleft=False, length=0)
    return figure
