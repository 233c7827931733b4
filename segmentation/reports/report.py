"""The stakeholders' report: one file for whoever decides, read on a phone, printed or by e-mail.

Every figure in it is taken from a table of the run by its place and carries that place with it
(`data-cell`), so that no number can disagree with its table. Nothing in it needs a script.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pandas as pd
from markupsafe import Markup

from segmentation import words
from segmentation.palette import OUTLINES, find_look
from segmentation.reports import pages
from segmentation.runs import Manifest, Run

TELLING = 3
"""Figures on a segment's card: those that set it most apart."""

REACH = 2.5
"""Standard deviations from everyone's mean to the end of a chart's track."""

LEVELS = 6
"""Levels of a descriptor that the report shows, the commonest ones."""

DAY = "%B %Y"
TEXTS = ("segment", "variable", "unit", "level", "rule", "toward", "previous_segment", "transition")


class Tables:
    """The tables of a run, and their cells as markup that says where it comes from."""

    def __init__(self, run_dir: Path, manifest: Manifest) -> None:
        run = Run(run_dir)
        self.frames = {
            "run.json": pd.json_normalize(manifest.model_dump(mode="json")),
            "segments.json": pd.json_normalize(run.read_json("segments.json")),
            "run.json/quality": pd.DataFrame(manifest.quality).reset_index(names="number"),
        }
        profile = run.read_table("segment_profiles.csv", text=TEXTS).fillna({"unit": ""})
        self.frames["segment_profiles.csv"] = profile
        levelled = profile["level"].notna()
        self.features, self.levels = profile[~levelled], profile[levelled]
        texts = (*TEXTS, *self.levels["variable"].unique())
        names = ["segment_rules.csv", "segment_prototypes.csv", "borderline.csv", "changes.csv"]
        for name in names:
            self.frames[name] = run.read_table(name, text=texts)
        choices = run.read_table("k_selection.csv")
        self.frames["k_selection.csv"] = choices[choices["k"] == manifest.k]
        if (run_dir / "tables" / "families.csv").is_file():  # not of runs of earlier versions
            self.frames["families.csv"] = run.read_table("families.csv")
        self._records: dict[str, list[dict[str, Any]]] = {}

    def rows(self, name: str, **where: Any) -> list[dict[str, Any]]:
        """The rows of a table that hold these values."""
        if name not in self._records:  # a page asks for a hundred cells
            self._records[name] = self.frames[name].to_dict("records")
        return [
            row
            for row in self._records[name]
            if all(row[column] == value for column, value in where.items())
        ]

    def cell(self, name: str, column: str, *, unit: bool = True, **where: Any) -> Markup:
        """One figure as people read it, in an element that holds its value and its place."""
        (row,) = self.rows(name, **where)
        kind = column.rpartition(".")[2]
        facts = row | {kind: row[column]} | ({} if unit else {"unit": ""})
        if name == "segment_prototypes.csv":  # a customer's own figure, written like the mean
            kind, like = "mean", self.rows("segment_profiles.csv", variable=column)[0]
            facts = like | {kind: row[column]}
        text = words.write_figure(kind, facts)
        place = f"{name}?{urlencode(where)}#{quote(column)}"
        markup = '<data value="{}" data-cell="{}">{}</data>'
        return Markup(markup).format(row[column], place, text)


def write_report(run_dir: Path, manifest: Manifest) -> Path:
    """Write `run_dir/reports/report.html`, one self-contained file; its path.

    The figures come from the tables of the run.
    """
    path = run_dir / "reports" / "report.html"
    path.write_text(render_report(run_dir, manifest), encoding="utf-8")
    return path


