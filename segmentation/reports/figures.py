"""Every figure: a table in, Axes or a Figure out, in one style; one colour a segment."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from textwrap import wrap as fill
from typing import Any, ParamSpec, TypeVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox

from segmentation.clustering.stability import BANDS, Flow
from segmentation.customers.card import Card
from segmentation.palette import MARKERS, PALETTE, find_look
from segmentation.segments.profiles import Segment

INK, QUIET, NOISE, ACCENT = "#333333", "#9aa0a6", "#eceef0", PALETTE[0]
SHADES = ("#5f6f8c", "#8793aa")  # of segments that have no identity yet
P = ParamSpec("P")
T = TypeVar("T")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw in the series' style and leave the caller's settings alone."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        colours = {"axes.prop_cycle": cycler(color=PALETTE)}
        with plt.style.context([Path(__file__).with_name("segments.mplstyle"), colours]):
            return draw(*args, **kwargs)

    return wrapper


def escape(text: object) -> str:
    """Text that matplotlib shows as it is: a `$` is a dollar, not mathematics."""
    return str(text).replace("$", r"\$")


def wrap(text: object, *, width: int = 30, lines: int | None = None) -> str:
    """Text broken into lines of so many characters (and at most so many), shown as it is."""
    broken = fill(str(text), width, max_lines=lines, placeholder=" …")
    return "\n".join(escape(line) for line in broken)


def _titles(card: Card) -> dict[str, str]:
    return {name: wrap(feature.title) for name, feature in card.features.items()}


def _labels(card: Card) -> dict[str, str]:
    return {name: wrap(feature.label, width=18) for name, feature in card.features.items()}


ABREAST = 2  # panels a row, so that a figure can still be read on a phone


def _grid(panels: int, *, width: float = 3.6, height: float = 2.7) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, two abreast."""
    columns = min(panels, ABREAST)
    rows = -(-panels // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False
    )
    for spare in axes.flat[panels:]:
        spare.remove()
    return figure, list(axes.flat[:panels])


@styled
def histograms(table: pd.DataFrame, card: Card) -> Figure:
    """A histogram a feature, in raw units, the median marked."""
    figure, axes = _grid(len(card.features))
    for axis, (name, title) in zip(axes, _titles(card).items(), strict=True):
        sns.histplot(x=table[name], ax=axis, color=ACCENT, alpha=0.75, edgecolor="white")
        median = table[name].median()
        axis.axvline(median, color=INK, linestyle="--", linewidth=1.2)
        axis.set(xlabel=title, ylabel="Customers", title=f"Median {median:g}")
    return figure


@styled
def pairs(table: pd.DataFrame, card: Card) -> Figure:
    """A pair plot of the features, coloured by the card's first descriptor where it has one."""
    shown = table[list(card.features)].rename(columns=_titles(card))
    options: dict[str, Any] = {}
    if card.descriptors:
        name, descriptor = next(iter(card.descriptors.items()))
        hue = table[name].fillna("missing").map(escape)
        order = sorted(hue.unique())[: len(PALETTE)]
        shown = shown.assign(**{escape(descriptor.label): hue})
        options = {
            "hue": escape(descriptor.label),
            "hue_order": order,
            "palette": list(PALETTE[: len(order)]),
            "markers": list(MARKERS[: len(order)]),
        }
    dots = {"s": 22, "alpha": 0.7, "linewidth": 0}
    with plt.rc_context({"figure.constrained_layout.use": False}):  # the grid lays itself out
        return sns.pairplot(shown, corner=True, height=2.4, plot_kws=dots, **options).figure


