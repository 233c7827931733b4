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
from segmentation.customers import Card, read_card
from segmentation.palette import OUTLINES, find_look
from segmentation.reports import drawings, findings, pages
from segmentation.runs import Manifest, Run

REACH = 2.5
"""Standard deviations from everyone's mean to the end of a figure's bar."""

LEVELS = 6
"""Levels of a descriptor that the report shows, the commonest ones."""

CHOICES = 12
"""Alternatives of which the report shows how many customers each would move."""

GREY = "#9a9da3"

MOST = 8
"""Segments that stand side by side; of more, the report says how many there are."""

OPTIONAL = {
    "segment_values.csv": ("cluster", "mean", "variable", "unit"),
    "value_bands.csv": ("customers", "value_share"),
    "actions.csv": ("cluster",),
    "families.csv": ("family", "k", "ari_own_k"),
    "cuts.csv": ("k", "chosen"),
    "alternatives.csv": ("choice", "moved"),
    "migration.csv": ("previous_cluster", "cluster", "customers"),
    "drift.csv": ("kind",),
    "campaigns.csv": ("cluster",),
    "campaign_results.csv": ("campaign", "cluster", "low", "sent", "held_back"),
}
"""Tables that notebooks of one's own may not write, and the columns asked of them all the same."""

ANCHORS = {"chance": "number", "samples": "number", "repeats": "repeats", "methods": "methods"}
ANCHORS |= {"borderline": "borderline"}
"""Where the report shows what a check rests on."""

DAY = "%B %Y"
TEXTS = ["segment", "variable", "unit", "level", "rule", "toward", "previous_segment", "transition"]
TEXTS += ["band", "event", "role", "action", "choice", "kind", "name"]
TEXTS += ["campaign", "outcome", "wanted", "word"]