def render_report(run_dir: Path, manifest: Manifest) -> str:
    """The report's page."""
    from segmentation.clustering import sensitivity
    from segmentation.segments import profiles

    tables = Tables(run_dir, manifest)
    families = tables.frames.get("families.csv")
    run = Run(run_dir)
    listed = run.read_json("segments.json")
    segments = sorted(listed, key=lambda segment: -segment["size"])
    selection = run.read_json("selection.json")
    template = pages.environment().get_template("report.html.j2")
    return template.render(
        title=f"{manifest.title} – customer segments",
        csp=pages.CSP,
        style=pages.stylesheet(),
        run=manifest,
        cell=tables.cell,
        rows=tables.rows,
        segments=[_describe(segment, tables, len(segments)) for segment in segments],
        verdict=words.find_verdict(selection),
        rivals=_find_rivals(manifest),
        methods={} if families is None else sensitivity.explain_families(families),
        selection=selection,
        map=pages.read_picture(run_dir / "figures" / "segments_map.png"),
        descriptors=_list_levels(tables),
        centred=(run_dir / "artifacts" / "segmenter.json").is_file(),
        since=_describe_changes(tables, run.read_json("changes.json")),
        glossary=words.read_words()["glossary"],
        fewest=words.FEWEST,
        say=words.say,
        limits=profiles.summarize_limits(tables.features),
        logged=bool(tables.features["logged"].any()),
        data_date=pages.write_date(manifest.as_of, DAY),
        run_date=pages.write_date(manifest.started[:10], DAY),
    )


def _find_rivals(manifest: Manifest) -> dict[int, list[str]]:
    """The other numbers of segments that rules answer, each with its rules."""
    rivals: dict[int, list[str]] = {}
    for rule, k in manifest.rules.items():
        if k and k != manifest.k:
            rivals.setdefault(k, []).append(rule)
    return dict(sorted(rivals.items()))


def _describe_changes(tables: Tables, summary: dict[str, Any]) -> dict[str, Any]:
    """What the page says of the previous run: who continues, what happened, the advice."""
    from segmentation.segments import tracking

    if summary["previous"] is None:
        return {}
    table = tables.frames["changes.csv"]
    kept = table.dropna(subset="points")
    told = kept[kept[["previous_size", "size"]].min(axis=1) >= words.FEWEST]
    return {
        "run": summary["previous"],
        "day": pages.write_date(summary["previous_day"], DAY),
        "kept": [int(cluster) for cluster in kept["cluster"]],
        "told": [int(cluster) for cluster in told["cluster"]],
        "roles": [each["sentence"] for each in summary["roles"]],
        "events": tracking.describe_transitions(table),
        "word": words.read_words()["advised"][summary["advice"]],
        "reason": summary["reason"],
    }


def _describe(segment: dict[str, Any], tables: Tables, segments: int) -> dict[str, Any]:
    """A segment as the page shows it: what it is, its features and the most telling of them."""
    own = tables.features[tables.features["cluster"] == segment["id"]]
    features = [
        row | {"label": row["variable"]} | _place(row["effect"]) for row in own.to_dict("records")
    ]
    for feature in features:
        feature["typical"] = "median" if feature["logged"] else "mean"
        feature["title"] = words.write_title(feature["label"], feature["unit"] or "")
    telling = sorted(features, key=lambda feature: -abs(feature["effect"]))
    return segment | {
        "told": segment["size"] >= words.FEWEST,
        "outline": OUTLINES[find_look(segment["colour"])],
        "features": features,
        "telling": telling[:TELLING],
        "alone": segments == 1,
    }


def _place(effect: float) -> dict[str, float]:
    """Where a mean lies on its track (in % of the width), and the bar from everyone's to it."""
    at = 50 + 50 * max(-REACH, min(REACH, effect)) / REACH
    return {"at": round(at, 1), "start": round(min(at, 50), 1), "length": round(abs(at - 50), 1)}


def _list_levels(tables: Tables) -> dict[str, list[str]]:
    """The levels of each descriptor that the report shows, by the descriptor's label."""
    known = tables.levels.drop_duplicates(["variable", "level"]).groupby("variable", sort=False)
    commonest = {label: rows.nlargest(LEVELS, "overall_share") for label, rows in known}
    return {str(label): rows["level"].to_list() for label, rows in commonest.items()}
