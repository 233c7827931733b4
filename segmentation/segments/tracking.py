"""What changed since a previous run: who continues whom, who moved, what drifted, what to do.

Vocabulary of the transitions: MONIC (Spiliopoulou et al. 2006).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.special import chdtri
from sklearn.metrics import adjusted_rand_score

from segmentation import words
from segmentation.clustering.kmeans import Floats
from segmentation.customers import moments
from segmentation.customers.card import COUNT, ROW, Card
from segmentation.customers.table import count_customers, draw_customers
from segmentation.palette import PALETTE
from segmentation.segments.profiles import Segment, list_segments
from segmentation.segments.scorer import OUTSIDE, Scorer, Scores

RECURRING = 0.5
"""Segments are matched by their people where at least this share of the customers recurs."""

HALF, PART, WHOLE = 0.5, 0.25, 0.75
"""Shares that make a survivor (both ways), a part of a split, and all parts together."""

FLOOR, SHIFTED, DRIFTED = 1e-4, 0.1, 0.2
"""Least share of a bin in the PSI, and the PSIs from which a variable has shifted or drifted."""

NOTHING = "There is no earlier run to compare with."
ALL = "The one segment survived.", "Every segment survived."

CHANGES = [
    *("transition", "previous_cluster", "previous_segment", "cluster", "segment"),
    *("previous_size", "size", "previous_share", "share", "points"),
    *("customers", "share_of_previous", "share_of_segment"),
]
MIGRATION = [
    *("previous_cluster", "previous_segment", "cluster", "segment"),
    *("customers", "share_of_previous", "share_of_segment"),
]
DRIFT = [
    *("variable", "kind", "previous_mean", "mean", "unit", "psi", "chance", "reading"),
    *("test", "statistic", "p_value"),
]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a run left behind, as far as another is compared with it.

    Attributes
    ----------
    customers : those with a segment, by id: cluster, features and descriptors as read, distance,
        confidence and status.
    segments : the content of its `segments.json`, in the order of the model's positions.
    scorer : its model.
    highest_id : the highest id that this run or one before it ever gave.
    day : the date of its data, else of the run, as ISO text.
    """

    run_id: str
    customers: pd.DataFrame
    segments: list[Segment]
    scorer: Scorer
    highest_id: int
    day: str = ""

    @property
    def size(self) -> int:
        """How many customers have a segment."""
        return round(count_customers(self.customers).sum())


@dataclass(frozen=True, eq=False)
class Matching:
    """Which previous segment each one continues, and how that was told.

    Attributes
    ----------
    by : people where enough of them recur, else centres.
    recurring : the share of the previous customers who are there again.
    pairs : the cluster before, by the cluster now that survives it.
    counts : customers in both runs, clusters before by clusters now.
    """

    by: Literal["people", "centres"]
    recurring: float
    pairs: dict[int, int]
    counts: pd.DataFrame


class Summary(TypedDict):
    """The content of `changes.json`; without a previous run all but `previous` is missing."""

    previous: str | None
    previous_day: NotRequired[str]
    matched_by: NotRequired[str]
    recurring: NotRequired[float]
    previous_customers: NotRequired[int]
    customers: NotRequired[int]
    previous_k: NotRequired[int]
    k: NotRequired[int]
    more: NotRequired[int]
    changed: NotRequired[int]
    drifted: NotRequired[int]
    variable: NotRequired[str]
    psi: NotRequired[float]
    agreement: NotRequired[float]
    advice: NotRequired[str]
    reason: NotRequired[str]


def index_customers(clustered: pd.DataFrame, card: Card) -> pd.DataFrame:
    """The customers with a segment by their id; by nothing where there are no ids or not all.

    Rows that stand for several customers tell of none of them whether he is there again.
    """
    used = clustered[clustered["cluster"].notna()].astype({"cluster": int})
    whole = card.id in used and card.id != ROW and COUNT not in used
    return used.set_index(card.id) if whole else used


# Matching ----------------------------------------------------------------------------------