@styled
def correlations(table: pd.DataFrame, card: Card) -> Axes:
    """The correlation matrix of the features as a heatmap, figures written in."""
    matrix = table[list(card.features)].corr()
    labels = list(_labels(card).values())
    side = 2.2 + 0.9 * len(labels)
    _, axis = plt.subplots(figsize=(side + 1, side))
    colours = sns.diverging_palette(255, 25, as_cmap=True)
    sns.heatmap(
        matrix, vmin=-1, vmax=1, cmap=colours, annot=True, fmt=".2f", square=True, ax=axis,
        linewidths=1.5, xticklabels=labels, yticklabels=labels, cbar_kws={"shrink": 0.75},
    )  # fmt: skip
    axis.tick_params(axis="y", rotation=0)
    axis.tick_params(axis="x", rotation=30)
    axis.set(title="Correlation (Pearson)")
    return axis


@styled
def scaling(table: pd.DataFrame, scaled: pd.DataFrame, card: Card) -> Figure:
    """Each feature before (its own figures) and after scaling (z-scores), on one axis each."""
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 1.2 + 0.7 * len(card.features)), sharey=True)
    labels = _labels(card)
    before = table[list(card.features)].rename(columns=labels)
    for axis, data in zip(axes, (before, scaled.rename(columns=labels)), strict=True):
        sns.boxplot(
            data=data, orient="h", ax=axis, color="#cfdcf2", linecolor=INK, linewidth=1, width=0.55,
            fliersize=3,
        )  # fmt: skip
    axes[0].set(title="As measured", xlabel="Own units")
    axes[1].set(title="What the distance sees", xlabel="z-score (standard deviations)")
    return figure


def _mark(axis: Axes, x: float, y: float, text: str) -> None:
    axis.scatter([x], [y], s=130, facecolor="none", edgecolor=PALETTE[1], linewidth=2.2, zorder=3)
    axis.annotate(
        text, (x, y), xytext=(10, 10), textcoords="offset points", color="#a34e00", weight="bold"
    )


def _curve(axis: Axes, table: pd.DataFrame, column: str, label: str) -> None:
    axis.plot(table["k"], table[column], marker="o", color=ACCENT)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="Number of segments K", ylabel=label)


@styled
def elbow(table: pd.DataFrame) -> Axes:
    """Inertia per K of the sweep, the kneedle elbow marked."""
    _, axis = plt.subplots(figsize=(7, 3.8))
    _curve(axis, table, "inertia", "Inertia")
    axis.set(title="Inertia falls with every segment", ylim=(0, None))
    for _, row in table[table["elbow"].eq(True)].iterrows():
        _mark(axis, row["k"], row["inertia"], f"elbow at {row['k']}")
    return axis


def _band(axis: Axes, table: pd.DataFrame, figure: str) -> None:
    """Where structureless data like these lie: from their mean to their 95 % quantile."""
    if f"null_{figure}" not in table:
        return
    low, high = table[f"null_{figure}"], table[f"null_{figure}_q95"]
    axis.fill_between(table["k"], low, high, color=NOISE, linewidth=0)
    axis.plot(table["k"], high, color=QUIET, linewidth=1.2, label="structureless data (95 %)")
    axis.legend(loc="lower right")


@styled
def silhouettes(table: pd.DataFrame) -> Axes:
    """Mean silhouette per K against structureless data, the peak marked."""
    _, axis = plt.subplots(figsize=(7, 3.8))
    scored = table.dropna(subset="silhouette")
    _band(axis, scored, "silhouette")
    _curve(axis, scored, "silhouette", "Mean silhouette")
    axis.set(title="Silhouette per K")
    if len(scored):
        low, high = scored["silhouette"].min(), scored["silhouette"].max()
        axis.set_ylim(min(0, low), high + 0.2 * (high - min(0, low)))
        best = scored.loc[scored["silhouette"].idxmax()]
        _mark(axis, best["k"], best["silhouette"], f"peak at {best['k']:.0f}")
    return axis


@styled
def gap(table: pd.DataFrame) -> Axes:
    """The gap statistic per K with one standard error up and down."""
    _, axis = plt.subplots(figsize=(7, 3.8))
    gaps = table.dropna(subset="gap")
    axis.errorbar(gaps["k"], gaps["gap"], yerr=gaps["gap_se"], marker="o", color=ACCENT, capsize=4)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(
        xlabel="Number of segments K", ylabel="Gap", title="Gap statistic ± one standard error"
    )
    return axis


