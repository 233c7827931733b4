"""The explorer of a run: a page where each customer is a point, over two features or three.

It shows single customers, so it has no ids, not the order of the table, no segment and no level of
a descriptor with fewer than `FEWEST` customers. It asks for nothing: Plotly stands in the page, the
data are inert JSON, and the Content-Security-Policy names the page's two scripts by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from segmentation.customers import Card, cards
from segmentation.palette import OUTLINES, PALETTE, find_look
from segmentation.reports import drawings, pages
from segmentation.reports.pages import Step
from segmentation.runs import Manifest, Run
from segmentation.words import FEWEST

MOST, SEED = 5_000, 0
CSP = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {}; "
    "base-uri 'none'; form-action 'none'"
)
BACK = Step("Report", "The report", page="report.html")
HERE = Step("Explore", "Explore", page="explore.html")
SIDES = ("Horizontal", "Vertical", "Depth")
CONFIDENCE = {"label": "Confidence", "unit": "", "title": "Confidence", "log": False}
SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down"]
SYMBOLS += ["cross", "x", "triangle-left", "pentagon", "star"]
"""The markers of the palette as Plotly calls them, in its order."""

GLYPHS = "●■▲◆▼✚✖◄⬟★"
"""The same as characters: in three dimensions Plotly has no triangle and no star."""


def write_explorer(run_dir: Path, manifest: Manifest) -> Path:
    """Write `run_dir/reports/explore.html`, one self-contained file; its path.

    Scripts, data, and the picture that stands in where scripts are off; the figures come from the
    tables of the run.
    """
    from plotly.offline import get_plotlyjs

    scripts = [(pages.TEMPLATES / "explore.js").read_text(encoding="utf-8"), get_plotlyjs()]
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()) for each in scripts]
    points = describe_points(run_dir, described=True)
    taken = {segment["colour"] for segment in points["segments"]}
    values = pages.describe_page(
        manifest,
        [BACK, HERE],
        title=f"Explore – {manifest.title}",
        csp=CSP.format(" ".join(f"'sha256-{digest.decode()}'" for digest in digests)),
        here=HERE.name,
        note="A page to explore; it shows single customers, without ids.",
        picture=pages.read_picture(run_dir / "figures" / "segments_map.png"),
        scripts=[Markup(script) for script in scripts],
        colours=sorted(PALETTE, key=taken.__contains__),  # those of no segment first
        **points,
    )
    path = run_dir / "reports" / "explore.html"
    path.parent.mkdir(exist_ok=True)
    template = pages.environment().get_template("explore.html.j2")
    path.write_text(template.render(values), encoding="utf-8")
    return path


def describe_points(run_dir: Path, *, described: bool = False) -> dict[str, Any]:
    """What a page shows of a run: its axes, its segments with their customers, how many.

    The axes are the card's features; with two of them, confidence is the third where the segments
    have centres and so a confidence. If `described`, a row goes on with the place of the customer's
    level in each of the `descriptors`, -1 for a level that is not among the `levels` there.
    """
    run, card = Run(run_dir), cards.load_card(run_dir / "card.yaml")
    table = run.read_table("clustered_data.csv", text=(*card.descriptors,))
    points = table.dropna(subset="cluster")
    axes = [
        {"label": f.label, "unit": f.unit, "title": f.title, "log": f.transform == "log"}
        for f in card.features.values()
    ]
    names = [*card.features]
    if len(axes) < 3 and (points["confidence"].notna().any() or points["cluster"].nunique() == 1):
        axes.append(CONFIDENCE)
        names.append("confidence")
        points = points.fillna({"confidence": 1.0})
    segments = run.read_json("segments.json")
    told = [segment for segment in segments if segment["size"] >= FEWEST]
    shown = points[points["cluster"].isin([segment["id"] for segment in told])]
    levels = {name: _list_levels(shown[name]) for name in card.descriptors if described}
    levels = {name: own for name, own in levels.items() if own}
    codes = {name: pd.Index(own).get_indexer(shown[name]) for name, own in levels.items()}
    rows = shown[[*names, "cluster"]].assign(**codes)
    drawn = rows.sample(min(len(rows), MOST), random_state=SEED)
    used, large = (sum(segment["size"] for segment in each) for each in (segments, told))
    chance = ", drawn at random" if len(drawn) < large else ""
    amount = f"{len(drawn):,} of {used:,} customers{chance}"
    return {
        "axes": axes,
        "start": dict(zip(SIDES, _choose_axes(points, card, len(axes)), strict=False)),
        "descriptors": [
            {"label": card.descriptors[name].label, "levels": own} for name, own in levels.items()
        ],
        "segments": [_describe_segment(segment, names, drawn) for segment in told],
        "amount": f"All {used:,} customers" if len(drawn) == used else amount,
        "untold": len(segments) - len(told),
        "fewest": FEWEST,
    }


def _list_levels(values: pd.Series) -> list[str]:
    """The levels that at least `FEWEST` customers have, most frequent first, one a colour."""
    counts = values.value_counts()
    return counts[counts >= FEWEST].index[: len(PALETTE)].tolist()


def _choose_axes(points: pd.DataFrame, card: Card, count: int) -> list[int]:
    """The two features of the report's map, then the first of the others."""
    names = [*card.features]
    best = drawings.choose_map(points, card)
    first = [names.index(name) for name in best]
    return [*first, *[i for i in range(count) if i not in first][:1]]


def _describe_segment(
    segment: dict[str, Any], names: list[str], drawn: pd.DataFrame
) -> dict[str, Any]:
    """What a page knows of a segment: name, size, look, centre, and the rows drawn."""
    own = drawn[drawn["cluster"] == segment["id"]].drop(columns="cluster")
    look = find_look(segment["colour"])
    return {name: segment[name] for name in ("id", "name", "size", "colour")} | {
        "symbol": SYMBOLS[look],
        "glyph": GLYPHS[look],
        "outline": OUTLINES[look],
        "centre": [segment["centre"].get(name) for name in names],
        "rows": json.loads(own.to_json(orient="values")),
    }