def match_segments(customers: pd.DataFrame, before: Snapshot) -> Matching:
    """Match the clusters of `customers` (by id, as of `index_customers`) to a previous run.

    On the people where at least half of the previous customers recur, else on the centres in the
    previous model's scale. One segment that holds everyone continues only such a one.
    """
    counts = count_shared(before.customers["cluster"], customers["cluster"])
    recurring = float(counts.to_numpy().sum() / len(before.customers))
    people = recurring >= RECURRING
    pairs = match_people(counts) if people else _match_to_centres(customers, before)
    everyone = len(counts) == 1, len(counts.columns) == 1
    pairs = pairs if all(everyone) or not any(everyone) else {}
    return Matching("people" if people else "centres", recurring, pairs, counts)


def _match_to_centres(customers: pd.DataFrame, before: Snapshot) -> dict[int, int]:
    scaled = pd.DataFrame(before.scorer.scale(*before.scorer.take(customers)))
    clusters, counts = customers["cluster"].to_numpy(), count_customers(customers)
    sums = scaled.mul(counts, axis=0).groupby(clusters).sum()
    centres = sums.div(pd.Series(counts).groupby(clusters).sum(), axis=0)
    pairs = match_centres(before.scorer.centres, centres.to_numpy())
    return {int(centres.index[j]): before.segments[i]["id"] for j, i in pairs.items()}


def count_shared(before: pd.Series, now: pd.Series) -> pd.DataFrame:
    """Customers in both runs, previous clusters by clusters, of clusters by customer id."""
    named = before.index.name is not None and before.index.name == now.index.name
    both = before.index.intersection(now.index) if named else before.index[:0]
    counts = pd.crosstab(before[both].to_numpy(), now.reindex(both).to_numpy())
    rows, columns = sorted(before.unique()), sorted(now.unique())
    return counts.reindex(index=rows, columns=columns, fill_value=0).astype(int)


def match_people(counts: pd.DataFrame) -> dict[int, int]:
    """The previous cluster that each cluster survives, of shared customers (before by now).

    At least half of the previous one's people are in it, and half of its own come from there;
    where halves tie, the Hungarian method finds the pairs that keep most people together.
    """
    half = _divide(counts, axis=1).ge(HALF) & _divide(counts, axis=0).ge(HALF)
    rows, columns = linear_sum_assignment(counts.where(half, 0), maximize=True)
    pairs = zip(rows, columns, strict=True)
    return {int(counts.columns[j]): int(counts.index[i]) for i, j in pairs if half.iloc[i, j]}


def match_centres(before: Floats, now: Floats) -> dict[int, int]:
    """Match centroids (k, p) now to those before: the row before by the row now.

    Accepted are distances up to half that from the previous centroid to its nearest neighbour
    then; the Hungarian method makes most pairs, and of these the nearest ones.
    """
    gaps = _measure_gaps(before, now)
    apart = _measure_gaps(before, before) + np.diag(np.full(len(before), np.inf))
    near = gaps <= apart.min(axis=1, keepdims=True) / 2
    cost = np.where(near, gaps, 1 + gaps.sum())
    pairs = zip(*linear_sum_assignment(cost), strict=True)
    return {int(j): int(i) for i, j in pairs if near[i, j]}


def _measure_gaps(one: Floats, two: Floats) -> Floats:
    return np.linalg.norm(one[:, None, :] - two[None, :, :], axis=2)


def _divide(counts: pd.DataFrame, *, axis: int) -> pd.DataFrame:
    """Shares of the row (axis 1) or the column (axis 0) totals; 0 where nobody recurs."""
    totals = counts.sum(axis=axis).astype(float)
    return counts.div(totals.where(totals > 0, np.inf), axis=1 - axis)


# Identity ----------------------------------------------------------------------------------


def identify_segments(
    clustered: pd.DataFrame,
    profile: pd.DataFrame,
    centres: pd.DataFrame,
    card: Card,
    before: Snapshot | None,
) -> list[Segment]:
    """The core of `segments.json` with the identities of a previous run: see `list_segments`.

    `clustered` and its `profile` have positions as `cluster`. What survives keeps id, name and
    colour; without a previous run the ids are the positions.
    """
    kept = find_kept(index_customers(clustered, card), before)
    former = before.segments if before else []
    segments = list_segments(profile, centres, card, kept=kept, former=former)
    return keep_identities(segments, kept, before)


def find_kept(customers: pd.DataFrame, before: Snapshot | None) -> dict[int, Segment]:
    """The previous segment that each position survives, of customers by id with positions."""
    if before is None:
        return {}
    segments = {segment["id"]: segment for segment in before.segments}
    return {p: segments[i] for p, i in match_segments(customers, before).pairs.items()}