@styled
def strengths(table: pd.DataFrame) -> Axes:
    """Prediction strength per K against structureless data, the usual bound of 0.8 drawn."""
    _, axis = plt.subplots(figsize=(7, 3.8))
    tried = table[table["k"] > 1].dropna(subset="prediction_strength")
    _band(axis, tried, "prediction_strength")
    _curve(axis, tried, "prediction_strength", "Prediction strength")
    axis.axhline(0.8, color=INK, linestyle="--", linewidth=1)
    axis.set(title="Do halves of the customers predict each other?", ylim=(0, 1.02))
    return axis


@styled
def aris(samples: pd.DataFrame, table: pd.DataFrame) -> Axes:
    """A box per K of the ARIs (pairs, K) of resampled cuts, against structureless data."""
    _, axis = plt.subplots(figsize=(7, 3.8))
    _band(axis, table.dropna(subset="ari_mean"), "ari")
    if len(samples.columns):
        axis.boxplot(
            samples.to_numpy(), positions=list(samples.columns), widths=0.5, patch_artist=True,
            boxprops={"facecolor": "#cfdcf2", "edgecolor": INK}, medianprops={"color": INK},
            flierprops={"markersize": 3, "markeredgecolor": QUIET},
        )  # fmt: skip
    axis.set(xlabel="Number of segments K", ylabel="Adjusted Rand index", ylim=(None, 1.03))
    axis.set(title="Does the cut come back in bootstrap samples?")
    return axis


def _draw_bands(axis: Axes) -> None:
    for bound in list(BANDS)[:-1]:
        axis.axhline(bound, color=QUIET, linewidth=0.8, linestyle=":")
    edges = [0.36, *BANDS]
    for low, (high, word) in zip(edges, BANDS.items(), strict=False):
        axis.annotate(
            word, (1.01, (low + high) / 2), xycoords=("axes fraction", "data"), va="center",
            color="#5f6368", fontsize=9, annotation_clip=False,
        )  # fmt: skip


@styled
def jaccards(resampled: dict[int, np.ndarray]) -> Axes:
    """Per K, the mean Jaccard of each segment over the resamples, with the usual bands."""
    _, axis = plt.subplots(figsize=(7, 3.8))
    for k, values in resampled.items():
        axis.scatter([k] * values.shape[1], values.mean(axis=0), color=ACCENT, alpha=0.75, s=34)
    _draw_bands(axis)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="Number of segments K", ylabel="Mean Jaccard of a segment", ylim=(0.36, 1.02))
    axis.set(title="Does each segment come back?")
    return axis


@styled
def segment_jaccards(resampled: np.ndarray, segments: list[Segment]) -> Axes:
    """A box a segment of its Jaccards (resamples, k), with the usual bands."""
    _, axis = plt.subplots(figsize=(7, 3.6))
    boxes = axis.boxplot(
        resampled, widths=0.5, patch_artist=True, medianprops={"color": INK},
        flierprops={"markersize": 3, "markeredgecolor": QUIET},
    )  # fmt: skip
    for box, segment in zip(boxes["boxes"], segments, strict=True):
        box.set(facecolor=segment["colour"], alpha=0.7, edgecolor=INK)
    _draw_bands(axis)
    axis.set_xticklabels([wrap(s["name"], width=14 if len(segments) < 6 else 10) for s in segments])
    axis.set(ylabel="Jaccard similarity", ylim=(min(0.36, resampled.min() - 0.02), 1.02))
    axis.set(title="Does each segment come back?")
    return axis


@styled
def gorges(similarities: np.ndarray, segments: list[Segment]) -> Figure:
    """A panel a segment: how similar all customers are to its centre (0…1, of gorge)."""
    figure, axes = _grid(len(segments), height=2.2)
    for axis, segment, values in zip(axes, segments, similarities.T, strict=True):
        axis.hist(values, bins=24, range=(0, 1), color=segment["colour"], alpha=0.8)
        axis.set_title(wrap(segment["name"], width=34), fontsize=10)
        axis.set(xlabel="Similarity to its centre", ylabel="Customers")
    return figure


