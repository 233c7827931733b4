"""Inline SVG for the stakeholders' report: ribbons, small maps, sparklines; no script, any theme.

Geometry only: paths and places as the template needs them. Colours and texts are the template's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd

from segmentation.customers import Card
from segmentation.segments import profiles

WIDE, HIGH = 200.0, 150.0
"""A small map's frame, in the units of its drawing."""

DOTS = 1_500
"""Customers on a map, a seeded sample of more."""

EDGE = 0.004
"""The share of the customers at either end of an axis that may lie beyond the frame."""


def draw_ribbons(
    ways: Iterable[tuple[Any, Any, float, float]], *, order: Sequence[Any], gap: float = 0.0
) -> list[dict[str, Any]]:
    """Bands from a bar above to a bar below, both in an order: start and end of each, as paths.

    A way is (from, to, width above, width below), widths as shares of their bars. `gap` parts the
    segments of a bar. In a drawing of 1000 × 100.

    >>> [band["path"] for band in draw_ribbons([("a", "a", 1.0, 1.0)], order="a")]
    ['M0 0C0 50 0 50 0 100H1000C1000 50 1000 50 1000 0Z']
    """
    rows = sorted(ways, key=lambda way: (order.index(way[0]), order.index(way[1])))
    starts = [_stack(rows, side, order, gap) for side in (0, 1)]
    bands = []
    for above, below, *widths in rows:
        ends = []
        for side, (key, width) in enumerate(zip((above, below), widths, strict=True)):
            left = starts[side][key]
            starts[side][key] = left + width
            ends.append([f"{1000 * each:.4g}" for each in (left, left + width)])
        (a, b), (c, d) = ends
        path = f"M{a} 0C{a} 50 {c} 50 {c} 100H{d}C{d} 50 {b} 50 {b} 0Z"
        bands.append({"from": above, "to": below, "path": path})
    return bands