def keep_identities(
    segments: list[Segment], kept: Mapping[int, Segment], before: Snapshot | None
) -> list[Segment]:
    """The segments, by position, with the ids and colours that they are known by.

    A survivor has those of the segment that it survives. A new one gets an id that was never
    given and a colour that no living segment has, if possible none of the previous run's.
    """
    if before is None:
        return segments
    ids, former = count(before.highest_id + 1), [s["colour"] for s in before.segments]
    living = [segment["colour"] for segment in kept.values()]
    identified: list[Segment] = []
    for position, segment in enumerate(segments):
        if known := kept.get(position):
            identified.append({**segment, "id": known["id"], "colour": known["colour"]})
        else:
            colour = min(PALETTE, key=lambda c: (living.count(c), former.count(c)))
            living.append(colour)
            identified.append({**segment, "id": next(ids), "colour": colour})
    return identified


def find_highest_id(segments: list[Segment], before: Snapshot | None) -> int:
    """The highest id that this run or one before it ever gave."""
    return max([s["id"] for s in segments] + ([before.highest_id] if before else []))


# Who became what ---------------------------------------------------------------------------


def find_transitions(matching: Matching) -> pd.DataFrame:
    """One row a transition of a previous cluster into a cluster: survived, split, merged …

    Columns: transition, previous_cluster, cluster, customers (in both), and these as shares of
    either. A split: two or more segments each take at least a quarter of the previous one's
    people, together three quarters; merged is its mirror; what survives elsewhere is no part.
    Who has neither is emerged or disappeared. A survivor may have split as well: it is the part
    that keeps the identity. By centres no split and no merger can be told.
    """
    counts = matching.counts * (matching.by == "people")
    heirs = {old: new for new, old in matching.pairs.items()}
    split = _find_parts(_divide(counts, axis=1), matching.pairs)
    merged = [(old, new) for new, old in _find_parts(_divide(counts, axis=0).T, heirs)]
    told = dict.fromkeys(heirs.items(), "survived")
    told |= dict.fromkeys(merged, "merged") | dict.fromkeys(split, "split")
    olds, news = ({pair[side] for pair in told} for side in (0, 1))
    rows = [(word, *pair) for pair, word in sorted(told.items())]
    rows += [("disappeared", old, pd.NA) for old in counts.index if old not in olds]
    rows += [("emerged", pd.NA, new) for new in counts.columns if new not in news]
    table = pd.DataFrame(rows, columns=["transition", "previous_cluster", "cluster"])
    table = table.astype({"previous_cluster": "Int64", "cluster": "Int64"})
    return table.join(_count_pairs(table, matching))


def _find_parts(shares: pd.DataFrame, taken: Mapping[int, int]) -> list[tuple[int, int]]:
    """Pairs of a whole (row) and its parts (columns), those taken by another whole left out."""
    pairs = []
    for whole, row in shares.iterrows():
        own = row[[part for part in row.index if taken.get(part, whole) == whole]]
        parts = own[own >= PART]
        if len(parts) > 1 and parts.sum() >= WHOLE:
            pairs += [(whole, part) for part in parts.index]
    return pairs


def _count_pairs(table: pd.DataFrame, matching: Matching) -> pd.DataFrame:
    """How many customers went each pair's way; empty for what has no pair or no people."""
    names = ["customers", "share_of_previous", "share_of_segment"]
    counts = matching.counts
    tables = [counts, _divide(counts, axis=1), _divide(counts, axis=0)]
    known = table["cluster"].notna() & table["previous_cluster"].notna()
    rows = [
        [frame.at[old, new] if ok and matching.by == "people" else np.nan for frame in tables]
        for old, new, ok in zip(table["previous_cluster"], table["cluster"], known, strict=True)
    ]
    return pd.DataFrame(rows, columns=names, index=table.index).astype({"customers": "Int64"})