class Tables:
    """The tables of a run, and their cells as markup that says where it comes from."""

    def __init__(self, run_dir: Path, manifest: Manifest) -> None:
        run = Run(run_dir)
        self.frames = {
            "run.json": pd.json_normalize(manifest.model_dump(mode="json")),
            "segments.json": pd.json_normalize(run.read_json("segments.json")),
            "run.json/quality": pd.DataFrame(manifest.quality).reset_index(names="number"),
        }
        profile = run.read_table("segment_profiles.csv", text=(*TEXTS,)).fillna({"unit": ""})
        self.frames["segment_profiles.csv"] = profile
        levelled = profile["level"].notna()
        self.features, self.levels = profile[~levelled], profile[levelled]
        texts = (*TEXTS, *self.levels["variable"].unique())
        names = ["segment_rules.csv", "segment_prototypes.csv", "borderline.csv", "changes.csv"]
        for name in names:
            self.frames[name] = run.read_table(name, text=texts)
        choices = run.read_table("k_selection.csv")
        self.frames["k_selection.csv"] = choices[choices["k"] == manifest.k]
        for name, columns in OPTIONAL.items():
            there = (run_dir / "tables" / name).is_file()
            table = run.read_table(name, text=texts) if there else pd.DataFrame(columns=[*columns])
            self.frames[name] = table.fillna({"unit": "", "event": ""})
        choices = self.frames["alternatives.csv"].astype({"moved": float})
        self.frames["alternatives.csv"] = choices.sort_values(
            "moved", ascending=False, kind="stable"
        )
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

    def cell(
        self, name: str, column: str, *, unit: bool = True, tag: str = "data", **where: Any
    ) -> Markup:
        """One figure as people read it, in an element that holds its value and its place."""
        (row,) = self.rows(name, **where)
        kind = column.rpartition(".")[2]
        facts = row | {kind: row[column]} | ({} if unit else {"unit": ""})
        if name == "segment_prototypes.csv":  # a customer's own figure, written like the mean
            kind, like = "mean", self.rows("segment_profiles.csv", variable=column)[0]
            facts = like | {kind: row[column]}
        text = words.write_figure(kind, facts)
        place = f"{name}?{urlencode(where)}#{quote(column)}"
        markup = '<{0} {1}="{2}" data-cell="{3}">{4}</{0}>'
        held = "value" if tag == "data" else "data-value"
        return Markup(markup).format(tag, held, row[column], place, text)


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
    from segmentation.segments import profiles, value

    tables, run = Tables(run_dir, manifest), Run(run_dir)
    frames, selection = tables.frames, run.read_json("selection.json")
    card = read_card(run_dir / "card.yaml")
    segments = run.read_json("segments.json")
    worth = frames["segment_values.csv"].dropna(subset="mean").set_index("cluster")["mean"]
    spending = value.find_spending(card)
    spending = spending if len(worth) or spending in segments[0]["profile"] else ""
    segments = _order(segments, spending, worth.to_dict())
    families = frames["families.csv"]
    agreement = {} if families.empty else sensitivity.explain_families(families)
    changes = run.read_json("changes.json")
    border = frames["borderline.csv"]
    edged = border["borderline"].sum() / max(1, border["customers"].sum())
    centred = (run_dir / "artifacts" / "segmenter.json").is_file()
    checks = findings.check_answer(
        selection, segments, k=int(manifest.k or 1), edged=edged if centred else float("nan"),
        agrees=agreement.get("agrees"),
    )  # fmt: skip
    shown = {each["name"]: each["shown"] for each in segments}
    changed = frames["changes.csv"].replace({"segment": shown, "previous_segment": shown})
    frames["changes.csv"] = changed
    template = pages.environment().get_template("report.html.j2")
    return template.render(
        title=f"{manifest.title} – customer segments",
        csp=pages.CSP,
        style=pages.stylesheet(),
        run=manifest,
        cell=tables.cell,
        rows=tables.rows,
        headline=findings.find_headline(
            frames["segment_values.csv"], frames["value_bands.csv"], tables.features,
            frames["changes.csv"], customers=int(manifest.input["rows_used"]),
        ),
        checks=[_tell_check(check, len(segments)) for check in checks],
        segments=[_describe(segment, tables, len(segments)) for segment in segments[:MOST]],
        others=len(segments) - MOST,
        everyone=_list_features(tables, segments[0]["id"]),
        shown=shown,
        bands=tables.rows("value_bands.csv"),
        divide=_suggest_cut(run.read_table("k_selection.csv")) if manifest.k == 1 else "",
        spending=spending,
        value=next(iter(tables.rows("segment_values.csv")), None),
        money=_draw_money(segments, tables),
        stands_out=bool((tables.levels["marked"] == True).any()),  # noqa: E712 - an object column
        verdict=words.find_verdict(selection),
        methods=agreement,
        selection=selection,
        maps=_draw_maps(run, card, segments, changes),
        descriptors=_list_levels(tables),
        tree=drawings.draw_tree(frames["cuts.csv"]) if len(segments) > 1 else {},
        alternatives=tables.rows("alternatives.csv")[:CHOICES],
        doubt=_weigh_doubt(frames["alternatives.csv"]),
        centred=centred,
        since=_describe_changes(
            tables, segments, changes, day=(manifest.as_of or manifest.started)[:10]
        ),
        worked=_describe_campaigns(tables, segments),
        glossary=words.read_words()["glossary"],
        fewest=words.FEWEST,
        say=words.say,
        lower_first=words.lower_first,
        limits=profiles.summarize_limits(tables.features),
        logged=bool(tables.features["logged"].any()),
        data_date=pages.write_date(manifest.as_of, DAY),
        run_date=pages.write_date(manifest.started[:10], DAY),
    )  # fmt: skip


def _order(
    segments: list[dict[str, Any]], spending: str, worth: dict[int, float]
) -> list[dict[str, Any]]:
    """The segments by what a customer is worth or spends, where that is known; else by their size.

    Each with the name by which the page shows it: its title, where it has one.
    """

    def place(segment: dict[str, Any]) -> tuple[float, int]:
        spent = segment["profile"].get(spending, {"mean": 0.0})["mean"]
        return -worth.get(segment["id"], spent), -segment["size"]

    named = [each | {"shown": each.get("title", each["name"])} for each in segments]
    return sorted(named, key=place)


def _suggest_cut(sweep: pd.DataFrame) -> str:
    """The cut that is best repeated, where none is supported; empty where none was tried."""
    tried = sweep.dropna(subset="ari_mean") if "ari_mean" in sweep else sweep[:0]
    return words.say("divide", tried.loc[tried["ari_mean"].idxmax()]) if len(tried) else ""


def _weigh_doubt(alternatives: pd.DataFrame) -> str:
    """How many customers the choices that were tried would move, in a sentence."""
    if alternatives.empty:
        return ""
    most, least = alternatives.iloc[0], alternatives.iloc[-1]
    facts = {"choices": len(alternatives), "most": most["choice"], "moved": most["moved"]}
    return words.say("doubt", facts | {"least": least["choice"], "share": least["moved"]})


def _tell_check(check: dict[str, Any], k: int) -> dict[str, Any]:
    facts = check | {f"of {check['name']}": 1, "passed": int(check["passed"]), "k": k}
    return check | {"text": words.say("check", facts), "anchor": ANCHORS[check["name"]]}