@styled
def flow(series: Flow) -> Axes:
    """Segments by K as nodes, shared customers as edges; the darker a node, the higher its SLSa."""
    nodes = series.nodes.assign(y=_spread_nodes(series.nodes))
    return _draw_flow(series.edges, nodes, title="Where do segments come from as K grows?")


def _spread_nodes(nodes: pd.DataFrame) -> pd.Series:
    return nodes["segment"] - (nodes["k"] - 1) / 2


@styled
def clustergram(series: Flow) -> Axes:
    """The same against each segment's mean on the first principal axis (Schonlau 2002)."""
    nodes = series.nodes.assign(y=series.nodes["score"])
    axis = _draw_flow(series.edges, nodes, title="Clustergram")
    axis.set_ylabel("Mean on the first principal axis")
    axis.set_yticks(axis.get_yticks())
    axis.tick_params(axis="y", labelleft=True, length=3)
    return axis


def _draw_flow(edges: pd.DataFrame, nodes: pd.DataFrame, *, title: str) -> Axes:
    _, axis = plt.subplots(figsize=(7, 4.6))
    place = nodes.set_index(["k", "segment"])["y"]
    for edge in edges[edges["share"] > 0.01].itertuples():
        ends = [place[edge.previous_k, edge.previous], place[edge.k, edge.segment]]
        axis.plot([edge.previous_k, edge.k], ends, color="#b9c9e6", linewidth=30 * edge.share,
                  solid_capstyle="butt", zorder=1)  # fmt: skip
    shade = nodes["slsa"].fillna(1.0).clip(0, 1) ** 2
    dots = axis.scatter(
        nodes["k"], nodes["y"], s=60 + 500 * nodes["size"] / nodes["size"].max(), c=shade,
        cmap=sns.light_palette(ACCENT, as_cmap=True), vmin=0, vmax=1, edgecolor=INK, linewidth=0.8,
        zorder=2,
    )  # fmt: skip
    bar = axis.figure.colorbar(dots, ax=axis, shrink=0.6, ticks=[0, 0.25, 0.64, 1])
    bar.ax.set_yticklabels(["0", "0.5", "0.8", "1"])
    bar.set_label("SLSa")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(axis="y", labelleft=False, length=0)
    axis.grid(visible=False)
    axis.set(xlabel="Number of segments K", title=title)
    return axis


@styled
def indices(table: pd.DataFrame) -> Figure:
    """Calinski–Harabasz (higher is better) and Davies–Bouldin (lower is better) per K."""
    figure, axes = plt.subplots(2, 1, figsize=(7, 6.4))
    scored = table.dropna(subset="calinski_harabasz")
    for axis, (column, label, better) in zip(
        axes,
        [
            ("calinski_harabasz", "Calinski–Harabasz", "idxmax"),
            ("davies_bouldin", "Davies–Bouldin", "idxmin"),
        ],
        strict=True,
    ):
        _curve(axis, scored, column, label)
        axis.set(title=f"{label}: {'higher' if better == 'idxmax' else 'lower'} is better")
        axis.margins(y=0.18)
        if len(scored):
            best = scored.loc[getattr(scored[column], better)()]
            _mark(axis, best["k"], best[column], f"K = {best['k']:.0f}")
    return figure


