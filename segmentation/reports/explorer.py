"""The explorer of a run: a page where each customer is a point, over two features or three.

It shows single customers, so it has no ids, not the order of the table, and no segment with
fewer than `FEWEST` customers. It asks for nothing: Plotly stands in the page, the data are
inert JSON, and the Content-Security-Policy names the page's two scripts by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from markupsafe import Markup

from segmentation.palette import OUTLINES, find_look
from segmentation.reports import pages
from segmentation.reports.pages import Step
from segmentation.runs import Manifest, Run
from segmentation.words import FEWEST, write_title

MOST, SEED = 5_000, 0
CSP = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {}; "
    "base-uri 'none'; form-action 'none'"
)
HERE = Step("Explore", "Explore", page="explore.html")
SIDES = ("Horizontal", "Vertical", "Depth")
CONFIDENCE = {"column": "confidence", "label": "Confidence", "unit": ""}
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
    values = pages.describe_page(
        manifest,
        [HERE],
        title=f"Explore – {manifest.title}",
        csp=CSP.format(" ".join(f"'sha256-{digest.decode()}'" for digest in digests)),
        here=HERE.name,
        note="A page to explore; it shows single customers, without ids.",
        picture=pages.read_picture(run_dir / "figures" / "segments_map.png"),
        scripts=[Markup(script) for script in scripts],
        **describe_points(run_dir),
    )
    path = run_dir / "reports" / "explore.html"
    path.parent.mkdir(exist_ok=True)
    template = pages.environment().get_template("explore.html.j2")
    path.write_text(template.render(values), encoding="utf-8")
    return path


def describe_points(run_dir: Path) -> dict[str, Any]:
    """What the page shows of a run: its axes, its segments with their customers, how many.

    The axes are the features in the distance; with two of them, confidence is the third where
    the segments have centres and so a confidence.
    """
    run = Run(run_dir)
    points = run.read_table("clustered_data.csv").dropna(subset="cluster")
    axes = _list_features(run_dir)
    if len(axes) < 3 and (points["confidence"].notna().any() or points["cluster"].nunique() == 1):
        axes.append(CONFIDENCE)
        points = points.fillna({"confidence": 1.0})
    points = points[[*(axis["column"] for axis in axes), "cluster"]]
    segments = run.read_json("segments.json")
    told = [segment for segment in segments if segment["size"] >= FEWEST]
    shown = points[points["cluster"].isin([segment["id"] for segment in told])]
    drawn = shown.sample(min(len(shown), MOST), random_state=SEED)
    used, large = (sum(segment["size"] for segment in each) for each in (segments, told))
    chance = ", drawn at random" if len(drawn) < large else ""
    amount = f"{len(drawn):,} of {used:,} customers{chance}"
    return {
        "axes": [
            {"label": a["label"], "unit": a["unit"], "title": write_title(a["label"], a["unit"])}
            for a in axes
        ],
        "start": dict(zip(SIDES, _choose_axes(points), strict=False)),
        "segments": [_describe_segment(segment, drawn) for segment in told],
        "amount": f"All {used:,} customers" if len(drawn) == used else amount,
        "untold": len(segments) - len(told),
        "fewest": FEWEST,
    }


def _list_features(run_dir: Path) -> list[dict[str, str]]:
    """The features in the distance: those of the model's figures, else those of the card."""
    figures = run_dir / "artifacts" / "segmenter.json"
    if figures.is_file():
        return list(json.loads(figures.read_text(encoding="utf-8"))["features"])
    card = yaml.safe_load((run_dir / "card.yaml").read_text(encoding="utf-8"))
    return [
        {"column": name, "label": name, "unit": ""} | (feature or {})
        for name, feature in card["features"].items()
    ]


def _choose_axes(points: pd.DataFrame) -> list[int]:
    """The two features on which the segments differ most, in the table's order, then the next."""
    values = points.drop(columns=["cluster", CONFIDENCE["column"]], errors="ignore")
    means = values.groupby(points["cluster"]).transform("mean")
    between = (means.var(ddof=0) / values.var(ddof=0)).fillna(0.0).to_numpy()
    first, second, *rest = (-between).argsort(kind="stable").tolist()
    third = [*rest, *range(2, points.shape[1] - 1)][:1]
    return [*sorted([first, second]), *third]


def _describe_segment(segment: dict[str, Any], drawn: pd.DataFrame) -> dict[str, Any]:
    """What the page knows of a segment: name, size, look, and the rows drawn, axis by axis."""
    own = drawn[drawn["cluster"] == segment["id"]].drop(columns="cluster")
    look = find_look(segment["colour"])
    return {name: segment[name] for name in ("id", "name", "size", "colour")} | {
        "symbol": SYMBOLS[look],
        "glyph": GLYPHS[look],
        "outline": OUTLINES[look],
        "rows": json.loads(own.to_json(orient="values")),
    }