def _draw_money(segments: list[dict[str, Any]], tables: Tables) -> list[dict[str, Any]]:
    """Each segment's share of the customers over its share of the value, a ribbon between."""
    values = {row["cluster"]: row for row in tables.rows("segment_values.csv")}
    rows = [values.get(each["id"], each) for each in segments]
    if len(rows) < 2:
        return []
    bands, ends = [], [0.0, 0.0]
    shares_of = [(row["share"], row.get("value_share", row["share"])) for row in rows]
    ways = [(i, i, *shares) for i, shares in enumerate(shares_of)]
    ribbons = drawings.draw_ribbons(ways, order=range(len(ways)))
    for ribbon, segment, shares in zip(ribbons, segments, shares_of, strict=True):
        bars = [drawings.draw_bar(end, share) for end, share in zip(ends, shares, strict=True)]
        ends = [end + share for end, share in zip(ends, shares, strict=True)]
        look = {"outline": OUTLINES[find_look(segment["colour"])]}
        facts = {"segment": segment | look, "share": shares[0], "value_share": shares[1]}
        bands.append(facts | {"path": ribbon["path"], "top": bars[0], "bottom": bars[1]})
    return bands


def _draw_maps(
    run: Run, card: Card, segments: list[dict[str, Any]], changes: dict[str, Any]
) -> dict[str, Any]:
    """The small maps, one a segment of five or more, and what parts those that lie together."""
    texts = (card.id, *card.descriptors, *TEXTS)
    customers = run.read_table("clustered_data.csv", text=texts)
    told = [each for each in segments if each["size"] >= words.FEWEST]
    customers = customers[customers["cluster"].isin([each["id"] for each in told])]
    plane = drawings.choose_map(customers, card)
    if len(plane) < 2 or customers.empty:
        return {}
    history = changes.get("history") or [{"segments": []}]
    before = {
        each["id"]: each["centre"]
        for each in history[-1]["segments"]
        if {*plane} <= {*each["centre"]}
    }
    centres = {each["id"]: each["centre"] for each in told}
    maps = drawings.draw_maps(customers, card, plane, centres, before)
    third = drawings.find_third(customers, card, plane)
    return maps | {"third": card.labels[third] if third else None}


def _describe_changes(
    tables: Tables, segments: list[dict[str, Any]], summary: dict[str, Any], *, day: str
) -> dict[str, Any]:
    """What the page says of the previous run: who continues, what happened, the advice."""
    from segmentation.segments import tracking

    if summary["previous"] is None:
        return {}
    table = tables.frames["changes.csv"]
    told = findings.list_continued(table)
    moved = [words.say("moved", _lower(row)) for row in tables.rows("drift.csv", kind="feature")]
    lines = _draw_lines(segments, summary)
    return {
        "run": summary["previous"],
        "day": pages.write_date(summary["previous_day"], DAY),
        "same_day": summary["previous_day"] == day,
        "kept": told.sort_values("points", key=abs, ascending=False).to_dict("records"),
        "lines": lines,
        "roles": [words.say("role", _show(each, segments)) for each in summary["roles"]],
        "events": tracking.describe_transitions(table),
        "movement": words.say("movement", summary) if "came" in summary else "",
        "moved": [sentence for sentence in moved if sentence],
        "flow": _draw_flow(
            tables.frames["migration.csv"], {each["id"]: each["colour"] for each in segments}
        ),
        "word": words.read_words()["advised"][summary["advice"]],
    }