@styled
def silhouette_profile(samples: pd.DataFrame, table: pd.DataFrame) -> Axes:
    """Each customer's silhouette as a bar, by segment, against the mean of structureless data."""
    _, axis = plt.subplots(figsize=(7, 4.2))
    row = table[table["k"] == samples["cluster"].nunique()].iloc[0]
    if row.get("null_silhouette", np.nan) > 0:
        axis.axvspan(row["null_silhouette"], row["null_silhouette_q95"], color="#d9dce0")
    if samples["silhouette"].isna().all():
        axis.annotate("One segment: no silhouettes", (0.5, 0.5), ha="center", color=INK)
    start, ticks = 0, {}
    for cluster, values in samples.dropna().groupby("cluster")["silhouette"]:
        bars = np.sort(values)[::-1]
        rows = np.arange(start, start + len(bars))
        axis.fill_betweenx(rows, 0, bars, color=SHADES[int(cluster) % 2], linewidth=0.5)
        ticks[start + len(bars) / 2] = f"{len(bars)} customers"
        start += len(bars) + max(2, len(samples) // 60)
    if ticks:
        mean = samples["silhouette"].mean()
        axis.axvline(mean, color=INK, linestyle="--", linewidth=1.2)
        axis.annotate(f" mean {mean:.2f}", (mean, start), color=INK, fontsize=9)
    axis.set_yticks(list(ticks), list(ticks.values()))
    axis.grid(axis="y", visible=False)
    axis.invert_yaxis()
    axis.set(xlabel="Silhouette", title="Silhouette of each customer", xlim=(None, 1))
    return axis


def choose_map(clustered: pd.DataFrame, card: Card) -> list[str]:
    """The two features of the map: the card's, else those on which the segments differ most."""
    if card.map and set(card.map) <= set(card.features):
        return list(card.map)
    values = clustered.dropna(subset="cluster")[list(card.features)]
    means = values.groupby(clustered["cluster"]).transform("mean")
    explained = means.var(ddof=0) / values.var(ddof=0)
    best = set(explained.sort_values(ascending=False, kind="stable").index[:2])
    return [name for name in card.features if name in best]


def _each_segment(
    clustered: pd.DataFrame, segments: list[Segment]
) -> list[tuple[Segment, pd.DataFrame, str]]:
    """Each segment with its customers and its marker."""
    return [
        (s, clustered[clustered["cluster"] == s["id"]], MARKERS[find_look(s["colour"])])
        for s in segments
    ]


LABEL = {"boxstyle": "round,pad=0.3", "facecolor": (1, 1, 1, 0.85), "linewidth": 1.6}


@styled
def map_2d(clustered: pd.DataFrame, segments: list[Segment], card: Card) -> Axes:
    """The customers on two features in raw units, each segment labelled at its centre."""
    x, y = choose_map(clustered, card)
    _, axis = plt.subplots(figsize=(5.8, 5.2))
    for segment, rows, marker in _each_segment(clustered, segments):
        axis.scatter(
            rows[x], rows[y], s=26, marker=marker, color=segment["colour"], alpha=0.7, linewidth=0
        )
    axis.set(xlabel=_titles(card)[x], ylabel=_titles(card)[y])
    axis.margins(0.06, 0.08)
    _label_centres(axis, [(s, s["centre"][x], s["centre"][y]) for s in segments])
    return axis


def _label_centres(axis: Axes, centres: list[tuple[Segment, float, float]]) -> None:
    """Write each segment's name at its centre, moved apart where names would overlap."""
    if not centres:
        return
    few = len(centres) < 7
    labels = [
        axis.annotate(
            wrap(segment["name"], width=22 if few else 18, lines=3 if few else 2), (x, y),
            xytext=(0, 0), textcoords="offset points", ha="center", va="center", color=INK,
            fontsize=9 if few else 7.5, bbox=LABEL | {"edgecolor": segment["colour"]},
        )
        for segment, x, y in centres
    ]  # fmt: skip
    axis.figure.canvas.draw()
    patches = [label.get_bbox_patch() or label for label in labels]
    boxes = [patch.get_window_extent() for patch in patches]
    scale = 72 / axis.figure.dpi
    for label, (dx, dy) in zip(labels, _move_apart(boxes, axis.bbox), strict=True):
        label.set_position((dx * scale, dy * scale))


def _move_apart(boxes: list[Bbox], frame: Bbox, *, rounds: int = 200) -> np.ndarray:
    """How far to move each box (n, 2) so that none overlaps another and all stay in the frame."""
    centres = np.array([[(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2] for b in boxes])
    half = np.array([[b.width / 2 + 2, b.height / 2 + 2] for b in boxes])
    start, inside = centres.copy(), (np.array(frame.min), np.array(frame.max))
    for _ in range(rounds):
        gaps = centres[:, None] - centres[None]
        overlaps = half[:, None] + half[None] - np.abs(gaps)
        both = (overlaps > 0).all(axis=2) & ~np.eye(len(boxes), dtype=bool)
        if not both.any():
            break
        ups = np.where(gaps[..., 1] >= 0, 1, -1) * np.where(both, overlaps[..., 1], 0)
        ups = np.where(gaps[..., 1] == 0, np.triu(ups) - np.tril(ups), ups)
        centres[:, 1] += 0.3 * ups.sum(axis=1)
        centres = np.clip(centres, inside[0] + half, np.maximum(inside[1] - half, inside[0] + half))
    return centres - start


def _legend(segment: Segment) -> str:
    return wrap(f"{segment['name']} ({segment['size']})", width=48)


@styled
def map_3d(clustered: pd.DataFrame, segments: list[Segment], card: Card) -> Figure:
    """The customers on three features in raw units (with two, the third axis is confidence)."""
    titles = {**_titles(card), "confidence": "Confidence"}
    axes = list(titles)[:3]
    shown = clustered.fillna({"confidence": 1.0})
    figure = plt.figure(figsize=(8, 6.6))
    space: Any = figure.add_subplot(projection="3d")
    for segment, rows, marker in _each_segment(shown, segments):
        space.scatter(
            *(rows[name] for name in axes), s=30, marker=marker, color=segment["colour"],
            alpha=0.8, linewidth=0, label=_legend(segment),
        )  # fmt: skip
    space.set(**{f"{side}label": titles[name] for side, name in zip("xyz", axes, strict=True)})
    space.set_title("The same in three dimensions")
    space.view_init(elev=22, azim=-58)
    space.set_box_aspect(None, zoom=0.95)
    figure.legend(loc="outside lower center", ncols=1 if len(segments) < 4 else 2)
    return figure


@styled
def sizes(segments: list[Segment]) -> Axes:
    """A bar a segment: customers and share, largest first."""
    listed = sorted(segments, key=lambda s: s["size"])
    _, axis = plt.subplots(figsize=(8, 1.0 + 0.5 * len(listed)))
    bars = axis.barh(
        [wrap(s["name"], width=36) for s in listed],
        [s["size"] for s in listed],
        color=[s["colour"] for s in listed],
        height=0.62,
    )
    axis.bar_label(bars, [f"{s['size']}  ({s['share']:.1%})" for s in listed], padding=5)
    axis.margins(x=0.16)
    axis.grid(axis="y", visible=False)
    axis.set(xlabel="Customers", title="How large is each segment?")
    return axis


@styled
def distributions(clustered: pd.DataFrame, segments: list[Segment], card: Card) -> Figure:
    """A panel a feature, a box a segment, in raw units; the dashed line is everyone's mean."""
    figure, axes = _grid(len(card.features), height=1.3 + 0.5 * len(segments))
    used = clustered.dropna(subset="segment")
    order = [s["name"] for s in segments]
    for position, (axis, (name, title)) in enumerate(zip(axes, _titles(card).items(), strict=True)):
        sns.boxplot(
            x=used[name], y=used["segment"], order=order, hue=used["segment"], hue_order=order,
            palette=[s["colour"] for s in segments], saturation=1, boxprops={"alpha": 0.65},
            linecolor=INK, linewidth=0.9, width=0.6, fliersize=2.5, legend=False, ax=axis,
        )  # fmt: skip
        axis.axvline(used[name].mean(), color=INK, linestyle="--", linewidth=1)
        axis.set(xlabel=title, ylabel="")
        shown = [wrap(n, width=24) for n in order] if position % ABREAST == 0 else [""] * len(order)
        axis.set_yticks(range(len(order)), shown)
    figure.suptitle(
        "Figures per segment; dashed, everyone's mean", x=0.01, ha="left", weight="bold"
    )
    return figure


@styled
def effects(profile: pd.DataFrame) -> Axes:
    """How far each segment's mean lies from everyone's, in overall standard deviations."""
    wide = profile.pivot(index="segment", columns="variable", values="effect")
    wide = wide.loc[profile["segment"].unique(), profile["variable"].unique()]
    _, axis = plt.subplots(figsize=(3.2 + 1.35 * wide.shape[1], 1.6 + 0.6 * len(wide)))
    limit = max(1.0, float(wide.abs().to_numpy().max()))
    sns.heatmap(
        wide, cmap=sns.diverging_palette(255, 25, as_cmap=True), vmin=-limit, vmax=limit,
        annot=True, fmt="+.2f", linewidths=1.5, ax=axis, cbar=False,
        xticklabels=[wrap(v, width=16) for v in wide.columns],
        yticklabels=[wrap(v, width=28) for v in wide.index],
    )  # fmt: skip
    axis.tick_params(axis="y", rotation=0)
    axis.set(xlabel="", ylabel="", title="Distance from everyone's mean (in sd)")
    return axis


@styled
def mix(levels: pd.DataFrame) -> Figure:
    """A panel a descriptor: the share of each level per segment and for everyone."""
    variables = list(levels["variable"].unique())
    height = 1.4 + 0.45 * (levels["segment"].nunique() + 1)
    figure, axes = _grid(
        max(1, len(variables)), width=7.6 if len(variables) < 2 else 4.6, height=height
    )
    if not variables:
        axes[0].set_axis_off()
        axes[0].set_title("The card names no descriptor")
    for axis, variable in zip(axes, variables, strict=False):
        _draw_mix(axis, levels[levels["variable"] == variable])
        axis.set(title=f"{escape(variable)} per segment", xlabel="Share of the segment")
    return figure


def _draw_mix(axis: Axes, rows: pd.DataFrame) -> None:
    shares = rows.pivot(index="segment", columns="level", values="level_share")
    shares = shares.loc[rows["segment"].unique()]
    shares.loc["Everyone"] = rows.drop_duplicates("level").set_index("level")["overall_share"]
    names, start = [wrap(name, width=28) for name in shares.index], np.zeros(len(shares))
    greys = sns.color_palette("blend:#4a4f57,#d9dce0", len(shares.columns))
    for colour, (level, share) in zip(greys, shares.items(), strict=True):
        bars = axis.barh(names, share, left=start, color=colour, height=0.6, label=escape(level))
        light = sum(colour) < 1.5
        texts = [f"{value:.0%}" if value >= 0.08 else "" for value in share]
        axis.bar_label(
            bars, texts, label_type="center", color="white" if light else INK, fontsize=9
        )
        start = start + share.to_numpy()
    axis.invert_yaxis()
    axis.grid(visible=False)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))


