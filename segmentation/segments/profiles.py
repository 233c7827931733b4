"""What the segments are like: sizes, raw-unit statistics, effects, rules, names, sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segmentation import words
from segmentation.customers import Card, cards
from segmentation.palette import PALETTE
from segmentation.segments import outcomes
from segmentation.segments.scorer import Floats
from segmentation.words import lower_first

if TYPE_CHECKING:
    from segmentation.clustering import stability

TOLD_IN_NAME = 3
"""Marked features that a name tells at most, the strongest ones."""

MORE, LESS, FEWEST_MARKED = 1.5, 2 / 3, 10
"""A level is marked by a lift beyond these, with so many customers (counted or, for less,
expected)."""

CHANCE = 0.05
"""How often chance alone may tell a descriptor apart somewhere, over all of them."""

DEPTH, FOLDS, MAKERS = 3, 10, 2_000
"""A rule asks so many questions at most, is judged by tenths of the customers in turn, and made of
so many others (a seeded sample)."""

Bools = NDArray[np.bool_]

SLACK = 0.15
"""Standard deviations by which an effect has to leave a role's range before the role changes."""

DOUBTFUL = 0.6
"""A segment with a lower mean Jaccard is not to be trusted (Hennig 2007)."""


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
    title: NotRequired[str]
    roles: NotRequired[list[str]]
    actions: NotRequired[list[str]]
    sentences: NotRequired[list[str]]


FIGURES = ["mean", "sd", "min", "q25", "median", "q75", "max"]
MEASURES = ["cluster", "size", "variable", "customers", *FIGURES, "seen_mean", "seen_sd"]
INTERVALS = ["share_low", "share_high", "mean_low", "mean_high"]
LEVELS = ["cluster", "variable", "level", "customers"]
COMPARED = ["cluster", "size", "share", *LEVELS[1:], "level_share", "overall_share", "lift"]
COMPARED += ["marked", "residual", "p", "cramers_v"]
DESCRIBED = {"count": "customers", "25%": "q25", "50%": "median", "75%": "q75"}
"""What pandas' `describe` calls what we call otherwise."""


# Statistics --------------------------------------------------------------------------------