def _describe_campaigns(tables: Tables, segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each campaign did: in words over all, and by segment as sent, with its interval."""
    from segmentation.segments import campaigns

    shown = {each["id"]: each for each in segments}
    results = tables.frames["campaign_results.csv"]
    told = []
    for name, rows in results.groupby("campaign", sort=False):
        facts = [campaigns.find_gain(row) for row in rows.to_dict("records")]
        whole, *parts = facts
        known = [row for row in parts if min(row["sent"], row["held_back"]) >= words.FEWEST]
        drawn = [row for row in known if row["low"] == row["low"]]
        places = drawings.draw_intervals(drawn) if drawn else []
        bars = {row["cluster"]: place for row, place in zip(drawn, places, strict=True)}
        for row in parts:
            now = shown.get(row["cluster"], {})
            same = now.get("name") == row["segment"]
            row |= {"segment": now["shown"] if same else row["segment"]}
            row |= {"colour": now.get("colour", GREY), "bar": bars.get(row["cluster"])}
        lines = [row | {"say": words.say("result", row)} for row in parts]
        told.append(whole | {"name": name, "say": words.say("campaign", whole), "rows": lines})
    return told


def _show(role: dict[str, Any], segments: list[dict[str, Any]]) -> dict[str, Any]:
    """A changed role under the name by which the page shows its segment."""
    shown = {each["name"]: each["shown"] for each in segments}
    same = int(role["role"] == role["previous_role"])
    return role | {"segment": shown[role["segment"]], "same": same}


def _lower(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"variable": words.lower_first(row["variable"])}


def _draw_lines(
    segments: list[dict[str, Any]], summary: dict[str, Any]
) -> dict[int, dict[str, Any]]:
    """A sparkline of each segment's share over the last runs, this one last."""
    runs = [{each["id"]: each["share"] for each in run["segments"]} for run in summary["history"]]
    runs.append({each["id"]: each["share"] for each in segments})
    top = max(share for run in runs for share in run.values())
    return {
        each["id"]: {
            "path": drawings.draw_line([run.get(each["id"]) for run in runs], top=top),
            "colour": each["colour"],
        }
        for each in segments
    }


def _draw_flow(ways: pd.DataFrame, colours: dict[int, str]) -> list[dict[str, Any]]:
    """Bands of customers from their segment then to that now; who came and left in grey."""
    if ways.empty:
        return []
    rows = ways.fillna({"previous_cluster": -1, "cluster": -1})
    known = {*rows["previous_cluster"], *rows["cluster"]}
    order = [
        *(each for each in colours if each in known),
        *sorted(known - {*colours}, reverse=True),
    ]
    gap = 0.12 / max(1, len(order) - 1)
    widths = rows["customers"] / rows["customers"].sum() * 0.88
    paired = zip(rows["previous_cluster"], rows["cluster"], widths, widths, strict=True)
    bands = drawings.draw_ribbons(paired, order=order, gap=gap)
    return [band | {"colour": colours.get(band["from"], GREY)} for band in bands]


def _describe(segment: dict[str, Any], tables: Tables, segments: int) -> dict[str, Any]:
    """A segment as the page shows it: what it is called, its features, what it stands out in."""
    from segmentation.segments import campaigns

    levels = tables.levels[tables.levels["cluster"] == segment["id"]]
    told = segment["size"] >= words.FEWEST
    actions = tables.rows("actions.csv", cluster=segment["id"])
    plans = map(campaigns.find_reach, tables.rows("campaigns.csv", cluster=segment["id"]))
    return segment | {
        "told": told,
        "outline": OUTLINES[find_look(segment["colour"])],
        "features": _list_features(tables, segment["id"]),
        "strongest": _find_strongest(levels),
        "sizes": [words.say("worth", row) for row in actions]
        + [words.say("plan", row) for row in plans],
        "alone": segments == 1,
    }


def _find_strongest(levels: pd.DataFrame) -> pd.Series | None:
    """The marked level of a segment's own that sets it most apart, more before less.

    Of two levels the larger one, for the one says what the other does.
    """
    marked = levels[(levels["marked"] == True) & (levels["customers"] >= words.FEWEST)]  # noqa: E712
    if marked.empty:
        return None
    first = marked.loc[marked["residual"].idxmax()]
    same = levels[levels["variable"] == first["variable"]]
    return same.loc[same["customers"].idxmax()] if len(same) == 2 else first


def _list_features(tables: Tables, cluster: int) -> list[dict[str, Any]]:
    own = tables.features[tables.features["cluster"] == cluster]
    features = []
    for row in own.to_dict("records"):
        symbol = row["unit"] in words.MONEY | {"%"}  # short enough to stand at each figure
        title = row["variable"] if symbol else words.write_title(row["variable"], row["unit"])
        typical = "median" if row["logged"] else "mean"
        more = {"label": row["variable"], "title": title, "symbol": symbol, "typical": typical}
        features.append(row | more | _place(row["effect"]))
    return features


def _place(effect: float) -> dict[str, float]:
    """The bar from everyone's mean to a segment's, in % of the width."""
    at = 50 + 50 * max(-REACH, min(REACH, effect)) / REACH
    return {"start": round(min(at, 50), 1), "length": round(abs(at - 50), 1)}


def _list_levels(tables: Tables) -> dict[str, list[str]]:
    """The levels of each descriptor that the report shows, by the descriptor's label."""
    known = tables.levels.drop_duplicates(["variable", "level"]).groupby("variable", sort=False)
    commonest = {label: rows.nlargest(LEVELS, "overall_share") for label, rows in known}
    return {str(label): rows["level"].to_list() for label, rows in commonest.items()}
