"""What the segments are like: sizes, raw-unit statistics, effects, rules, names, sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import combinations, count
from typing import Any, NotRequired, TypedDict

import numpy as np
import pandas as pd
from tabulate import tabulate

from segmentation import words
from segmentation.clustering import stability
from segmentation.clustering.kmeans import Floats
from segmentation.clustering.preprocessing import measure_association
from segmentation.clustering.selection import Selection, summarize_choice
from segmentation.customers import moments
from segmentation.customers.card import Card, GivenSegment
from segmentation.customers.table import count_customers
from segmentation.palette import PALETTE
from segmentation.words import lower_first

TOLD_IN_NAME = 3
"""Marked features that a name tells at most, the strongest ones."""

MORE, LESS, FEWEST_MARKED = 1.5, 2 / 3, 10
"""A level is marked by a lift beyond these, with so many customers (counted or, for less,
expected)."""

DEPTH, LEAF = 3, 0.05
"""Questions that a rule asks at most, and the least share of customers that it may tell of."""

DOUBTFUL = 0.6
"""A segment with a lower mean Jaccard is not to be trusted (Hennig 2007)."""

ONE_SEGMENT = "One segment holds everyone, so nothing sets it apart."


class Given(TypedDict):
    """A name that the card gives: what it stands for, and where that has stopped holding."""

    stands_for: str
    fails_in: str


class Segment(TypedDict):
    """One entry of `segments.json`; `centre` and `profile` are in raw units."""

    id: int
    name: str
    size: int
    share: float
    centre: dict[str, float]
    profile: dict[str, dict[str, float]]
    colour: str
    given: NotRequired[Given]
    outgrown: NotRequired[list[str]]
    stability: NotRequired[dict[str, float | str]]
    roles: NotRequired[list[str]]
    actions: NotRequired[list[str]]
    sentences: NotRequired[list[str]]


# Statistics --------------------------------------------------------------------------------


def measure_features(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row per cluster and feature, and with an empty cluster per feature of everyone.

    Of a table with a column `cluster`; a row counts as many customers as it stands for. Columns:
    cluster, size, variable (the column), customers (of them those with a value), mean, sd
    (divisor n), min, q25, median, q75, max, in raw units.
    """
    used = table[table["cluster"].notna()]
    groups: list[tuple[Any, pd.DataFrame]] = [(pd.NA, used), *used.groupby("cluster")]
    rows = [
        {"cluster": cluster, "size": round(count_customers(members).sum()), "variable": name}
        | _measure(members[name], count_customers(members))
        for cluster, members in groups
        for name in card.features
    ]
    return pd.DataFrame(rows).astype({"cluster": "Int64"})


def _measure(values: pd.Series, counts: Floats) -> dict[str, float]:
    low, q25, median, q75, high = moments.quantile(values, [0, 0.25, 0.5, 0.75, 1], counts)
    told = {"customers": round(counts[values.notna()].sum())}
    told |= {"mean": moments.mean(values, counts), "sd": moments.sd(values, counts)}
    return told | {"min": low, "q25": q25, "median": median, "q75": q75, "max": high}


