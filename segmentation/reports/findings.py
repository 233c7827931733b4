"""What the report says first: the finding that leads it, and the checks that it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from segmentation import words

Facts = dict[str, Any]

ALIKE, APART = 0.35, 1.5
"""Standard deviations: two segments are alike in a feature up to the first, far apart from the
second on."""

LOOKED_AT = 10
"""Segments, the largest, among which a contrast is looked for."""

CLEAR = 3.0
"""Standard errors of a share from which its change is a headline."""

FIRM, OFTEN, EDGED = 0.75, 0.8, 0.1
"""A mean Jaccard, a share of samples and a share of borderline customers that a check wants."""


def find_headline(
    values: pd.DataFrame, bands: pd.DataFrame, features: pd.DataFrame, changes: pd.DataFrame,
    *, customers: int,
) -> str:  # fmt: skip
    """The finding that leads the report: the first `headline` in words.yaml that is true.

    Of the tables segment_values.csv, value_bands.csv, the features of segment_profiles.csv and
    changes.csv: how far value is concentrated, what changed most, what parts two segments that
    are alike, how many there are.
    """
    facts = {"k": features["cluster"].nunique(), "customers": customers}
    facts |= measure_concentration(values, bands) | find_change(changes) | find_contrast(features)
    return words.upper_first(words.say("headline", facts))


def measure_concentration(values: pd.DataFrame, bands: pd.DataFrame) -> Facts:
    """The segments that bring most beyond their share, as fractions; of one segment, the top tenth.

    Facts: lead (share of the value less that of the customers), few, much and of_value in words.
    """
    if values.empty:
        return {}
    if len(values) > 1:
        rows = values.sort_values("mean", ascending=False)[["share", "value_share"]].cumsum()
    else:
        part = bands["customers"] / bands["customers"].sum()
        rows = pd.DataFrame({"share": part, "value_share": bands["value_share"]}).cumsum()
    if rows.empty:
        return {}
    share, value_share = rows.loc[(rows["value_share"] - rows["share"]).idxmax()]
    return {
        "lead": float(value_share - share),
        "few": words.write_fraction(share),
        "much": words.write_fraction(value_share),
        "of_value": words.lower_first(values["variable"].iloc[0]),
    }


def list_continued(changes: pd.DataFrame) -> pd.DataFrame:
    """The rows of changes.csv of segments that continue and may be told of, then and now."""
    kept = changes.dropna(subset="points")
    return kept[kept[["previous_size", "size"]].min(axis=1) >= words.FEWEST]


def find_change(changes: pd.DataFrame) -> Facts:
    """The segment whose share moved most since the previous run, where that is clear of chance."""
    kept = list_continued(changes)
    if kept.empty:
        return {}
    then, now = kept["previous_share"].astype(float), kept["share"].astype(float)
    variance = then * (1 - then) * then / kept["previous_size"].astype(float)
    variance += now * (1 - now) * now / kept["size"].astype(float)
    clear = (now - then).abs().where((now - then).abs() >= CLEAR * variance**0.5)
    if clear.isna().all():
        return {}
    row = kept.loc[clear.idxmax()]
    return {"moved_points": float(row["points"]), **row[["segment", "previous_share", "share"]]}


def find_contrast(features: pd.DataFrame) -> Facts:
    """Two segments that a figure parts the farthest, and what they are alike in, if in anything.

    Facts: gap (standard deviations), alike (1 where they share a marked feature), shared,
    variable, high and low.
    """
    told = features[features["size"] >= words.FEWEST]
    largest = told.drop_duplicates("cluster").nlargest(LOOKED_AT, "size")["cluster"]
    told = told[told["cluster"].isin(largest)]
    effects = told.pivot(index="cluster", columns="variable", values="effect")
    found: list[tuple[int, float, int, int, str, str]] = []
    for above in effects.index:
        for below in effects.index.drop(above):
            gaps = effects.loc[above] - effects.loc[below]
            marked = effects.loc[[above, below]].abs().min() >= words.MARKER
            shared = gaps.abs()[(gaps.abs() <= ALIKE) & marked]
            variable = gaps.idxmax()
            gap, same = float(gaps[variable]), shared.idxmin() if len(shared) else ""
            found.append((int(bool(same) and gap >= APART), gap, above, below, variable, same))
    if not found:
        return {}
    _, gap, above, below, variable, same = max(found, key=lambda each: each[:2])
    facts: Facts = {"gap": gap, "alike": int(bool(same)), "shared": words.lower_first(same)}
    facts |= {"high": _tell(told, above, variable, ""), "low": _tell(told, below, variable)}
    return facts | {"variable": words.lower_first(variable)}


def _tell(features: pd.DataFrame, cluster: int, variable: str, unit: str | None = None) -> str:
    """A segment's typical figure, with the feature's unit where no other is given."""
    own = (features["cluster"] == cluster) & (features["variable"] == variable)
    row = features[own].iloc[0]
    kind = "median" if row["logged"] else "mean"
    own = (row["unit"] or "") if unit is None or row["unit"] in words.MONEY else unit
    return words.write_figure(kind, dict(row) | {"unit": own})


def check_answer(
    selection: Mapping[str, Any], segments: Sequence[Mapping[str, Any]], *, k: int, edged: float,
    agrees: bool | None,
) -> list[Facts]:  # fmt: skip
    """The checks that an answer rests on: name, whether it is passed, and its figures.

    `edged` is the share of customers on a border; `agrees` whether another method finds nearly
    the same, None where none was asked. What was not examined is no check.
    """
    counts: Mapping[str, int] = selection.get("shares", {})
    same = sum(n for answer, n in counts.items() if int(answer.split()[0]) == k)
    samples = sum(counts.values())
    checks: list[Facts] = []
    if k > 1:
        clear = selection["verdict"] in ("natural", "reproducible") or (
            selection.get("reading") == "clear"
        )
        checks.append({"name": "chance", "passed": clear})
        jaccards = [s["stability"] for s in segments if "stability" in s]
        if jaccards:
            least = min(jaccards, key=lambda each: each["jaccard"])
            passed = least["jaccard"] >= FIRM
            checks.append({"name": "repeats", "passed": passed, **least})
    if agrees is not None:
        checks.append({"name": "methods", "passed": agrees})
    if k > 1 and edged == edged:
        checks.append({"name": "borderline", "passed": edged <= EDGED, "share": edged})
    if samples:
        passed = same / samples >= OFTEN
        checks.append({"name": "samples", "passed": passed, "same": same, "samples": samples})
    return checks