def list_changes(before: Snapshot | None, now: Snapshot) -> pd.DataFrame:
    """`changes.csv`: one row a transition, with both segments' names, sizes and shares.

    Columns: transition, previous_cluster, previous_segment, cluster, segment, previous_size,
    size, previous_share, share, points (share − previous_share in percentage points, where
    both are the same segment), customers (in both), share_of_previous, share_of_segment. No rows
    without a previous run.
    """
    if before is None:
        return pd.DataFrame(columns=CHANGES)
    table = find_transitions(match_segments(now.customers, before))
    for prefix, run in (("previous_", before), ("", now)):
        facts = pd.DataFrame(run.segments).set_index("id")[["name", "size", "share"]]
        facts.columns = [f"{prefix}{name}" for name in ("segment", "size", "share")]
        table = table.join(facts, on=f"{prefix}cluster")
    points = 100 * (table["share"] - table["previous_share"])
    table["points"] = points.where(table["cluster"].eq(table["previous_cluster"]).fillna(False))
    return table[CHANGES].astype({"previous_size": "Int64", "size": "Int64"})


def list_migration(before: Snapshot | None, now: Snapshot) -> pd.DataFrame:
    """One row a way that customers went, from the segment before to the one now.

    Columns: previous_cluster, previous_segment, cluster, segment, customers, share_of_previous,
    share_of_segment. Who came has no previous segment, who left has none now. No rows where too
    few customers recur to follow them.
    """
    if before is None or match_segments(now.customers, before).by == "centres":
        return pd.DataFrame(columns=MIGRATION)
    ways = pd.DataFrame(
        {"previous_cluster": before.customers["cluster"], "cluster": now.customers["cluster"]}
    ).astype("Int64")
    table = ways.value_counts(dropna=False).rename("customers").reset_index()
    table = table.sort_values(["previous_cluster", "cluster"], ignore_index=True)
    table = table.assign(
        previous_segment=table["previous_cluster"].map(_name(before)),
        segment=table["cluster"].map(_name(now)),
        share_of_previous=_share(table, "previous_cluster"),
        share_of_segment=_share(table, "cluster"),
    )
    return table[MIGRATION]


def _name(run: Snapshot) -> dict[int, str]:
    return {segment["id"]: segment["name"] for segment in run.segments}


def _share(table: pd.DataFrame, side: str) -> pd.Series:
    return table["customers"] / table.groupby(side)["customers"].transform("sum")


def find_colours(before: Snapshot | None, now: Snapshot) -> dict[int, str]:
    """The colour of each segment of both runs, by id."""
    return {s["id"]: s["colour"] for run in (before, now) if run for s in run.segments}


# Drift and fit -----------------------------------------------------------------------------


def measure_drift(before: Snapshot | None, now: Snapshot, card: Card) -> pd.DataFrame:
    """One row a column known in both runs: has its distribution moved?

    Columns: variable, kind (feature or descriptor), previous_mean, mean, unit, psi (population
    stability index, on the previous deciles or the levels), chance (the PSI that so few
    customers exceed in 5 % of cases without any drift), reading (stable, shifted or drifted),
    test (KS or χ²), statistic and p_value.
    """
    if before is None:
        return pd.DataFrame(columns=DRIFT)
    rows: list[dict[str, Any]] = []
    for name in [*card.features, *card.descriptors]:
        if name in before.customers and name in now.customers:
            measure = _compare_values if name in card.features else _compare_levels
            unit = card.features[name].unit if name in card.features else ""
            figures = measure(before.customers, now.customers, name)
            rows.append({"variable": card.label(name), "unit": unit, **figures})
    return pd.DataFrame(rows, columns=DRIFT)


def _compare_values(before: pd.DataFrame, now: pd.DataFrame, name: str) -> dict[str, Any]:
    from scipy.stats import ks_2samp  # half a second, and used here alone

    test = ks_2samp(*(draw_customers(table)[name].dropna() for table in (before, now)))
    means = [moments.mean(table[name], count_customers(table)) for table in (before, now)]
    told = {"kind": "feature", "previous_mean": means[0], "mean": means[1]}
    drift = _read_psi(count_bins(before, now, name))
    return {**told, **drift, "test": "KS", "statistic": test.statistic, "p_value": test.pvalue}


def _compare_levels(before: pd.DataFrame, now: pd.DataFrame, name: str) -> dict[str, Any]:
    from scipy.stats import chi2_contingency

    levels = [
        pd.Series(count_customers(table)).groupby(table[name].fillna("missing").to_numpy()).sum()
        for table in (before, now)
    ]
    counts = pd.concat(levels, axis=1).fillna(0).to_numpy(dtype=float)
    test = chi2_contingency(counts.T)
    drift = _read_psi(counts)
    facts = {"test": "χ²", "statistic": test.statistic, "p_value": test.pvalue}
    return {"kind": "descriptor", **drift, **facts}