def profile_features(measures: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row per segment and feature, in raw units, of what `measure_features` gives.

    Columns: cluster, size, share, variable (the label), unit, mean, sd, min, q25, median, q75,
    max, margin (half a 95 % confidence interval of the mean), overall_mean, overall_sd, effect
    = (mean − overall_mean) / overall_sd, grade of the effect, and explained, the share of the
    feature's variance that lies between the segments.
    """
    own = measures[measures["cluster"].notna()].astype({"cluster": int})
    everyone = measures[measures["cluster"].isna()].set_index("variable")
    explained = explain_variance(measures, card)
    rows = []
    for measure in own.to_dict("records"):
        name = measure["variable"]
        feature, overall = card.features[name], everyone.loc[name]
        rows.append(
            {
                "cluster": measure["cluster"],
                "size": measure["size"],
                "share": measure["size"] / overall["size"],
                "variable": feature.label,
                "unit": feature.unit,
                **_compare(measure, overall),
                "explained": explained[feature.label],
            }
        )
    return pd.DataFrame(rows)


FIGURES = ["mean", "sd", "min", "q25", "median", "q75", "max"]


def _compare(measure: dict[Any, Any], overall: pd.Series) -> dict[str, Any]:
    figures = {name: measure[name] for name in FIGURES}
    if not measure["customers"]:  # filled with everyone's median before the distance saw them
        figures = dict.fromkeys(FIGURES, overall["median"]) | {"sd": 0.0}
    spread = overall["sd"]
    effect = (figures["mean"] - overall["mean"]) / spread if spread else 0.0
    return {
        **figures,
        "margin": 1.96 * figures["sd"] / np.sqrt(max(1, measure["customers"])),
        **{"overall_mean": overall["mean"], "overall_sd": spread, "effect": effect},
        "grade": words.grade(effect),
    }


def explain_variance(measures: pd.DataFrame, card: Card) -> pd.Series:
    """The share of each feature's variance that lies between the segments, by label (0…1)."""
    shares = {}
    for name, rows in measures.groupby("variable", sort=False):
        overall, own = rows[rows["cluster"].isna()].iloc[0], rows[rows["cluster"].notna()]
        between = moments.sd(own["mean"], own["size"] * own["mean"].notna()) ** 2
        shares[card.label(str(name))] = between / overall["sd"] ** 2 if overall["sd"] else 0.0
    return pd.Series(shares)


def measure_levels(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """How many customers of a table with a column `cluster` have each level of each descriptor.

    Columns: cluster (empty for everyone), variable (the column), level, customers.
    """
    used = table[table["cluster"].notna()]
    counts = pd.Series(count_customers(used), index=used.index, name="customers")
    parts = []
    for name in card.descriptors:
        levels = used[name].fillna("missing").rename("level")
        each = counts.groupby([used["cluster"], levels]).sum().reset_index()
        everyone = counts.groupby(levels).sum().reset_index().assign(cluster=pd.NA)
        parts.append(pd.concat([everyone, each]).assign(variable=name))
    columns = ["cluster", "variable", "level", "customers"]
    if not parts:
        return pd.DataFrame(columns=columns)
    counted = pd.concat(parts, ignore_index=True)[columns]
    counted["customers"] = counted["customers"].round()
    return counted.astype({"cluster": "Int64", "customers": int})


def profile_levels(counted: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row per segment and level of each descriptor, of what `measure_levels` gives.

    Columns: cluster, size, share, variable (the label), level, customers, level_share (of the
    segment), overall_share, lift = level_share / overall_share, and whether the level is marked.
    """
    tables = [
        _compare_levels(rows.drop(columns="variable"), card.label(str(name)))
        for name, rows in counted.groupby("variable", sort=False)
    ]
    columns = ["cluster", "size", "share", "variable", "level", "customers", "level_share"]
    columns += ["overall_share", "lift", "marked"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _compare_levels(counted: pd.DataFrame, label: str) -> pd.DataFrame:
    known = counted["cluster"].notna()
    everyone = counted[~known].set_index("level")["customers"]
    wide = counted[known].pivot(index="cluster", columns="level", values="customers").fillna(0)
    table = wide.astype(int).stack().rename("customers").reset_index()
    table = table.astype({"cluster": int})
    sizes = wide.sum(axis=1)
    table.insert(1, "size", table["cluster"].map(sizes).astype(int))
    table.insert(2, "share", table["size"] / sizes.sum())
    table.insert(3, "variable", label)
    table["level_share"] = table["customers"] / table["size"]
    table["overall_share"] = table["level"].map(everyone / everyone.sum())
    table["lift"] = table["level_share"] / table["overall_share"]
    more = (table["lift"] >= MORE) & (table["customers"] >= FEWEST_MARKED)
    expected = table["overall_share"] * table["size"]
    table["marked"] = more | (table["lift"] <= LESS) & (expected >= FEWEST_MARKED)
    return table


def identify_clusters(table: pd.DataFrame, segments: list[Segment]) -> pd.DataFrame:
    """A table whose clusters are positions in the model with the ids of its segments instead."""
    ids = {position: segment["id"] for position, segment in enumerate(segments)}
    return table.assign(cluster=table["cluster"].map(ids).astype("Int64"))


def join_profiles(profile: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    """Both profiles as one table, features first; cells that do not apply are empty."""
    return pd.concat([profile, levels], ignore_index=True).astype({"customers": "Int64"})


def find_rules(table: pd.DataFrame, card: Card, *, seed: int = 0) -> pd.DataFrame:
    """One short rule a segment, from a decision tree of three questions on the raw features.

    Columns: cluster, size, rule (in words; empty where no leaf is the segment's), customers (for
    whom it is true), hits (of them in the segment), precision = hits / customers, coverage =
    hits / size, and fidelity, the share of all customers whom the tree puts into their segment.
    Thresholds are rounded first, so that the words and the figures agree.
    """
    used = table[table["cluster"].notna()]
    medians = {n: moments.quantile(used[n], 0.5, count_customers(used)) for n in card.features}
    values = used[list(card.features)].fillna(medians)
    weights = pd.Series(count_customers(used), index=used.index)
    grown = _grow(values, used["cluster"], weights, seed)
    leaves = [(bounds, _fulfil(values, bounds)) for bounds in grown]
    counts = [_count_clusters(used[inside]) for _, inside in leaves]
    sizes = _count_clusters(used).sort_index()
    fidelity = sum(count.max() for count in counts) / weights.sum()
    spreads = _measure_spreads(values, weights)
    rows = []
    for cluster, size in sizes.items():
        own = [i for i, count in enumerate(counts) if count.idxmax() == cluster and leaves[i][0]]
        best = max(own, key=lambda i: counts[i][cluster], default=None)
        customers = int(counts[best].sum()) if best is not None else 0
        hits = int(counts[best][cluster]) if best is not None else 0
        rule = _write_rule(leaves[best][0], card, spreads) if best is not None else ""
        rows.append((cluster, size, rule, customers, hits, hits / max(1, customers), hits / size))
    columns = ["cluster", "size", "rule", "customers", "hits", "precision", "coverage"]
    return pd.DataFrame(rows, columns=columns).assign(fidelity=fidelity)


Bounds = dict[str, tuple[float, float]]


def _count_clusters(used: pd.DataFrame) -> pd.Series:
    """Customers by cluster, most first."""
    counts = pd.Series(count_customers(used), index=used.index)
    grouped = counts.groupby(used["cluster"]).sum().round().astype(int)
    return grouped.sort_values(ascending=False, kind="stable")


def _grow(values: pd.DataFrame, clusters: pd.Series, weights: pd.Series, seed: int) -> list[Bounds]:
    """The leaves of a shallow tree: for each, the range (above, at most) of the features asked.

    A question whose answers lead to the same segment is not asked.
    """
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=DEPTH, min_weight_fraction_leaf=LEAF, random_state=seed)
    grown = tree.fit(values.to_numpy(), clusters.astype(int), sample_weight=weights).tree_
    decimals = _measure_spreads(values, weights).map(words.count_decimals)

    def walk(node: int, bounds: Bounds) -> list[tuple[Bounds, int]]:
        majority = int(grown.value[node].argmax())
        if grown.feature[node] < 0:
            return [(bounds, majority)]
        name = values.columns[grown.feature[node]]
        cut = round(float(grown.threshold[node]), int(decimals[name]))
        low, high = bounds.get(name, (-np.inf, np.inf))
        below = walk(grown.children_left[node], bounds | {name: (low, min(high, cut))})
        above = walk(grown.children_right[node], bounds | {name: (max(low, cut), high)})
        needless = {answer for _, answer in below + above} == {majority}
        return [(bounds, majority)] if needless else below + above

    return [bounds for bounds, _ in walk(0, {})]


def _measure_spreads(values: pd.DataFrame, weights: pd.Series) -> pd.Series:
    return pd.Series({name: moments.sd(values[name], weights) for name in values})


def _fulfil(values: pd.DataFrame, bounds: Bounds) -> pd.Series:
    inside = pd.Series(True, index=values.index)
    for name, (low, high) in bounds.items():
        inside &= (values[name] > low) & (values[name] <= high)
    return inside


def _write_rule(bounds: Bounds, card: Card, spreads: pd.Series) -> str:
    parts = []
    for name, feature in card.features.items():
        if name in bounds:
            low, high = (words.write_measure(bound, spreads[name]) for bound in bounds[name])
            ends = f"above {low} up to {high}" if low != "-inf" else f"at most {high}"
            ends = f"above {low}" if high == "inf" else ends
            parts.append(f"{lower_first(feature.label)} {ends} {feature.unit}".strip())
    return words.upper_first(words.join(parts))


def find_prototypes(clustered: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row a segment: the figures of the customer nearest its centre, without the id."""
    used = clustered[clustered["cluster"].notna()]
    largest = _count_clusters(used)
    nearest = used.loc[used.groupby("cluster")["distance"].idxmin()[largest.index]]
    columns = {"cluster": "cluster", "segment": "segment"}
    columns |= {name: card.label(name) for name in [*card.features, *card.descriptors]}
    return nearest[list(columns)].rename(columns=columns).reset_index(drop=True)


# Names -------------------------------------------------------------------------------------


def name_segments(
    profile: pd.DataFrame,
    kinds: dict[str, str] | None = None,
    *,
    kept: Mapping[int, str] | None = None,
    former: Iterable[str] = (),
) -> dict[int, str]:
    """A plain name per cluster from its own marked features, unique within the run.

    `kinds` holds what a feature means by its label, `kept` the names that clusters have already,
    `former` names not to be given anew. Names that coincide are told apart by finer words, then by
    further features, then by number.
    """
    effects = profile.pivot(index="cluster", columns="variable", values="effect")
    effects = effects[list(dict.fromkeys(profile["variable"]))]
    rows = {int(str(cluster)): row for cluster, row in effects.iterrows()}
    if len(rows) == 1:
        return dict.fromkeys(rows, "All customers")
    kinds = {label: (kinds or {}).get(label, words.find_kind(label)) for label in effects}
    kept, former = kept or {}, {*former}
    names = {c: _phrase(row, kinds) for c, row in rows.items()} | {**kept}
    for more in range(len(effects.columns)):
        given = [*names.values()]
        twice = [c for c, name in names.items() if given.count(name) > 1 or name in former]
        names |= {c: _phrase(rows[c], kinds, fine=True, more=more) for c in {*twice} - {*kept}}
    return _number({**kept, **names}, former - {*kept.values()})


def _phrase(effects: pd.Series, kinds: dict[str, str], *, fine: bool = False, more: int = 0) -> str:
    """Words for the strongest marked features, and for so many more, in the card's order."""
    strongest = effects.abs().sort_values(ascending=False, kind="stable")
    marked = min(int((strongest >= words.MARKER).sum()), TOLD_IN_NAME)
    told = set(strongest.index[: marked + more])
    phrase = ", ".join(
        words.describe_grade(label, kinds[label], words.grade(effects[label]), fine=fine)
        for label in effects.index
        if label in told
    )
    return words.upper_first(phrase) or "Near the average"


def _number(names: dict[int, str], former: Iterable[str] = ()) -> dict[int, str]:
    """Tell apart names that all features together do not; who comes first keeps the name."""
    numbered, taken = {}, {*former}
    for cluster, name in names.items():
        tried = (f"{name} ({number})" if number > 1 else name for number in count(1))
        numbered[cluster] = next(each for each in tried if each not in taken)
        taken.add(numbered[cluster])
    return numbered


def find_outgrown(name: str, effects: pd.Series, kinds: dict[str, str]) -> list[str]:
    """The words of a kept name that are not among those that the effects (by label) give today."""
    today = {
        words.describe_grade(str(label), kinds[str(label)], words.grade(effect), fine=fine)
        for label, effect in effects.items()
        for fine in (False, True)
    } | {lower_first(_phrase(effects, kinds))}
    rest = f", {lower_first(re.sub(r' [(][0-9]+[)]$', '', name))}, "
    for phrase in sorted(today, key=len, reverse=True):
        rest = rest.replace(f", {phrase}, ", ", ")
    return [part for part in rest.split(", ") if part]


def match_names(grades: pd.DataFrame, given: Iterable[GivenSegment]) -> dict[int, GivenSegment]:
    """Which cluster gets which of the card's names, of grades (clusters × labels).

    First where all that a name stands for holds; then, for names left, where at least half does
    and the rest is merely average. Among several, where it is most pronounced.
    """
    found: dict[int, GivenSegment] = {}
    for strict in (True, False):
        for name in given:
            known = name not in found.values() and set(name.when) <= set(grades.columns)
            free = grades.drop(index=list(found)) if known else grades.iloc[:0]
            fit = {c: row for c, row in free.iterrows() if _fits(name, row, strict=strict)}
            if fit:
                best = max(fit, key=lambda c: fit[c][list(name.when)].abs().sum())
                found[int(str(best))] = name
    return found


def _fits(name: GivenSegment, grades: pd.Series, *, strict: bool) -> bool:
    failing = find_failing(name, grades)
    if strict or not failing:
        return not failing
    return len(failing) <= len(name.when) / 2 and all(abs(grades[f]) < 2 for f in failing)


def find_failing(name: GivenSegment, grades: pd.Series) -> list[str]:
    """The features in which a segment is not what its name stands for."""
    return [v for v, word in name.when.items() if not words.holds({v: word}, {v: grades[v]})]


def list_segments(
    profile: pd.DataFrame,
    centres: pd.DataFrame,
    card: Card,
    *,
    kept: Mapping[int, Segment] | None = None,
    former: Iterable[Segment] = (),
) -> list[Segment]:
    """The core of `segments.json`: one entry per cluster, in the order of the model's positions.

    `centres` (k, p) holds the centroids in raw units, one row a position, raw column names;
    `former` the segments of the previous run and `kept` those that a position survives: it takes
    the name over unless the card gives one. No other segment gets a name that was in use.
    """
    grades = profile.pivot(index="cluster", columns="variable", values="grade")
    given = match_names(grades, card.segments)
    of_card = {name.name for name in card.segments}
    known = {p: s["name"] for p, s in (kept or {}).items() if s["name"] not in of_card}
    used = [segment["name"] for segment in former]
    names = name_segments(profile, card.kinds, kept=known, former=used)
    names |= {c: name.name for c, name in given.items()}
    first = {c: names[c] for c in [*given, *known, *names]}  # who has a name goes before its likes
    names = _number(first)
    segments: list[Segment] = []
    for cluster, rows in profile.groupby("cluster", sort=True):
        position = int(str(cluster))
        figures = rows.set_index("variable")[["mean", "sd", "median", "effect"]]
        segments.append(
            {
                "id": position,
                "name": names[position],
                "size": int(rows["size"].iloc[0]),
                "share": float(rows["share"].iloc[0]),
                "centre": {str(c): float(v) for c, v in centres.loc[position].items()},
                "profile": {str(v): _floats(row) for v, row in figures.iterrows()},
                "colour": PALETTE[position % len(PALETTE)],
            }
        )
        if position in given:
            segments[-1]["given"] = _tell_given(given[position], grades.loc[position])
        elif position in known and len(names) > 1:
            effects = rows.set_index("variable")["effect"]
            segments[-1]["outgrown"] = find_outgrown(known[position], effects, card.kinds)
    return segments


def _floats(row: pd.Series) -> dict[str, float]:
    return {str(key): float(value) for key, value in row.items()}


def _tell_given(name: GivenSegment, grades: pd.Series) -> Given:
    stands_for = words.join(f"{lower_first(v)} {word}" for v, word in name.when.items())
    return {"stands_for": stands_for, "fails_in": words.join(find_failing(name, grades))}


def add_stability(segments: list[Segment], jaccards: Floats, within: Floats) -> list[Segment]:
    """The segments with their Jaccards (resamples, k) and SLSw (pairs, k) summed up.

    found counts the resamples in which a segment came back, dissolved the others.
    """
    means, dissolved = jaccards.mean(axis=0), stability.dissolutions(jaccards)
    return [
        {
            **segment,
            "stability": {
                "jaccard": float(means[position]),
                "band": stability.name_band(float(means[position])),
                "found": len(jaccards) - int(dissolved[position]),
                "dissolved": int(dissolved[position]),
                "resamples": len(jaccards),
                "slsw": float(within[:, position].mean()),
            },
        }
        for position, segment in enumerate(segments)
    ]


# Sentences, roles and actions ----------------------------------------------------------------


def add_words(
    segments: list[Segment],
    profile: pd.DataFrame,
    levels: pd.DataFrame,
    rules: pd.DataFrame,
    card: Card,
) -> list[Segment]:
    """The segments with their sentences, roles and actions; the card's own come first."""
    told = []
    for segment in segments:
        own = [rows[rows["cluster"] == segment["id"]] for rows in (profile, levels, rules)]
        role = find_role(own[0], card, segment, len(segments))
        sentences = describe_segment(segment, *own, segments=len(segments))
        words_of: Any = {"roles": [role["role"]], "actions": [role["action"]]}
        told.append(segment | words_of | {"sentences": sentences})
    return told


def find_role(profile: pd.DataFrame, card: Card, segment: Segment, segments: int) -> dict[str, str]:
    """What a segment is to the business and one suggestion, of its rows of the profile."""
    grades = dict(zip(profile["variable"], profile["grade"], strict=True))
    by_kind = {kind: grades[v] for v in reversed(list(grades)) if (kind := card.kinds[v])}
    markers = int((profile["effect"].abs() >= words.MARKER).sum())
    facts = {**by_kind, "markers": markers, "segments": segments}
    entry = dict(words.pick(words.read_words()["roles"], facts))
    own = next((g for g in card.segments if g.name == segment["name"]), None)
    given = own.model_dump(include={"role", "action"}, exclude_defaults=True) if own else {}
    return entry | given


def describe_segment(
    segment: Segment,
    profile: pd.DataFrame,
    levels: pd.DataFrame,
    rules: pd.DataFrame,
    *,
    segments: int,
) -> list[str]:
    """Sentences on one segment, each true of its own rows; the most telling feature first."""
    facts = {**segment, **segment.get("stability", {}), "segments": segments}
    facts |= {"segment": segment["name"]}
    told = [words.say("size", facts)]
    if given := segment.get("given"):
        told.append(words.say("name", {**given, "failing": len(given["fails_in"])}))
    if segment["size"] < words.FEWEST:
        return told
    telling = profile.sort_values("effect", key=abs, ascending=False, kind="stable")
    told += [words.say("feature", row | {"segments": segments}) for row in _each(telling)]
    for _, rows in levels.groupby("variable", sort=False):
        told += _describe_levels(rows, segments)
    if segments > 1:
        told += [words.say("rule", row) for row in _each(rules)]
    if segments > 1 and "stability" in segment:
        told.append(words.say("stability", facts))
    return told


def _describe_levels(rows: pd.DataFrame, segments: int) -> list[str]:
    """The marked levels of one descriptor, else its commonest level."""
    marked = rows[rows["marked"]]
    if marked.empty:
        commonest = rows.loc[[rows["customers"].idxmax()]]
        return [words.say("mix", row | {"segments": segments}) for row in _each(commonest)]
    return [words.say("level", row) for row in _each(marked)]


def _each(rows: pd.DataFrame) -> list[dict[str, Any]]:
    records = rows.fillna({"unit": ""}) if "unit" in rows else rows
    return [{str(key): value for key, value in r.items()} for r in records.to_dict("records")]


def list_warnings(segments: list[Segment], card: Card) -> list[str]:
    """What a reader has to know before acting, a sentence each."""
    warned = []
    placed = {segment["name"] for segment in segments}
    for segment in segments:
        if segment["size"] < words.FEWEST:
            warned.append(f"“{segment['name']}” has fewer than {words.FEWEST} customers.")
        if fails := segment.get("given", {}).get("fails_in"):
            warned.append(f"The name “{segment['name']}” no longer holds for {fails}.")
        if outgrown := [f"“{part}”" for part in segment.get("outgrown", [])]:
            hold = "holds" if len(outgrown) == 1 else "hold"
            told = f"but {words.join(outgrown)} no longer {hold}"
            warned.append(f"“{segment['name']}” kept its name from the last run, {told}.")
        jaccard = float(segment.get("stability", {}).get("jaccard", 1.0))
        if len(segments) > 1 and jaccard < DOUBTFUL:
            warned.append(f"“{segment['name']}” often dissolves when customers are drawn anew.")
    gone = [f"“{given.name}”" for given in card.segments if given.name not in placed]
    if gone:
        warned.append(f"The card names {words.join(gone)}, but no segment is like that.")
    return warned


# For people ----------------------------------------------------------------------------------


def summarize_stability(segments: list[Segment]) -> str:
    """Which segments come back and which do not, in a sentence."""
    if len(segments) == 1:
        return "One segment holds everyone, so it always comes back."
    jaccards = {s["name"]: float(s["stability"]["jaccard"]) for s in segments}
    worst = min(segments, key=lambda s: jaccards[s["name"]])
    figures = worst["stability"]
    return (
        f"Mean Jaccards run from {min(jaccards.values()):.2f} to {max(jaccards.values()):.2f}; the "
        f"least certain segment, “{worst['name']}”, is {figures['band']} and dissolved in "
        f"{figures['dissolved']} of {figures['resamples']} resamples."
    )


def summarize_gorges(similarities: Floats) -> str:
    """How deep the gorge between members and others is, in a sentence."""
    if similarities.shape[1] == 1:
        return "With one segment everyone is its member."
    middle = float(((similarities > 1 / 3) & (similarities < 2 / 3)).mean())
    return (
        f"{middle:.0%} of the similarities lie in the middle third; natural segments pile up at "
        "both ends, with a gorge between."
    )


def name_clusters(table: pd.DataFrame, segments: list[Segment]) -> pd.DataFrame:
    """A profile in the order of the segments, their names in a second column `segment`."""
    names = {segment["id"]: segment["name"] for segment in segments}
    places = {cluster: place for place, cluster in enumerate(names)}
    named = table.sort_values("cluster", key=lambda c: c.map(places), kind="stable")
    named = named.reset_index(drop=True)
    named.insert(1, "segment", named["cluster"].map(names))
    return named


def tabulate_profile(profile: pd.DataFrame) -> pd.DataFrame:
    """For people: one row a segment, mean ± sd of each feature in raw units, everyone last."""
    rows = []
    for segment, figures in profile.groupby("segment", sort=False):
        first = figures.iloc[0]
        row = {
            "Segment": segment,
            "Customers": f"{first['size']:,}",
            "Share": f"{first['share']:.1%}",
        }
        rows.append(row | {_title(f): _spread(f) for f in _each(figures)})
    everyone = profile.drop_duplicates("variable")
    total = int(profile.drop_duplicates("cluster")["size"].sum())
    row = {"Segment": "Everyone", "Customers": f"{total:,}", "Share": f"{1:.1%}"}
    rows.append(row | {_title(f): _write(f, "overall_mean") for f in _each(everyone)})
    return pd.DataFrame(rows)


def _write(figure: dict[str, Any], name: str) -> str:
    return words.write_measure(figure[name], figure["overall_sd"])


def _spread(figure: dict[str, Any]) -> str:
    return f"{_write(figure, 'mean')} ± {_write(figure, 'sd')}"


def _title(figure: dict[str, Any]) -> str:
    return f"{figure['variable']} ({figure['unit']})" if figure["unit"] else str(figure["variable"])


def tabulate_levels(levels: pd.DataFrame) -> pd.DataFrame:
    """For people: one row a segment and descriptor, the share of each level, everyone last."""
    tables = []
    for variable, rows in levels.groupby("variable", sort=False):
        shares = rows.pivot(index="segment", columns="level", values="level_share")
        shares = shares.loc[rows["segment"].unique()]
        shares.loc["Everyone"] = rows.drop_duplicates("level").set_index("level")["overall_share"]
        shares.columns = [f"{variable}: {level}" for level in shares.columns]
        tables.append(shares.map("{:.1%}".format))
    return pd.concat(tables, axis=1).rename_axis("Segment").reset_index() if tables else levels


def summarize_map(profile: pd.DataFrame, axes: list[str]) -> str:
    """Who lies where on the map's axes (labels), in a sentence an axis."""
    if profile["cluster"].nunique() == 1:
        return ONE_SEGMENT
    told = []
    for label in axes:
        rows = profile[profile["variable"] == label].set_index("segment")
        ends = {"highest": rows["mean"].idxmax(), "lowest": rows["mean"].idxmin()}
        told.append(words.say("axis", {**rows.iloc[0], **ends}))
    return " ".join(told)


def summarize_separation(profile: pd.DataFrame) -> str:
    """On which feature the segments differ most and least, in a sentence."""
    if profile["cluster"].nunique() == 1:
        return ONE_SEGMENT
    shares = profile.drop_duplicates("variable").set_index("variable")["explained"]
    shares = shares.sort_values(kind="stable")
    return (
        f"They differ most in {lower_first(str(shares.index[-1]))} ({shares.iloc[-1]:.0%} of its "
        f"variance lies between them) and least in {lower_first(str(shares.index[0]))} "
        f"({shares.iloc[0]:.0%})."
    )


def summarize_effects(profile: pd.DataFrame) -> str:
    """What each segment stands out in, in its own unit, in a phrase a segment."""
    if profile["cluster"].nunique() == 1:
        return ONE_SEGMENT
    phrases = []
    for segment, rows in profile.groupby("segment", sort=False):
        f = _each(rows.loc[[rows["effect"].abs().idxmax()]])[0]
        mean, everyone = words.write_figure("mean", f), _write(f, "overall_mean")
        phrases.append(f"{segment}: {lower_first(f['variable'])} {mean} (everyone {everyone})")
    return "; ".join(phrases) + "."


def summarize_overlap(profile: pd.DataFrame) -> str:
    """Which two segments are hardest to tell apart by one feature, in a sentence."""
    means = profile.pivot(index="segment", columns="variable", values="mean")
    spreads = profile.pivot(index="segment", columns="variable", values="sd")
    gaps = {}
    for a, b in combinations(means.index, 2):
        pooled = np.sqrt((spreads.loc[a] ** 2 + spreads.loc[b] ** 2) / 2).replace(0, np.nan)
        gaps[a, b] = ((means.loc[a] - means.loc[b]).abs() / pooled).fillna(0.0)
    if not gaps:
        return "With one segment nothing can overlap."
    a, b = min(gaps, key=lambda pair: float(gaps[pair].max()))
    widest = str(gaps[a, b].idxmax())
    return (
        f"Hardest to tell apart by one feature: “{a}” and “{b}”, whose means differ most in "
        f"{lower_first(widest)}, by {gaps[a, b][widest]:.1f} of their own standard deviations."
    )


def summarize_segments(segments: list[Segment]) -> str:
    """Who is in the segments, largest first, in a sentence."""
    listed = sorted(segments, key=lambda segment: -segment["size"])
    return "; ".join(f"{s['name']} ({s['size']:,}, {s['share']:.1%})" for s in listed) + "."


def summarize_descriptors(table: pd.DataFrame, card: Card) -> str:
    """How much each descriptor tells about the segment, in a sentence a descriptor."""
    used = table[table["cluster"].notna()]
    if used["cluster"].nunique() < 2 or not card.descriptors:
        return "There is no second segment, or no descriptor, to compare."
    sentences = []
    for name, descriptor in card.descriptors.items():
        v = measure_association(used["cluster"], used[name], count_customers(used))
        word = "hardly differs" if v < 0.1 else "differs a little" if v < 0.3 else "differs clearly"
        sentences.append(f"{descriptor.label} {word} between the segments (Cramér's V {v:.2f}).")
    return " ".join(sentences)


def tabulate_actions(segments: list[Segment]) -> pd.DataFrame:
    """For people: one row a segment, its role and the action suggested."""
    rows = [(s["name"], words.join(s["roles"]), " ".join(s["actions"])) for s in segments]
    return pd.DataFrame(rows, columns=["Segment", "Role", "Action"])


def find_large(segments: list[Segment]) -> list[Segment]:
    """The segments whose figures may be told: five customers or more."""
    return [segment for segment in segments if segment["size"] >= words.FEWEST]


def summarize_rules(rules: pd.DataFrame) -> str:
    """How much of the segmentation the short rules tell, in a sentence."""
    if len(rules) == 1:
        return ONE_SEGMENT
    told = int(((rules["precision"] >= 0.5) & (rules["hits"] >= words.FEWEST)).sum())
    return (
        f"Three questions or fewer put {rules['fidelity'].iloc[0]:.1%} of the customers into their "
        f"own segment; {told} of {len(rules)} segments have a rule that tells them."
    )


def summarize_limits(profile: pd.DataFrame) -> str:
    """What the data cannot support, in two sentences with their figures."""
    smallest = profile[profile["cluster"] == profile.loc[profile["size"].idxmin(), "cluster"]]
    widest = (smallest["margin"] / smallest["overall_sd"].where(lambda sd: sd > 0)).fillna(0)
    facts = _each(smallest.loc[[widest.idxmax()]])[0]
    facts |= {"segments": profile["cluster"].nunique(), "variable": lower_first(facts["variable"])}
    limit = words.say("limits", facts)
    return f"{limit} One table at one time shows who is alike, not why, nor who will move."


def write_summary(
    title: str, choice: Selection, profile: pd.DataFrame, segments: list[Segment]
) -> str:
    """The findings in plain text, with the statistics table (mean ± sd in raw units)."""
    rows = tabulate_profile(profile)
    table = tabulate(
        rows.to_numpy().tolist(),
        headers=list(rows.columns),
        tablefmt="simple",
        disable_numparse=True,
        stralign="right",
        colalign=("left",),
    )
    told = [
        "\n".join([*s["sentences"], f"Role: {words.join(s['roles'])}.", *s["actions"]])
        for s in segments
    ]
    parts = [title, summarize_choice(choice), table, *told, summarize_limits(profile)]
    return "\n\n".join(parts) + "\n"