# From run to run


def _draw_nothing(text: str) -> Axes:
    _, axis = plt.subplots(figsize=(7, 0.8))
    axis.set_axis_off()
    axis.set_title(text)
    return axis


@styled
def share_changes(changes: pd.DataFrame, colours: dict[int, str]) -> Axes:
    """A line a segment from its share then (hollow) to its share now (filled)."""
    if changes.empty:
        return _draw_nothing("No earlier run to compare with")
    rows = _pair_shares(changes)
    _, axis = plt.subplots(figsize=(7, 1.4 + 0.5 * len(rows)))
    for place, row in enumerate(rows.itertuples()):
        colour = colours[row.id]
        axis.plot([row.previous_share, row.share], [place, place], color=colour, linewidth=2.5)
        axis.plot(row.previous_share, place, "o", markersize=9, markeredgewidth=2, color="white",
                  markeredgecolor=colour)  # fmt: skip
        axis.plot(row.share, place, "o", markersize=9, color=colour)
    axis.set_yticks(range(len(rows)), [wrap(name, width=30) for name in rows["name"]])
    axis.invert_yaxis()
    axis.margins(y=0.15)
    axis.set_xlim(0, 1.06 * float(rows[["previous_share", "share"]].max(axis=None)))
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set(xlabel="Share of the customers: ring then, dot now", title="Shares then and now")
    return axis