def count_bins(before: pd.DataFrame, now: pd.DataFrame, name: str) -> Floats:
    """Customers (bins, 2) of two tables between the first one's deciles; the missing ones last."""
    tenths = moments.quantile(before[name], np.linspace(0.1, 0.9, 9), count_customers(before))
    edges = np.unique(tenths)
    columns = []
    for table in (before, now):
        known, counts = table[name].notna().to_numpy(), count_customers(table)
        bins = np.searchsorted(edges, table.loc[known, name], side="left")
        inside = np.bincount(bins, counts[known], minlength=len(edges) + 1)
        columns.append([*inside, counts[~known].sum()])
    counted = np.array(columns, dtype=float).T
    return counted[counted.sum(axis=1) > 0]


def measure_psi(counts: Floats) -> float:
    """Population stability index of two samples' counts (bins, 2), shares floored at 1e-4."""
    before, now = np.maximum(counts / counts.sum(axis=0), FLOOR).T
    return float(((now - before) * np.log(now / before)).sum())


def _read_psi(counts: Floats) -> dict[str, Any]:
    """The PSI, its 95 % quantile without drift (Yurdakul 2018), and the usual word for it."""
    psi = measure_psi(counts)
    chance = float(chdtri(max(1, len(counts) - 1), 0.05) * (1 / counts.sum(axis=0)).sum())
    reading = "drifted" if psi >= DRIFTED else "shifted" if psi >= SHIFTED else "stable"
    return {"psi": psi, "chance": chance, "reading": reading}


def score_customers(customers: pd.DataFrame, scorer: Scorer) -> Scores:
    """Where the model of a run puts customers (n rows, its columns among them)."""
    return scorer.score(*scorer.take(customers))


def measure_fit(before: Snapshot | None, now: Snapshot) -> pd.DataFrame:
    """How well the previous model fits: a row for its own customers, one for the new ones.

    Columns: customers_of (then or now), customers, distance (mean, to the nearest centre), shadow
    (mean shadow value, empty with one segment) and outside (share beyond what the model knew).
    """
    columns = ["customers_of", "customers", "distance", "shadow", "outside"]
    if before is None:
        return pd.DataFrame(columns=columns)
    rows: list[tuple[Any, ...]] = []
    for when, run in (("then", before), ("now", now)):
        scores = score_customers(run.customers, before.scorer)
        measures = scores.distance, 1 - scores.confidence, scores.status == OUTSIDE
        counts = count_customers(run.customers)
        means = [moments.mean(values, counts) for values in measures]
        rows.append((when, round(counts.sum()), *means))
    return pd.DataFrame(rows, columns=columns)


def measure_agreement(before: Snapshot, now: Snapshot) -> float:
    """ARI of the previous model's assignment of the new rows and the new one's own."""
    drawn = draw_customers(now.customers)
    positions = score_customers(drawn, before.scorer).position
    return float(adjusted_rand_score(positions, drawn["cluster"]))


# Advice ------------------------------------------------------------------------------------


def summarize_changes(
    before: Snapshot | None, now: Snapshot, changes: pd.DataFrame, drift: pd.DataFrame
) -> Summary:
    """The content of `changes.json`: what was compared, what is advised, and the reason.

    Advised is *keep* where no feature has drifted, the previous model agrees with the new one and
    nothing else has changed; *re-segment* where the number of segments or one of them has changed;
    else *refit*.
    """
    if before is None:
        return {"previous": None}
    matching = match_segments(now.customers, before)
    features = drift[drift["kind"] == "feature"]
    most = features.loc[features["psi"].idxmax()]
    facts: Summary = {
        "previous": before.run_id,
        "previous_day": before.day,
        "matched_by": matching.by,
        "recurring": matching.recurring,
        "previous_customers": before.size,
        "customers": now.size,
        "previous_k": len(before.segments),
        "k": len(now.segments),
        "more": len(now.segments) - len(before.segments),
        "changed": int((changes["transition"] != "survived").sum()),
        "drifted": int((features["psi"] >= DRIFTED).sum()),
        "variable": words.lower_first(str(most["variable"])),
        "psi": float(most["psi"]),
        "agreement": measure_agreement(before, now),
    }
    entry = words.pick(words.read_words()["advice"], facts)
    return {**facts, "advice": entry["advice"], "reason": words.write(entry["say"], facts)}