def measure_features(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row of everyone a feature (cluster is empty), then one a cluster and feature.

    Of a table (n rows) with a column `cluster`, empty for who has no segment; where the card's
    value is no feature, of it too. Columns: cluster, size, variable (the column), customers (of
    them those with a value), mean, sd (divisor n), min, q25, median, q75, max, in raw units;
    seen_mean and seen_sd as the distance sees the feature, after its logarithm and clipped where
    the card says so, empty of what it does not see.

    Examples
    --------
    >>> card = Card.model_validate({"title": "t", "table": "", "features": {"a": {}, "b": {}}})
    >>> table = pd.DataFrame({"cluster": [0, 0, 1], "a": [1.0, 3.0, 8.0], "b": 0.0})
    >>> measure_features(table, card).query("variable == 'a'")["mean"].tolist()
    [4.0, 2.0, 8.0]
    """
    used = table[table["cluster"].notna()]
    numbers = used[list(card.measured)]
    seen = pd.DataFrame({n: see_feature(numbers[n], f) for n, f in card.features.items()})
    parts = []
    for cluster, members in [(pd.NA, used), *used.groupby("cluster")]:
        values, as_seen = numbers.loc[members.index], seen.loc[members.index]
        own = values.describe().T.assign(sd=values.std(ddof=0)).rename_axis("variable")
        own = own.assign(seen_mean=as_seen.mean(), seen_sd=as_seen.std(ddof=0))
        parts.append(own.reset_index().assign(cluster=cluster, size=len(members)))
    measures = pd.concat(parts, ignore_index=True).rename(columns=DESCRIBED)
    return measures.astype({"cluster": "Int64", "customers": int})[MEASURES]


def add_intervals(
    measures: pd.DataFrame, recut: stability.Recut, values: pd.DataFrame
) -> pd.DataFrame:
    """What `measure_features` gives with share_low, share_high, mean_low and mean_high behind.

    95 % intervals of share and mean, by raw `values` (n, p) of the rows of `recut`.
    """
    customers = measures.loc[measures["cluster"].isna(), "size"].iloc[0]
    errors = recut.measure_errors(values, customers=customers)
    told = measures.join(errors, on=["cluster", "variable"])
    for end in ("low", "high"):
        told[f"share_{end}"] = (told["size"] / customers + told[f"share_{end}"]).clip(0, 1)
        told[f"mean_{end}"] += told["mean"]
    return told


def see_feature(values: pd.Series, feature: cards.Feature) -> pd.Series:
    """A feature as the distance sees it, but for its scale: logged and clipped by the card."""
    seen = np.log1p(values) if feature.transform == "log" else values
    return seen.clip(*find_fences(feature, *seen.quantile([0.25, 0.75])))


def find_fences(feature: cards.Feature, q25: float, q75: float) -> tuple[float, float]:
    """Where a feature is clipped, three quartile distances beyond its quartiles, if it is."""
    far = 3 * (q75 - q25) if feature.outliers == "clip" else np.inf
    return q25 - far, q75 + far


def profile_features(measures: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row per segment and feature, in raw units, of what `measure_features` gives.

    Columns: cluster, size, share, variable (the label), unit, mean, sd, min, q25, median, q75,
    max, margin (half a 95 % confidence interval of the mean), overall_mean, overall_sd, effect
    (the segment's mean less everyone's, in everyone's sd), grade of the effect, explained (the
    share of the feature's variance that lies between the segments), overall_median, logged, 1
    where the card takes a logarithm, and the intervals of `add_intervals`, empty without. Effect
    and explained are of the feature as the distance sees it, so that after a logarithm they fit
    the medians beside them.
    """
    measures = measures[measures["variable"].isin([*card.features])]
    own = measures[measures["cluster"].notna()].reset_index(drop=True)
    overall = measures[measures["cluster"].isna()].set_index("variable")
    everyone = overall.loc[own["variable"]].reset_index(drop=True)
    empty = own["customers"] == 0  # filled with everyone's median before the distance saw them
    for name in FIGURES:
        own[name] = own[name].mask(empty, 0.0 if name == "sd" else everyone["median"])
    logged = own["variable"].map({n: f.transform == "log" for n, f in card.features.items()})
    filled = everyone["median"].mask(logged, np.log1p(everyone["median"].clip(lower=0)))
    spread = everyone["seen_sd"].where(everyone["seen_sd"] > 0)
    seen = own["seen_mean"].mask(empty, filled)
    effect = ((seen - everyone["seen_mean"]) / spread).fillna(0.0)
    units = {name: feature.unit for name, feature in card.features.items()}
    return pd.DataFrame(
        {
            "cluster": own["cluster"].astype(int),
            "size": own["size"],
            "share": own["size"] / everyone["size"],
            "variable": own["variable"].map(card.labels),
            "unit": own["variable"].map(units),
            **{name: own[name] for name in FIGURES},
            "margin": 1.96 * own["sd"] / np.sqrt(own["customers"].clip(lower=1)),
            "overall_mean": everyone["mean"],
            "overall_sd": everyone["sd"],
            "effect": effect,
            "grade": effect.map(words.grade),
            "explained": own["variable"].map(_explain_variance(measures)),
            "overall_median": everyone["median"],
            "logged": logged.astype(int),
            **own.reindex(columns=INTERVALS).to_dict("series"),
        }
    )


def _explain_variance(measures: pd.DataFrame) -> dict[Any, float]:
    """The share of each column's variance that lies between the segments (0…1)."""
    shares = {}
    for name, rows in measures.groupby("variable", sort=False):
        overall = rows[rows["cluster"].isna()].iloc[0]
        own = rows.dropna(subset=["cluster", "seen_mean"])
        between = np.cov(own["seen_mean"], aweights=own["size"], ddof=0)
        shares[name] = float(between) / overall["seen_sd"] ** 2 if overall["seen_sd"] else 0.0
    return shares


def measure_levels(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """How many customers of a table with a column `cluster` have each level of each descriptor.

    Columns: cluster (empty for everyone), variable (the column), level (`missing` for a gap),
    customers. Who has no segment is left out.
    """
    levels = {name: table[["cluster"]].assign(level=table[name]) for name in card.descriptors}
    return sum_levels({name: each.assign(customers=1) for name, each in levels.items()})


def sum_levels(counts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The same of counts by cluster and level (columns cluster, level, customers) a variable."""
    parts = [pd.DataFrame(columns=LEVELS)]
    for name, rows in counts.items():
        used = rows.dropna(subset="cluster").fillna({"level": "missing"}).assign(variable=name)
        for keys in (["level"], ["cluster", "level"]):
            parts.append(used.groupby(["variable", *keys], as_index=False)["customers"].sum())
    return pd.concat(parts, ignore_index=True)[LEVELS].astype(
        {"cluster": "Int64", "customers": int}
    )


def profile_levels(counted: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row per segment and level of each descriptor, of what `measure_levels` gives.

    Columns: cluster, size, share, variable (the label), level, customers, level_share (of the
    segment), overall_share, lift = level_share / overall_share, whether the level is marked, its
    adjusted residual (Agresti 2013), p of the descriptor: its χ² test with the segments, by
    Holm's (1979) correction over the descriptors, and its bias-corrected Cramér's V with them.
    Nothing is marked where chance would do (5 %).
    """
    from scipy.stats import chi2, norm

    keys = ["variable", "level"]
    everyone = counted[counted["cluster"].isna()].set_index(keys)["customers"].rename("all_of")
    totals = everyone.groupby("variable").sum().rename("total")
    own = counted.dropna(subset="cluster").set_index(["cluster", *keys])["customers"]
    wide = own.unstack(keys, fill_value=0)
    table = wide.melt(ignore_index=False, value_name="customers").reset_index()
    table = table.join(everyone, on=keys).join(totals, on="variable").astype({"cluster": int})
    table["size"] = table.groupby(["variable", "cluster"])["customers"].transform("sum")
    table["share"] = table["size"] / table["total"]
    table["level_share"] = table["customers"] / table["size"]
    table["overall_share"] = table["all_of"] / table["total"]
    table["lift"] = table["level_share"] / table["overall_share"]
    more = (table["lift"] >= MORE) & (table["customers"] >= FEWEST_MARKED)
    expected = table["overall_share"] * table["size"]
    less = (table["lift"] <= LESS) & (expected >= FEWEST_MARKED)
    beyond = table["customers"] - expected
    spread = expected * (1 - table["share"]) * (1 - table["overall_share"])
    table["residual"] = (beyond / spread.where(spread > 0).astype(float) ** 0.5).fillna(0.0)
    by = table.assign(chi2=beyond**2 / expected).groupby("variable")
    sums, sides = by["chi2"].sum().astype(float), by[["cluster", "level"]].nunique()
    cells = (sides - 1).prod(axis=1)
    chances = pd.Series(chi2.sf(sums, cells.clip(lower=1)), cells.index)
    adjusted = outcomes.adjust(chances).mask(cells == 0, 1.0)
    table["p"] = table["variable"].map(adjusted).astype(float)
    clear = norm.isf(CHANCE / 2 / table["variable"].map(by.size()).astype(float))
    tested = (table["p"] <= CHANCE) & (table["residual"].abs() >= clear)
    table["marked"] = (more | less) & tested
    table["cramers_v"] = table["variable"].map(_correct_v(sums / totals, sides, totals))
    order = pd.Categorical(table["variable"], counted["variable"].unique())
    table = table.assign(order=order).sort_values(["order", "cluster", "level"], ignore_index=True)
    table["variable"] = table["variable"].map(card.labels).astype(object)
    return table[COMPARED].astype({"size": int, "customers": int})


def _correct_v(phi2: pd.Series, sides: pd.DataFrame, n: pd.Series) -> pd.Series:
    """Cramér's V of tables (rows and columns in `sides`) without its bias (Bergsma 2013)."""
    over = (n - 1).clip(lower=1)
    least = (sides - 1).sub((sides - 1).pow(2).div(over, axis=0)).min(axis=1)
    beyond = (phi2 - (sides - 1).prod(axis=1) / over).clip(lower=0)
    return (beyond / least.where(least > 0)).pow(0.5).fillna(0.0).astype(float)


def find_rules(table: pd.DataFrame, card: Card, *, seed: int = 0) -> pd.DataFrame:
    """One short rule a segment: three questions at most on the raw features tell it from the rest.

    Of a table (n rows) with a column `cluster`. Each rule is the node with the largest F1 of a
    shallow tree (Breiman et al. 1984), thresholds rounded first so that words and figures agree.
    Columns: cluster, size, rule (in words; empty where no question helps), customers (for whom it
    is true), hits (of them in the segment), precision and coverage, and fidelity: the share of
    all whom the most precise rule that is true of them puts into their segment. These three are
    cross-validated: each tenth of the customers is judged by a rule that the others made.

    Examples
    --------
    >>> card = Card.model_validate({"title": "t", "table": "", "features": {"a": {}, "b": {}}})
    >>> table = pd.DataFrame({"cluster": [0, 1] * 20, "a": [1.0, 9.0] * 20, "b": 0.0})
    >>> find_rules(table, card)[["rule", "customers", "precision", "coverage"]].values.tolist()
    [['A at most 5.00', 20, 1.0, 1.0], ['A above 5.00', 20, 1.0, 1.0]]
    """
    from sklearn.model_selection import KFold

    from segmentation.clustering import draw_rows

    used = table[table["cluster"].notna()]
    values = used[list(card.features)].fillna(used[list(card.features)].median())
    spreads, X = values.std(ddof=0), values.to_numpy(float)
    find = partial(_find_box, decimals=spreads.map(words.count_decimals).to_list(), seed=seed)
    rules = used["cluster"].astype(int).value_counts().sort_index().rename("size").reset_index()
    members = used["cluster"].to_numpy(int) == rules[["cluster"]].to_numpy()
    some = draw_rows(np.arange(len(X)), MAKERS, seed=seed)
    boxes = [find(X[some], own[some]) for own in members]
    picked = np.array([_contain(box, X) for box in boxes])
    rules["rule"] = [_write_rule(box, card, spreads) for box in boxes]
    rules["customers"], rules["hits"] = picked.sum(axis=1), (picked & members).sum(axis=1)
    for others, rest in KFold(min(FOLDS, len(X)), shuffle=True, random_state=seed).split(X):
        some = draw_rows(others, MAKERS, seed=seed)
        picked[:, rest] = [_contain(find(X[some], own[some]), X[rest]) for own in members]
    hits = (picked & members).sum(axis=1)
    rules["precision"] = hits / picked.sum(axis=1).clip(min=1)
    rules["coverage"] = hits / rules["size"]
    first = (picked * rules[["precision"]].to_numpy()).argmax(axis=0), np.arange(len(X))
    return rules.assign(fidelity=(picked & members)[first].mean())


def _find_box(X: Floats, member: Bools, *, decimals: list[int], seed: int) -> Floats:
    """Above and up to what a feature lies in a rule (p, 2): X (n, p), who is a member (n,)."""
    from sklearn.tree import DecisionTreeClassifier

    how: dict[str, Any] = {"min_samples_leaf": words.FEWEST, "class_weight": "balanced"}
    tree = DecisionTreeClassifier(max_depth=DEPTH, random_state=seed, **how).fit(X, member).tree_
    boxes = np.tile([-np.inf, np.inf], (tree.node_count, X.shape[1], 1))
    inside = np.ones((tree.node_count, len(X)), dtype=bool)
    for node in np.flatnonzero(tree.feature >= 0):  # parents come first
        asked, (below, above) = tree.feature[node], (tree.children_left, tree.children_right)
        cut = round(float(tree.threshold[node]), decimals[asked])
        for child, end in ((below[node], 1), (above[node], 0)):
            boxes[child] = boxes[node]
            boxes[child, asked, end] = cut
            inside[child] = inside[node] & ((X[:, asked] <= cut) == end)
    f1 = inside @ (2.0 * member) / (inside.sum(axis=1) + member.sum())
    f1[0] = 0.0  # everyone
    return boxes[f1.argmax()] if f1.any() else np.tile([np.inf, -np.inf], (X.shape[1], 1))


def _contain(box: Floats, X: Floats) -> Bools:
    above, up_to = box.T
    inside: Bools = np.logical_and(above < X, up_to >= X).all(axis=1)
    return inside


def _write_rule(box: Floats, card: Card, spreads: pd.Series) -> str:
    parts = []
    for feature, (low, high), spread in zip(card.features.values(), box, spreads, strict=True):
        symbol = feature.unit if feature.unit in words.MONEY | {"%"} else ""
        low_end, high_end = (
            words.add_unit(words.write_measure(end, spread), symbol) for end in (low, high)
        )
        ends = f"above {low_end}" if np.isfinite(low) else ""
        if np.isfinite(high):
            ends += f"{' up to' if ends else 'at most'} {high_end}"
        if ends:
            unit = "" if symbol else feature.unit
            parts.append(f"{lower_first(feature.label)} {ends} {unit}".strip())
    return words.upper_first(words.join(parts))


# Names -------------------------------------------------------------------------------------


def find_names(
    profile: pd.DataFrame,
    kinds: Mapping[str, str] | None = None,
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
    effects = effects[profile["variable"].unique()]
    if len(effects) == 1:
        return dict.fromkeys(effects.index, "All customers")
    kinds = {label: (kinds or {}).get(label, words.find_kind(label)) for label in effects}
    kept, former = kept or {}, {*former}
    names = {c: _phrase(row, kinds) for c, row in effects.iterrows()} | {**kept}
    for more in range(len(effects.columns)):
        given = [*names.values()]
        twice = [c for c, name in names.items() if given.count(name) > 1 or name in former]
        alike = {*twice} - {*kept}
        names |= {c: _phrase(effects.loc[c], kinds, fine=True, more=more) for c in alike}
    return _number({**kept, **names}, former - {*kept.values()})


def _phrase(
    effects: pd.Series, kinds: Mapping[str, str], *, fine: bool = False, more: int = 0
) -> str:
    """Words for the strongest marked features, and for so many more, in the card's order."""
    strongest = effects.abs().sort_values(ascending=False, kind="stable")
    marked = min(int((strongest >= words.MARKER).sum()), TOLD_IN_NAME)
    told = effects[effects.index.isin(strongest.index[: marked + more])]
    grades = told.map(words.grade).items()
    parts = [words.describe_grade(str(v), kinds[str(v)], own, fine=fine) for v, own in grades]
    return words.upper_first(", ".join(parts)) or "Near the average"


def _number(names: dict[Any, str], former: Iterable[str] = ()) -> dict[int, str]:
    """Tell apart names that all features together do not; who comes first keeps the name."""
    numbered, taken = {}, {*former}
    for cluster, name in names.items():
        tried = (f"{name} ({number})" if number > 1 else name for number in count(1))
        numbered[int(cluster)] = next(each for each in tried if each not in taken)
        taken.add(numbered[int(cluster)])
    return numbered


def find_outgrown(name: str, effects: pd.Series, kinds: Mapping[str, str]) -> list[str]:
    """The words of a kept name that are not among those that the effects (by label) give today."""
    today = {lower_first(_phrase(effects, kinds))}
    for label, own in effects.map(words.grade).items():
        today |= {words.describe_grade(label, kinds[label], own, fine=f) for f in (False, True)}
    rest = f", {lower_first(re.sub(r' [(][0-9]+[)]$', '', name))}, "
    for phrase in sorted(today, key=len, reverse=True):
        rest = rest.replace(f", {phrase}, ", ", ")
    return [part for part in rest.split(", ") if part]


def match_names(
    grades: pd.DataFrame, given: Iterable[cards.GivenSegment]
) -> dict[int, cards.GivenSegment]:
    """Which cluster gets which of the card's names, of grades (clusters × labels).

    First where all that a name stands for holds; then, for names left, where at least half does
    and the rest is merely average. Among several, where it is most pronounced.
    """
    found: dict[int, cards.GivenSegment] = {}
    known = [name for name in given if {*name.when} <= {*grades}]
    for strict in (True, False):
        for name in [name for name in known if name not in found.values()]:
            own = grades.drop(index=list(found))[list(name.when)]
            fails = _find_failing(name, own)
            average = (own.abs().where(fails, 0) < 2).all(axis=1)
            nearly = average & (fails.sum(axis=1) <= len(name.when) / 2)
            fit = own[~fails.any(axis=1) if strict else nearly]
            if len(fit):
                found[int(fit.abs().sum(axis=1).idxmax())] = name
    return found


def _find_failing(name: cards.GivenSegment, grades: pd.DataFrame) -> pd.DataFrame:
    """In which features each cluster is not what a name stands for."""
    ranges = words.read_words()["grades"]
    return pd.DataFrame({v: ~grades[v].between(*ranges[w]) for v, w in name.when.items()})


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
    names = find_names(profile, card.kinds, kept=known, former=used)
    names |= {c: name.name for c, name in given.items()}
    names = _number({c: names[c] for c in [*given, *known, *names]})  # who has a name goes first
    segments: list[Segment] = []
    for position in sorted(names):
        rows = profile[profile["cluster"] == position].set_index("variable")
        segment: Segment = {
            "id": position,
            "name": names[position],
            "size": int(rows["size"].iloc[0]),
            "share": float(rows["share"].iloc[0]),
            "centre": centres.loc[position].to_dict(),
            "profile": rows[["mean", "sd", "median", "effect"]].to_dict("index"),
            "colour": PALETTE[position % len(PALETTE)],
        }
        if name := given.get(position):
            stands_for = words.join(f"{lower_first(v)} {word}" for v, word in name.when.items())
            fails = _find_failing(name, grades.loc[[position]]).iloc[0]
            told = words.join(fails.index[fails])
            segment["given"] = {"stands_for": stands_for, "fails_in": told}
        elif position in known and len(names) > 1:
            segment["outgrown"] = find_outgrown(known[position], rows["effect"], card.kinds)
        segments.append(segment)
    return segments


def add_stability(segments: list[Segment], jaccards: Floats, within: Floats) -> list[Segment]:
    """The segments with their Jaccards (resamples, k) and SLSw (pairs, k) summed up.

    found counts the resamples in which a segment came back, dissolved the others. The band says
    how far a mean Jaccard lets one rely on a segment (Hennig 2007).
    """
    from segmentation.clustering import stability

    told = list[Segment]()
    for segment, own, pairs in zip(segments, jaccards.T, within.T, strict=True):
        mean, found = float(own.mean()), int((own > stability.DISSOLVED).sum())
        figures: dict[str, float | str] = {
            "jaccard": mean,
            "band": stability.name_band(mean),
            "found": found,
            "dissolved": len(own) - found,
            "resamples": len(own),
            "slsw": float(pairs.mean()),
        }
        told.append({**segment, "stability": figures})
    return told


# Sentences, roles and actions ----------------------------------------------------------------


def add_words(
    segments: list[Segment],
    profile: pd.DataFrame,
    levels: pd.DataFrame,
    rules: pd.DataFrame,
    card: Card,
    *,
    before: Iterable[Segment] = (),
) -> list[Segment]:
    """The segments with their sentences, roles and actions; the card's own come first.

    `before` are the segments of the previous run, whose roles stay while they nearly hold. A role
    that one segment alone has may give it a title, a name of a word or two beside its own.
    """
    told, tables = [], [rows.assign(segments=len(segments)) for rows in (profile, levels, rules)]
    former = {segment["id"]: segment for segment in before}
    taken = {segment["title"] for segment in former.values() if "title" in segment}
    roles = []
    for segment in segments:
        own, had = tables[0][tables[0]["cluster"] == segment["id"]], former.get(segment["id"])
        used = had.get("actions", []) if had else []
        roles.append(find_role(own, card, segment, len(segments), used))
    known = zip(segments, roles, strict=True)
    titles = [role["title"] for segment, role in known if "given" not in segment]
    for segment, role in zip(segments, roles, strict=True):
        own = [rows[rows["cluster"] == segment["id"]] for rows in tables]
        words_of: Any = {"roles": [role["role"]], "actions": [role["action"]]}
        words_of["sentences"] = _describe_segment(segment, len(segments), *own)
        title, kept = role["title"], former.get(segment["id"], segment).get("title")
        alone = titles.count(title) == 1 and title not in taken
        if title and "given" not in segment and (title == kept or alone):
            words_of["title"] = title
        told.append(segment | words_of)
    return told


def find_role(
    profile: pd.DataFrame, card: Card, segment: Segment, segments: int, had: Iterable[str] = ()
) -> dict[str, str]:
    """What a segment is to the business and one suggestion, of its rows of the profile.

    The entry with an action that it `had` stays while its predicate misses by no more than 0.15
    standard deviations and none above it holds by as much: −0.50 after −0.40 is no news.
    """
    effects = profile.set_index("variable")["effect"].iloc[::-1]  # the first of a kind counts

    def holds(entry: words.Entry, slack: float) -> bool:
        most, least = (
            {card.kinds[str(v)]: words.grade(own + way) for v, own in effects.items()}
            | {"markers": int((effects.abs() + way >= words.MARKER).sum()), "segments": segments}
            for way in (slack, -slack)
        )
        return words.holds(entry["when"], most, least)

    roles = words.read_words()["roles"]
    entry = next(own for own in roles if holds(own, 0))
    for former in (i for i, own in enumerate(roles) if own["action"] in had):
        clearer = any(holds(own, -SLACK) for own in roles[:former])
        entry = roles[former] if holds(roles[former], SLACK) and not clearer else entry
    for own in (given for given in card.segments if given.name == segment["name"]):
        entry = entry | own.model_dump(include={"role", "action"}, exclude_defaults=True)
    return {name: entry.get(name, "") for name in ("role", "action", "title")}


def _describe_segment(segment: Segment, segments: int, *own: pd.DataFrame) -> list[str]:
    """Sentences on one segment, each true of its own rows; the most telling feature first."""
    profile, levels, rules = own
    facts = {**segment, **segment.get("stability", {}), "segments": segments}
    facts |= {"segment": segment["name"]}
    told = [words.say("size", facts)]
    if given := segment.get("given"):
        told.append(words.say("name", {**given, "failing": len(given["fails_in"])}))
    if segment["size"] < words.FEWEST:
        return told
    telling = profile.sort_values("effect", key=abs, ascending=False, kind="stable")
    told += _say_each("feature", telling.fillna({"unit": ""}))
    for _, rows in levels.groupby("variable", sort=False):
        if segments > 1 and rows["p"].iloc[0] > CHANCE:
            continue  # it may be the same everywhere
        marked = rows[rows["marked"]]
        if len(rows) == 2:  # the one level says what the other does
            marked = marked.nlargest(1, "customers")
        told += _say_each("level", marked)
        if marked.empty:
            told += _say_each("mix", rows.loc[[rows["customers"].idxmax()]])
    if segments > 1:
        told += _say_each("rule", rules)
    if segments > 1 and "stability" in segment:
        told.append(words.say("stability", facts))
    return told


def _say_each(kind: str, rows: pd.DataFrame) -> list[str]:
    return [words.say(kind, cast(words.Facts, row)) for row in rows.to_dict("records")]


def list_warnings(segments: list[Segment], card: Card) -> list[str]:
    """What a reader has to know before acting, a sentence each."""
    warned = []
    for segment in segments:
        name = f"“{segment['name']}”"
        if segment["size"] < words.FEWEST:
            warned.append(f"{name} has fewer than {words.FEWEST} customers.")
        if fails := segment.get("given", {}).get("fails_in"):
            warned.append(f"The name {name} no longer holds for {fails}.")
        if outgrown := [f"“{part}”" for part in segment.get("outgrown", [])]:
            told = f"{words.join(outgrown)} no longer {'holds' if len(outgrown) == 1 else 'hold'}"
            warned.append(f"{name} kept its name from the last run, but {told}.")
        if len(segments) > 1 and float(segment.get("stability", {}).get("jaccard", 1)) < DOUBTFUL:
            warned.append(f"{name} often dissolves when the customers are resampled.")
    placed = {segment["name"] for segment in segments}
    if gone := [f"“{given.name}”" for given in card.segments if given.name not in placed]:
        warned.append(f"The card names {words.join(gone)}, but no segment is like that.")
    return warned


# For people ----------------------------------------------------------------------------------


def tabulate_profile(profile: pd.DataFrame) -> pd.DataFrame:
    """For people: one row a segment, mean ± sd of each feature in raw units, everyone last.

    After a logarithm the median stands in its place, and the quartiles behind it.
    """
    parts = profile.drop_duplicates("segment")
    told = {
        "Segment": [*parts["segment"], "Everyone"],
        "Customers": [f"{size:,}" for size in (*parts["size"], parts["size"].sum())],
        "Share": [f"{share:.1%}" for share in (*parts["share"], 1)],
    }
    for label, rows in profile.fillna({"unit": ""}).groupby("variable", sort=False):
        first = rows.iloc[0]
        write = partial(words.write_measure, spread=first["overall_sd"])
        title = words.write_title(str(label), first["unit"])
        if first["logged"]:
            figures = rows[["median", "q25", "q75"]].map(write)
            cells = [f"{median} ({low}…{high})" for median, low, high in figures.to_numpy()]
            told[f"{title}, median"] = [*cells, write(first["overall_median"])]
        else:
            figures = rows[["mean", "sd"]].map(write)
            cells = [f"{mean} ± {sd}" for mean, sd in figures.to_numpy()]
            told[title] = [*cells, write(first["overall_mean"])]
    return pd.DataFrame(told)


def summarize_limits(profile: pd.DataFrame) -> str:
    """What the data cannot support, in two sentences with their figures."""
    smallest = profile[profile["cluster"] == profile.loc[profile["size"].idxmin(), "cluster"]]
    mean, margin = smallest["mean"], smallest["margin"]
    plain = pd.DataFrame({"mean_low": mean - margin, "mean_high": mean + margin})
    smallest = smallest.fillna({"unit": ""}).fillna(plain)  # where nothing was resampled
    width = smallest["mean_high"] - smallest["mean_low"]
    widest = (width / smallest["overall_sd"].where(lambda sd: sd > 0)).fillna(0)
    row = smallest.loc[widest.idxmax()].to_dict()
    facts = row | {"segments": profile["cluster"].nunique()}
    limit = words.say("limits", facts | {"variable": lower_first(row["variable"])})
    return f"{limit} One table at one time shows who is alike, not why, nor who will move."


def write_summary(title: str, choice: str, profile: pd.DataFrame, segments: list[Segment]) -> str:
    """The findings in plain text, with the statistics table (mean ± sd in raw units).

    `choice` is the paragraph on how many segments there are and how sure that is.
    """
    from tabulate import tabulate

    options: Any = {"disable_numparse": True, "stralign": "right", "colalign": ("left",)}
    table = tabulate(tabulate_profile(profile), headers="keys", showindex=False, **options)
    told = [
        "\n".join([*s["sentences"], f"Role: {words.join(s['roles'])}.", *s["actions"]])
        for s in segments
    ]
    return "\n\n".join([title, choice, table, *told, summarize_limits(profile)]) + "\n"