def _pair_shares(changes: pd.DataFrame) -> pd.DataFrame:
    """One row a segment of either run: id, name, previous_share, share; who has gone last."""
    sides = [
        changes.rename(columns={f"{prefix}cluster": "id", f"{prefix}segment": "name"})
        .dropna(subset="id")
        .drop_duplicates("id")
        .set_index("id")[["name", f"{prefix}share"]]
        for prefix in ("previous_", "")
    ]
    rows = sides[1].combine_first(sides[0]).reset_index()
    return rows.sort_values(["share", "previous_share"], ascending=False, ignore_index=True)


@styled
def migration(ways: pd.DataFrame, colours: dict[int, str]) -> Axes:
    """Customers as bands from their segment then (left) to their segment now (right)."""
    if ways.empty:
        return _draw_nothing("No customers to follow from an earlier run")
    _, axis = plt.subplots(figsize=(7, 5.4))
    gap = 0.03 * ways["customers"].sum()
    left = _stack_nodes(ways, "previous_cluster", "previous_segment", gap)
    right = _stack_nodes(ways, "cluster", "segment", gap)
    tops = [dict(nodes["start"]) for nodes in (left, right)]
    for way in ways.assign(
        one=ways["previous_cluster"].fillna(-1), two=ways["cluster"].fillna(-1)
    ).sort_values(["one", "two"]).itertuples():  # fmt: skip
        _draw_band(axis, tops[0][way.one], tops[1][way.two], way.customers,
                   colours.get(way.one, QUIET))  # fmt: skip
        tops[0][way.one] += way.customers
        tops[1][way.two] += way.customers
    _label_nodes(axis, left, colours, x=0.0, empty="came")
    _label_nodes(axis, right, colours, x=1.0, empty="left")
    axis.set_axis_off()
    axis.set(xlim=(-0.62, 1.62), title="Where customers were then (left) and are now (right)")
    axis.invert_yaxis()
    return axis