# For people --------------------------------------------------------------------------------


def summarize_previous(before: Snapshot | None, now: Snapshot) -> str:
    """What is compared with what, and how many customers are in both, in a sentence or two."""
    if before is None:
        return NOTHING
    matching = match_segments(now.customers, before)
    told = f"Compared with the run {before.run_id} of {before.size:,} customers"
    if COUNT in before.customers or COUNT in now.customers:
        why = "Its customers are" if COUNT in before.customers else "Those of this one are"
        return (
            f"{told}. {why} counted or sampled, not known one by one, so the segments are matched "
            "by their centres."
        )
    if matching.by == "centres":
        return (
            f"{told}, of whom {matching.recurring:.0%} are in this one: too few to follow, so the "
            "segments are matched by their centres."
        )
    stayed = int(matching.counts.to_numpy().sum())
    left, came = len(before.customers) - stayed, len(now.customers) - stayed
    return f"{told}: {stayed:,} of them are in this one, {left:,} left and {came:,} came."


def tabulate_changes(changes: pd.DataFrame) -> pd.DataFrame:
    """For people: one row a transition, the sizes and shares of both runs."""
    return pd.DataFrame(
        {
            "Before": changes["previous_segment"],
            "What happened": changes["transition"],
            "Now": changes["segment"],
            "Customers before": changes["previous_size"],
            "Customers now": changes["size"],
            "Share before": changes["previous_share"].map("{:.1%}".format, na_action="ignore"),
            "Share now": changes["share"].map("{:.1%}".format, na_action="ignore"),
            "Change": changes["points"].map(words.write_points, na_action="ignore"),
        }
    )


def describe_transitions(changes: pd.DataFrame) -> list[str]:
    """A sentence on each previous segment that does not simply continue, and on each new one."""
    return [words.say(kind, facts) for kind, facts in list_events(changes)]