def draw_intervals(rows: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Where low, difference, high and no difference lie on one scale, 0…100, a dict a row.

    >>> draw_intervals([{"low": -1.0, "difference": 1.0, "high": 3.0}])
    [{'low': 0.0, 'difference': 50.0, 'high': 100.0, 'zero': 25.0}]
    """
    names = ("low", "difference", "high")
    least = min(0.0, *(row["low"] for row in rows))
    width = max(0.0, *(row["high"] for row in rows)) - least or 1.0
    placed = [{name: row[name] for name in names} | {"zero": 0.0} for row in rows]
    return [{n: round(100 * (v - least) / width, 1) for n, v in row.items()} for row in placed]


def draw_bar(start: float, width: float) -> str:
    """A piece of a bar of 1000 × 26, from a share of it on, so many of it wide.

    >>> draw_bar(0.5, 0.25)
    'M500 0h250v26h-250z'
    """
    return f"M{1000 * start:.4g} 0h{1000 * width:.4g}v26h-{1000 * width:.4g}z"


def _stack(
    rows: Sequence[tuple[Any, ...]], side: int, order: Sequence[Any], gap: float
) -> dict[Any, float]:
    """Where each segment of a bar starts (0…1)."""
    starts, at = {}, 0.0
    for key in order:
        starts[key] = at
        width = sum(row[2 + side] for row in rows if row[side] == key)
        at += width + gap * (width > 0)
    return starts


def choose_map(clustered: pd.DataFrame, card: Card) -> list[str]:
    """The two features of the map: the card's, else those on which the segments differ most.

    `clustered` has a row a customer, the card's features and `cluster`, the segment's id.
    """
    if card.map and set(card.map) <= set(card.features):
        return list(card.map)
    used = clustered.dropna(subset="cluster")
    values = used[[]].assign(
        **{n: profiles.see_feature(used[n], f) for n, f in card.features.items()}
    )
    means = values.groupby(clustered["cluster"]).transform("mean")
    explained = means.var(ddof=0) / values.var(ddof=0)
    best = set(explained.sort_values(ascending=False, kind="stable").index[:2])
    return [name for name in card.features if name in best]


def draw_maps(
    customers: pd.DataFrame, card: Card, plane: Sequence[str], centres: Mapping[int, Any],
    before: Mapping[int, Any], *, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Small maps over two features, one a segment: paths of dots, centres, ticks, what is beyond.

    `customers` has the two features of `plane` and `cluster`; `centres` and `before` (of the last
    run) hold the segments' centres in raw units. Axes are logarithmic where the distance is.
    """
    used = customers.dropna(subset=["cluster", *plane])
    scales = [_make_scale(used[name], card.features[name].transform == "log") for name in plane]
    some = used.sample(min(len(used), DOTS), random_state=seed)
    places = _place(some[list(plane)].to_numpy(float), scales)
    dots = {int(c): _dot(places[rows]) for c, rows in some.groupby("cluster").indices.items()}
    points = {c: _place_centre(centre, plane, scales) for c, centre in centres.items()}
    former = {c: _place_centre(centre, plane, scales) for c, centre in before.items()}
    shown = used[list(plane)].to_numpy(float)
    ends = np.array([[low, high] for _, low, high, _ in scales])
    beyond = ((shown < ends[:, 0]) | (shown > ends[:, 1])).any(axis=1).sum()
    return {
        "everyone": "".join(dots.values()),
        "dots": dots,
        "centres": points,
        "before": {c: p for c, p in former.items() if c in points and _are_apart(p, points[c])},
        "ticks": [ticks for *_, ticks in scales],
        "titles": [card.titles[name] for name in plane],
        "logged": [card.features[name].transform == "log" for name in plane],
        "beyond": int(beyond),
    }


def _make_scale(values: pd.Series, logged: bool) -> tuple[bool, float, float, list[Any]]:
    """A frame that leaves few far ones out: logged, low, high, ticks (place 0…1, text)."""
    low, high = values.quantile([EDGE, 1 - EDGE])
    far = np.inf if logged else ((high - low) or 1.0) / 4
    low, high = values[values.between(low - far, high + far)].agg(["min", "max"])
    if low == high:
        low, high = low - 0.5, high + 0.5
    ticks = [(_scale(at, logged, low, high), f"{at:,g}") for at in _find_ticks(low, high, logged)]
    return logged, float(low), float(high), ticks


def _find_ticks(low: float, high: float, logged: bool) -> list[float]:
    """Three or so round numbers between two ends."""
    if logged and low >= 0 and high > 20 * max(low, 1):
        rounds = [m * 10.0**e for e in range(-3, 16) for m in (1, 2, 5)]
        inside = [each for each in rounds if max(low, high / 2000) <= each <= high]
        return inside[:: max(1, round(len(inside) / 4))]
    step = 10.0 ** np.floor(np.log10((high - low) / 2))
    step *= next(m for m in (5, 2, 1) if m * step <= (high - low) / 2)
    rounds = np.arange(np.ceil(low / step), high / step + 1e-9) * step
    return [float(round(at, 10)) for at in rounds]


def _scale(values: Any, logged: bool, low: float, high: float) -> Any:
    see = np.log1p if logged else np.asarray
    return (see(values) - see(low)) / (see(high) - see(low))


def _place(rows: np.ndarray, scales: Sequence[tuple[bool, float, float, Any]]) -> np.ndarray:
    """Raw values (n, 2) as places in the frame (n, 2); who is beyond it stands at its edge."""
    seen = [_scale(rows[:, i], *scale[:3]) for i, scale in enumerate(scales)]
    x, y = (np.clip(each, 0, 1) for each in seen)
    return np.column_stack([WIDE * x, HIGH * (1 - y)])


def _place_centre(centre: Mapping[str, float], plane: Sequence[str], scales: Any) -> Any:
    return _place(np.array([[float(centre[name]) for name in plane]]), scales)[0].round(1).tolist()


def _are_apart(one: Sequence[float], other: Sequence[float]) -> bool:
    return bool(np.hypot(one[0] - other[0], one[1] - other[1]) > 4)


def _dot(places: np.ndarray) -> str:
    return "".join(f"M{x:.0f} {y:.0f}h0" for x, y in places)


COLUMN, ROW = 176.0, 40.0
"""The distance of two cuts, and of two segments of a cut, in the drawing of a tree."""


def draw_tree(cuts: pd.DataFrame) -> dict[str, Any]:
    """The nested cuts of cuts.csv from two segments on: nodes, edges and the drawing's size.

    A node has x, y, lines (its name), share, k and chosen; an edge a path and its width.
    """
    shown = cuts[cuts["k"] > 1]
    if shown.empty:
        return {}
    ks = sorted({*shown["k"].astype(int)})
    places, nodes, edges = {}, [], []
    for row in shown.to_dict("records"):
        step, segment = ks.index(row["k"]), int(row["segment"])
        x, y = COLUMN * step, ROW * (segment + (ks[-1] - row["k"]) / 2) + 12
        places[step, segment] = x, y
        lines = wrap(str(row["name"]), 27, max_lines=2, placeholder=" …")
        nodes.append(row | {"x": x, "y": y, "lines": lines})
        if step and row["parent"] == row["parent"]:
            before, above = places[step - 1, int(row["parent"])]
            start, middle = before + COLUMN - 24, x - 12
            bend = f"C{middle:.0f} {above:.0f} {middle:.0f} {y:.0f} {x:.0f} {y:.0f}"
            path = f"M{start:.0f} {above:.0f}{bend}"
            edges.append({"path": path, "width": round(1 + 14 * row["share"], 1)})
    return {
        "nodes": nodes,
        "edges": edges,
        "ks": [(COLUMN * step, k) for step, k in enumerate(ks)],
        "chosen": int(shown.loc[shown["chosen"].astype(bool), "k"].max()),
        "width": COLUMN * len(ks),
        "height": ROW * ks[-1] + 24,
    }


def draw_line(shares: Sequence[float | None], *, top: float) -> str:
    """A sparkline of shares up to `top` in a drawing of 100 × 24; None is a gap.

    >>> draw_line([0.1, None, 0.2], top=0.2)
    'M0 13h0M100 2h0'
    """
    step = 100 / max(1, len(shares) - 1)
    parts, open_ = [], False
    for i, share in enumerate(shares):
        if share is None:
            open_ = False
            continue
        at = f"{i * step:.4g} {24 - 22 * share / top:.3g}"
        parts.append(f"L{at}" if open_ else f"M{at}h0")
        open_ = True
    return "".join(parts)


def find_third(customers: pd.DataFrame, card: Card, plane: Sequence[str]) -> str | None:
    """The feature that parts two segments which lie together on the map; None where none does.

    Together are centres within one standard deviation in the plane, apart those beyond 1.5 in
    another feature.
    """
    used = customers.dropna(subset="cluster")
    seen = pd.DataFrame({n: profiles.see_feature(used[n], f) for n, f in card.features.items()})
    means = (seen / seen.std(ddof=0).where(lambda sd: sd > 0, 1.0)).groupby(used["cluster"]).mean()
    gaps = (means.to_numpy()[:, None] - means.to_numpy()[None]).astype(float)
    on_map = [name in plane for name in means]
    together = np.hypot(*np.moveaxis(gaps[..., on_map], -1, 0)) < 1 if sum(on_map) == 2 else None
    if together is None or all(on_map):
        return None
    apart = np.where(together[..., None], np.abs(gaps), 0)
    apart[..., on_map] = 0
    most = apart.max(axis=(0, 1))
    return str(means.columns[most.argmax()]) if most.max() > 1.5 else None