def _stack_nodes(ways: pd.DataFrame, side: str, name: str, gap: float) -> pd.DataFrame:
    """One row a segment of a side, largest first and who came or left (-1) last: where it lies."""
    keyed = ways.assign(node=ways[side].fillna(-1).astype(int), name=ways[name])
    nodes = keyed.groupby("node").agg(customers=("customers", "sum"), name=("name", "first"))
    last = nodes.index == -1
    nodes = nodes.iloc[np.lexsort((-nodes["customers"].to_numpy(), last))]
    return nodes.assign(start=(nodes["customers"] + gap).cumsum() - nodes["customers"] - gap)


def _draw_band(axis: Axes, one: float, two: float, width: float, colour: str) -> None:
    x = np.linspace(0.03, 0.97, 60)
    bend = 3 * x**2 - 2 * x**3
    top = one + (two - one) * bend
    axis.fill_between(x, top, top + width, color=colour, alpha=0.45, linewidth=0)


def _label_nodes(
    axis: Axes, nodes: pd.DataFrame, colours: dict[int, str], *, x: float, empty: str
) -> None:
    for node in nodes.itertuples():
        colour = colours.get(node.Index, QUIET)
        axis.bar(x, node.customers, bottom=node.start, width=0.06, color=colour)
        name = empty if node.Index == -1 else node.name
        text = f"{wrap(name, width=22, lines=3)} ({node.customers:,})"
        middle = node.start + node.customers / 2
        axis.text(x + (0.06 if x else -0.06), middle, text, va="center", fontsize=9, color=INK,
                  ha="left" if x else "right")  # fmt: skip