def list_events(changes: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """What happened but survival: (transition, figures), a split or a merger once.

    The figures are those of the row, and the names on the other side as `parts` or `sources`;
    `kept` is 1 where one of these is the old segment itself, which is then not among them.
    """
    events = []
    for kind, side in (("split", "previous_cluster"), ("merged", "cluster")):
        for _, rows in changes[changes["transition"] == kind].groupby(side, sort=False):
            events.append((kind, _gather(rows, kind)))
    for kind in ("emerged", "disappeared"):
        rows = changes[changes["transition"] == kind].to_dict("records")
        events += [(kind, {str(name): value for name, value in row.items()}) for row in rows]
    return events


def _gather(rows: pd.DataFrame, kind: str) -> dict[str, Any]:
    many, names = ("segment", "parts") if kind == "split" else ("previous_segment", "sources")
    heir = rows["cluster"].eq(rows["previous_cluster"])
    facts = {str(name): value for name, value in rows.iloc[0].items()}
    listed = words.join(f"“{name}”" for name in rows.loc[~heir, many])
    return facts | {names: listed, "kept": int(heir.any())}


def summarize_transitions(changes: pd.DataFrame) -> str:
    """How many segments continue, and what became of the others, in a sentence each."""
    if changes.empty:
        return NOTHING
    survived = int((changes["transition"] == "survived").sum())
    total = changes["previous_cluster"].nunique()
    told = f"{survived} of {total} segments survived." if survived < total else ALL[total > 1]
    return " ".join([told, *describe_transitions(changes)])


def summarize_shares(changes: pd.DataFrame) -> str:
    """Which continuing segment grew and which shrank most, in a sentence."""
    points = changes.dropna(subset="points").set_index("segment")["points"]
    if points.empty:
        return NOTHING if changes.empty else "No segment continues."
    if points.abs().max() < 0.05:
        return "The segments that continue have the shares that they had."
    told = [f"“{name}” ({words.write_points(points[name])})" for name in _find_ends(points)]
    return f"The shares changed most for {words.join(told)}."


def _find_ends(values: pd.Series) -> list[Any]:
    """The labels of the largest rise and of the largest fall, where there is one."""
    ends = {values.idxmax(): values.max() > 0, values.idxmin(): values.min() < 0}
    return [label for label, there in ends.items() if there]


def tabulate_segments(before: Snapshot | None, now: Snapshot, card: Card) -> pd.DataFrame:
    """For people: one row a segment, its stability and its means then → now, in raw units."""
    former = {segment["id"]: segment for segment in before.segments} if before else {}
    rows = []
    for segment in now.segments if before else []:
        old = former.get(segment["id"])
        jaccards = [f"{s['stability']['jaccard']:.2f}" if s else "–" for s in (old, segment)]
        row = {"Segment": segment["name"], "Mean Jaccard": " → ".join(jaccards)}
        rows.append(row | _compare_means(old, segment, now, card))
    return pd.DataFrame(rows, columns=None if rows else ["Segment", "Mean Jaccard"])


def _compare_means(
    old: Segment | None, segment: Segment, now: Snapshot, card: Card
) -> dict[str, str]:
    """A segment's mean of each feature then → now, by the feature's title."""
    told = {}
    for name, feature in card.features.items():
        figures = [s["profile"].get(feature.label) if s else None for s in (old, segment)]
        spread = moments.sd(now.customers[name], count_customers(now.customers))
        shown = [words.write_measure(f["mean"], spread) if f else "–" for f in figures]
        told[feature.title] = " → ".join(shown)
    return told


def tabulate_migration(migration: pd.DataFrame) -> pd.DataFrame:
    """For people: one row a previous segment, how many of its customers are where now."""
    if migration.empty:
        return pd.DataFrame(columns=["From"])
    named = migration.fillna({"previous_segment": "(came)", "segment": "(left)"})
    shown = [
        f"{row.customers:,}" + ("" if pd.isna(row.previous_cluster) else f" ({row.share:.0%})")
        for row in named.assign(share=named["share_of_previous"].fillna(0)).itertuples()
    ]
    wide = named.assign(shown=shown).pivot(
        index="previous_segment", columns="segment", values="shown"
    )
    wide = wide.loc[named["previous_segment"].unique(), named["segment"].unique()].fillna("0")
    return wide.rename_axis("From", axis=0).rename_axis(None, axis=1).reset_index()


def summarize_migration(migration: pd.DataFrame) -> str:
    """How many of the customers in both runs are in the same segment, in a sentence."""
    both = migration.dropna(subset=["previous_cluster", "cluster"])
    if both.empty:
        return "There are no customers to follow from one run to the other."
    same = both[both["cluster"] == both["previous_cluster"]]["customers"].sum()
    moved = both[both["cluster"] != both["previous_cluster"]]
    told = f"{same:,} of {both['customers'].sum():,} customers are in the segment they were in."
    if moved.empty:
        return told
    most = moved.loc[moved["customers"].idxmax()]
    way = f"“{most['previous_segment']}” to “{most['segment']}”"
    return f"{told} The commonest move is from {way} ({most['customers']:,})."


def summarize_drift(drift: pd.DataFrame) -> str:
    """Which columns have drifted and which have shifted, in a sentence."""
    if drift.empty:
        return NOTHING
    told = []
    for reading in ("drifted", "shifted"):
        rows = drift[drift["reading"] == reading]
        listed = words.join(f"{r.variable} (PSI {r.psi:.2f})" for r in rows.itertuples())
        told += [f"{listed} {'has' if len(rows) == 1 else 'have'} {reading}."] if listed else []
    few = ((drift["psi"] >= SHIFTED) & (drift["psi"] <= drift["chance"])).any()
    told += ["With so few customers a PSI like that may be chance."] if few else []
    return " ".join(told) or "No column has shifted: every PSI is below 0.1."


def summarize_fit(fit: pd.DataFrame) -> str:
    """Whether customers now lie as close to the previous centres as those then, in a sentence."""
    if fit.empty:
        return NOTHING
    then, now = fit.to_dict("records")
    return (
        f"Under the previous model customers lie {now['distance']:.2f} from their centre on "
        f"average, then {then['distance']:.2f}; {now['outside']:.1%} lie outside what it knew."
    )


def summarize_advice(changes: pd.DataFrame, summary: Summary) -> str:
    """What became of the segments and what to do, in a few sentences."""
    if summary["previous"] is None:
        return NOTHING
    advice = f"Advice: {summary['advice']}. {summary['reason']}"
    return f"{summarize_transitions(changes)} {advice}"
