"""What changed since a previous run: who continues whom, who moved, what drifted, what to do.

Vocabulary of the transitions: MONIC (Spiliopoulou et al. 2006).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segmentation import ROOT, InputError, words
from segmentation.customers import Card, cards, hash_table
from segmentation.palette import PALETTE
from segmentation.runs import Archive, Manifest, Run, check_file, read_manifest
from segmentation.segments.profiles import Segment, list_segments
from segmentation.segments.scorer import OUTSIDE, Floats, Scorer

RECURRING = 0.5  # share of customers that recur from which on segments are matched by people
HALF, PART, WHOLE = 0.5, 0.25, 0.75  # shares of a survivor (both ways), a part, all parts together
FLOOR, SHIFTED, DRIFTED = 1e-4, 0.1, 0.2  # least share of a bin in the PSI; PSIs of what has moved
FALSE = 0.03  # how often chance alone may move a column; bins of the first table let pass more
DEALS = 300  # how often customers are dealt to the two tables anew, times the columns
COMPARED = ("tables/clustered_data.csv", "segments.json", "artifacts/segmenter.json")
RUNS, REMEMBERED = 11, ("id", "size", "share", "centre")  # earlier runs; what of their segments
MEND = "compare with another run by `against`, or with none."
CLUSTERS = ["previous_cluster", "cluster"]
SHARES = ["customers", "share_of_previous", "share_of_segment"]
MIGRATION = ["previous_cluster", "previous_segment", "cluster", "segment", *SHARES]
CHANGES = ["transition", *MIGRATION[:4], "previous_size", "size", "previous_share", "share"]
CHANGES += ["points", *SHARES]
DRIFT = ["variable", "kind", "previous_mean", "mean", "unit", "psi", "chance", "reading"]
DRIFT += ["test", "statistic", "p_value", "shift", "shift_low", "shift_high", "says"]
FIT = ["customers_of", "customers", "distance", "shadow", "outside"]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a run left behind, as far as another is compared with it.

    Attributes
    ----------
    customers : those with a segment, by id: cluster, features and descriptors as read, distance,
        confidence and status.
    segments : the content of its `segments.json`, in the order of the model's positions.
    scorer : its model; None where it has no centres.
    highest_id : the highest id that this run or one before it ever gave.
    day : the date of its data, else of the run, as ISO text. verdict : on its cut.
    history : the runs before it, oldest first: see `summarize_changes`.
    """

    run_id: str
    customers: pd.DataFrame
    segments: list[Segment]
    scorer: Scorer | None
    highest_id: int
    day: str = ""
    verdict: str = ""
    history: tuple[dict[str, Any], ...] = ()


class Matching(NamedTuple):
    """Which previous segment each one continues, and how that was told: by people or centres.

    `recurring` is the share of the previous customers who are there again, `pairs` the cluster
    before by the cluster now that survives it, `counts` the customers in both runs, clusters
    before by clusters now.
    """

    by: Literal["people", "centres"]
    recurring: float
    pairs: dict[int, int]
    counts: pd.DataFrame


def index_customers(clustered: pd.DataFrame, card: Card) -> pd.DataFrame:
    """The customers with a segment by their id; by nothing where there are no ids."""
    used = clustered[clustered["cluster"].notna()].astype({"cluster": int})
    return used.set_index(card.id) if card.id in used and card.id != cards.ROW else used


# Matching ----------------------------------------------------------------------------------


def match_segments(customers: pd.DataFrame, before: Snapshot) -> Matching:
    """Match the clusters of `customers` (by id, as of `index_customers`) to a previous run.

    On the people where at least half of the previous customers recur, else on the centres in the
    previous model's scale, where it has one. One segment that holds everyone continues only such.
    """
    then, now = before.customers["cluster"], customers["cluster"]
    both = find_both(then.index, now.index)
    shared = pd.crosstab(then[both].to_numpy(), now.reindex(both).to_numpy())
    ids = {"index": sorted(then.unique()), "columns": sorted(now.unique())}
    counts = shared.reindex(**ids, fill_value=0).astype(int)
    recurring = float(counts.to_numpy().sum() / len(before.customers))
    people, pairs = recurring >= RECURRING, dict[int, int]()
    if people:
        pairs = match_people(counts)
    elif before.scorer:
        scaled = pd.DataFrame(before.scorer.scale(*before.scorer.take(customers)))
        centres = scaled.groupby(now.to_numpy()).mean()
        matched = match_centres(before.scorer.centres, centres.to_numpy())
        pairs = {int(centres.index[j]): before.segments[i]["id"] for j, i in matched.items()}
    everyone = len(counts) == 1, len(counts.columns) == 1
    pairs = pairs if all(everyone) or not any(everyone) else {}
    return Matching("people" if people else "centres", recurring, pairs, counts)


def find_both(then: pd.Index, now: pd.Index) -> pd.Index:
    """The customers of two tables, by id; nobody where there are no ids."""
    return then.intersection(now) if then.name and then.name == now.name else then[:0]


def match_people(counts: pd.DataFrame) -> dict[int, int]:
    """The previous cluster that each cluster survives, of shared customers (before by now).

    At least half of the previous one's people are in it, and half of its own come from there;
    where halves tie, the Hungarian method finds the pairs that keep most people together.
    """
    half = (_divide(counts, axis=1) >= HALF) & (_divide(counts, axis=0) >= HALF)
    pairs = _assign(-counts.where(half, 0).to_numpy(float), half.to_numpy())
    return {int(counts.columns[j]): int(counts.index[i]) for j, i in pairs.items()}


def match_centres(before: Floats, now: Floats) -> dict[int, int]:
    """Match centroids (k, p) now to those before: the row before by the row now.

    Accepted are distances up to half that from the previous centroid to its nearest neighbour
    then; the Hungarian method makes most pairs, and of these the nearest ones.
    """
    from scipy.spatial.distance import cdist

    gaps, apart = cdist(before, now), cdist(before, before)
    np.fill_diagonal(apart, np.inf)
    near = gaps <= apart.min(axis=1, keepdims=True) / 2
    return _assign(np.where(near, gaps, 1 + gaps.sum()), near)


def _assign(cost: Floats, accepted: NDArray[np.bool_]) -> dict[int, int]:
    """The accepted ones of the cheapest pairs: the row by the column."""
    from scipy.optimize import linear_sum_assignment

    pairs = zip(*linear_sum_assignment(cost), strict=True)
    return {int(j): int(i) for i, j in pairs if accepted[i, j]}


def _divide(counts: pd.DataFrame, *, axis: int) -> pd.DataFrame:
    """Shares of the row (axis 1) or the column (axis 0) totals; 0 where nobody recurs."""
    return counts.div(counts.sum(axis=axis), axis=1 - axis).fillna(0)


# Identity ----------------------------------------------------------------------------------


def identify_segments(
    clustered: pd.DataFrame,
    profile: pd.DataFrame,
    card: Card,
    *,
    centres: pd.DataFrame,
    before: Snapshot | None = None,
) -> list[Segment]:
    """The core of `segments.json` with the identities of a previous run: see `list_segments`.

    `clustered` and its `profile` have positions as `cluster`; `centres` (k, p) are in raw units.
    What survives keeps id, name and colour. A new segment gets an id that was never given and a
    colour that no living one has, if possible none of the previous run's. Without a previous run
    the ids are the positions.
    """
    if before is None:
        return list_segments(profile, centres, card)
    pairs = match_segments(index_customers(clustered, card), before).pairs
    former = {segment["id"]: segment for segment in before.segments}
    kept = {position: former[number] for position, number in pairs.items()}
    segments = list_segments(profile, centres, card, kept=kept, former=before.segments)
    ids, used = count(before.highest_id + 1), [s["colour"] for s in before.segments]
    living = [segment["colour"] for segment in kept.values()]
    for position, segment in enumerate(segments):
        if known := kept.get(position):
            segment.update({"id": known["id"], "colour": known["colour"]})
        else:
            colour = min(PALETTE, key=lambda c: (living.count(c), used.count(c)))
            living.append(colour)
            segment.update({"id": next(ids), "colour": colour})
    return segments


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
    figures = counts, _divide(counts, axis=1), _divide(counts, axis=0)
    ways = pd.concat([figure.stack() for figure in figures], axis=1, keys=SHARES)
    ways = ways.rename_axis(CLUSTERS).reset_index()
    olds, news = (ways[name] for name in CLUSTERS)
    ancestor = news.map(matching.pairs)
    heir = olds.map({old: new for new, old in matching.pairs.items()})
    split = _are_parts(ways["share_of_previous"].where(ancestor.isna() | (ancestor == olds)), olds)
    merged = _are_parts(ways["share_of_segment"].where(heir.isna() | (heir == news)), news)
    tests = [split, merged, ancestor == olds]
    ways.insert(0, "transition", np.select(tests, ["split", "merged", "survived"], ""))
    told = ways[ways["transition"] != ""]
    if matching.by == "centres":
        told = told.assign(**dict.fromkeys(SHARES, np.nan))
    sides = zip(counts.axes, CLUSTERS, strict=True)
    gone, come = ({*known} - {*told[side]} for known, side in sides)
    ends = [("disappeared", old, pd.NA) for old in sorted(gone)]
    ends += [("emerged", pd.NA, new) for new in sorted(come)]
    table = pd.concat([told, pd.DataFrame(ends, columns=["transition", *CLUSTERS])])
    whole = dict.fromkeys([*CLUSTERS, SHARES[0]], "Int64")
    return table.reset_index(drop=True).astype(whole | dict.fromkeys(SHARES[1:], "float64"))


def _are_parts(shares: pd.Series, whole: pd.Series) -> pd.Series:
    """Which ways make, with others of the same whole, nearly all of it."""
    parts = shares.where(shares >= PART)
    each = parts.groupby(whole)
    return parts.notna() & (each.transform("count") > 1) & (each.transform("sum") >= WHOLE)


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
    table = table.sort_values(CLUSTERS, ignore_index=True)
    for side, run, share in zip(CLUSTERS, (before, now), SHARES[1:], strict=True):
        names = {segment["id"]: segment["name"] for segment in run.segments}
        table[side.replace("cluster", "segment")] = table[side].map(names)
        totals = table.groupby(side)["customers"].transform("sum")
        table[share] = table["customers"] / totals
    return table[MIGRATION]


# Drift and fit -----------------------------------------------------------------------------


def measure_drift(
    before: Snapshot | None, now: Snapshot, card: Card, *, seed: int = 0
) -> pd.DataFrame:
    """One row a column known in both runs: has its distribution moved?

    Columns: variable, kind (feature or descriptor), previous_mean, mean, unit, psi (population
    stability index, on the previous deciles or the levels), chance (the PSI that, without any
    drift, no column exceeds in 97 % of pairs of tables), reading (stable, or beyond chance:
    shifted or drifted), test (KS or χ²), statistic, p_value, and of a feature shift (mean −
    previous_mean) with its 95 % interval, shift_low to shift_high: see `measure_shift`; says has
    that in a sentence.
    """
    if before is None:
        return pd.DataFrame(columns=DRIFT)
    known = [*card.features, *card.descriptors]
    names = [name for name in known if name in before.customers and name in now.customers]
    rng = np.random.default_rng(seed)
    rows = []
    for name in names:
        told = _compare(before.customers, now.customers, name, card)
        counts = told.pop("counts")
        psi, chance = measure_psi(counts), measure_chance(counts, rng, columns=len(names))
        moved = psi if psi > chance else 0.0
        reading = "drifted" if moved >= DRIFTED else "shifted" if moved >= SHIFTED else "stable"
        figures = {"psi": psi, "chance": chance, "reading": reading}
        row = {"variable": card.labels[name], **told, **figures}
        rows.append(row | {"says": words.say("shift", row) if "shift" in row else ""})
    return pd.DataFrame(rows, columns=DRIFT)


def _compare(before: pd.DataFrame, now: pd.DataFrame, name: str, card: Card) -> dict[str, Any]:
    """The tests of one column, and its `counts` (bins or levels, 2) before and now."""
    from scipy.stats import chi2_contingency, ks_2samp  # half a second, and used here alone

    if name in card.features:
        told: dict[str, Any] = {"kind": "feature", "unit": card.features[name].unit, "test": "KS"}
        told |= {"previous_mean": before[name].mean(), "mean": now[name].mean()}
        told |= measure_shift(before[name].dropna(), now[name].dropna())
        counts = count_bins(before, now, name)
        test = ks_2samp(before[name].dropna(), now[name].dropna())
    else:
        told = {"kind": "descriptor", "unit": "", "test": "χ²"}
        levels = pd.concat([before[name], now[name]], keys=["before", "now"]).fillna("missing")
        runs = levels.index.get_level_values(0)
        counts = pd.crosstab(levels.to_numpy(), runs).to_numpy(dtype=float)
        test = chi2_contingency(counts.T)
    return told | {"statistic": test.statistic, "p_value": test.pvalue, "counts": counts}


def measure_shift(before: pd.Series, now: pd.Series) -> dict[str, float]:
    """How far a mean has moved, with its 95 % interval: shift, shift_low and shift_high.

    Of the values (n,) and (m,) of two tables by customer. Who is in both is paired, who is in one
    counts as well: the t test for partially overlapping samples of Derrick et al. (2017).

    Examples
    --------
    >>> before = pd.Series([20.0, 40.0, 60.0], index=pd.Index(["a", "b", "c"], name="id"))
    >>> {name: round(at, 2) for name, at in measure_shift(before, before + [1, 2, 3]).items()}
    {'shift': 2.0, 'shift_low': -0.48, 'shift_high': 4.48}
    """
    from scipy.special import stdtrit

    both = find_both(before.index, now.index)
    n, m, paired = len(before), len(now), len(both)
    shift = float(now.mean() - before.mean())
    if min(n, m) < 2:
        return {"shift": shift}
    with np.errstate(invalid="ignore", divide="ignore"):  # of constant values
        r = np.nan_to_num(np.corrcoef(before[both], now[both])[0, 1]) if paired > 1 else 0.0
    a, b = before.var() / n, now.var() / m
    error = max(a + b - 2 * r * (a * b / (n * m)) ** 0.5 * paired, 0.0) ** 0.5
    welch = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1)) if a + b else 1.0
    freedom = paired - 1 + (welch - paired + 1) * (n + m - 2 * paired) / (n + m)
    half = float(stdtrit(max(freedom, 1.0), 0.975)) * error
    return {"shift": shift, "shift_low": shift - half, "shift_high": shift + half}


def count_bins(before: pd.DataFrame, now: pd.DataFrame, name: str) -> Floats:
    """Customers (bins, 2) of two tables between the first one's deciles; the missing ones last."""
    deciles = np.unique(before[name].quantile(np.linspace(0.1, 0.9, 9)).dropna())
    values = pd.concat([before[name], now[name]], keys=["before", "now"])
    bins = pd.cut(values, [-np.inf, *deciles, np.inf], labels=False).fillna(len(deciles) + 1)
    return pd.crosstab(bins, values.index.get_level_values(0)).to_numpy(dtype=float)


def measure_psi(counts: Floats) -> Any:
    """Population stability index of two samples' counts (…, bins, 2), shares floored at 1e-4."""
    shares = np.maximum(counts / counts.sum(axis=-2, keepdims=True), FLOOR)
    before, now = shares[..., 0], shares[..., 1]
    return ((now - before) * np.log(now / before)).sum(axis=-1)


def measure_chance(counts: Floats, rng: np.random.Generator, *, columns: int) -> float:
    """The PSI of counts (bins, 2) that chance exceeds in one of so many columns in 3 % of cases.

    A permutation test: the customers of both tables are dealt to them anew. The χ² approximation
    of the PSI (Yurdakul 2018) is no help where bins are empty, as of 50 customers.
    """
    both = counts.sum(axis=1).astype(int)
    deals = min(DEALS * columns, max(DEALS, 10**6 // len(both)))  # of many levels, fewer
    before = rng.multivariate_hypergeometric(both, int(counts[:, 0].sum()), deals, "marginals")
    dealt = np.stack([before, both - before], axis=-1)
    return float(np.quantile(measure_psi(dealt), 1 - FALSE / columns, method="higher"))


def measure_fit(before: Snapshot | None, now: Snapshot) -> pd.DataFrame:
    """How well the previous model fits: a row for its own customers, one for the new ones.

    Columns: customers_of (then or now), customers, distance (mean, to the nearest centre), shadow
    (mean shadow value, empty with one segment) and outside (share beyond what the model knew). No
    rows without a previous run, or where its model has no centres.
    """
    if before is None or before.scorer is None:
        return pd.DataFrame(columns=FIT)
    rows = []
    for when, run in (("then", before), ("now", now)):
        scores = before.scorer.score(*before.scorer.take(run.customers))
        rival = pd.Series(scores.rival).where(np.isfinite)
        shadow = 2 * scores.distance / (scores.distance + rival)
        means = np.nanmean(scores.distance), shadow.mean(), np.mean(scores.status == OUTSIDE)
        rows.append((when, len(run.customers), *means))
    return pd.DataFrame(rows, columns=FIT)


# Advice ------------------------------------------------------------------------------------


def _measure_agreement(before: Snapshot, now: Snapshot) -> float:
    """ARI of the segments now and those by the previous model, or else of the previous run."""
    from sklearn.metrics import adjusted_rand_score

    if before.scorer is not None:
        told = before.scorer.score(*before.scorer.take(now.customers)).position
        return float(adjusted_rand_score(told, now.customers["cluster"]))
    both = before.customers.index.intersection(now.customers.index)
    own = (run.customers["cluster"][both] for run in (before, now))
    return float(adjusted_rand_score(*own))


def summarize_changes(
    before: Snapshot | None, now: Snapshot, changes: pd.DataFrame, drift: pd.DataFrame
) -> dict[str, Any]:
    """The content of `changes.json`: what was compared, what is advised, the reason, the roles.

    `history` tells of the last runs, oldest first and the previous one last: its day and of each
    segment id, size, share and centre in raw units. Without a previous run it is
    `{"previous": None}`.

    Advised is *keep* where no feature has drifted, the previous model agrees with the new one and
    nothing else has changed; *re-segment* where the number of segments or one of them has changed;
    else *refit*.
    """
    if before is None:
        return {"previous": None}
    matching = match_segments(now.customers, before)
    features = drift[drift["kind"] == "feature"]
    drifted = features["reading"] == "drifted"
    most = features.loc[features["psi"].where(drifted | ~drifted.any()).idxmax()]
    facts = {
        "previous": before.run_id,
        "previous_day": before.day,
        "matched_by": matching.by,
        "recurring": matching.recurring,
        "previous_customers": len(before.customers),
        "customers": len(now.customers),
        "previous_k": len(before.segments),
        "k": len(now.segments),
        "more": len(now.segments) - len(before.segments),
        "changed": int((changes["transition"] != "survived").sum()),
        "drifted": int(drifted.sum()),
        "variable": words.lower_first(str(most["variable"])),
        "psi": float(most["psi"]),
        "agreement": _measure_agreement(before, now),
    }
    if matching.by == "people":
        then, is_now = before.customers["cluster"], now.customers["cluster"]
        both = find_both(then.index, is_now.index)
        facts |= {"stayed": len(both), "switched": int((then[both] != is_now[both]).sum())}
        facts |= {"came": len(is_now) - len(both), "left": len(then) - len(both)}
    entry = words.pick(words.read_words()["advice"], facts)
    told = {"advice": entry["advice"], "reason": words.write(entry["say"], facts)}
    segments = [dict(segment) for segment in before.segments]
    own = [{name: each[name] for name in REMEMBERED} for each in segments]
    history = [*before.history, {"day": before.day, "segments": own}][-RUNS:]
    return {**facts, **told, "roles": _list_roles(before, now), "history": history}


def _list_roles(before: Snapshot, now: Snapshot) -> list[dict[str, str]]:
    """The segments of both runs that have another role or action now, each with a sentence."""
    rows, former = [], {segment["id"]: segment for segment in before.segments}
    for new in now.segments:
        old = former.get(new["id"], new)
        if min(new["size"], old["size"]) < words.FEWEST or not {"roles", "actions"} <= {*old, *new}:
            continue
        row = {"segment": new["name"]}
        for prefix, segment in (("previous_", old), ("", new)):
            row[f"{prefix}role"] = words.join(segment["roles"])
            row[f"{prefix}action"] = " ".join(segment["actions"])
        same = row["role"] == row["previous_role"]
        if not same or row["action"] != row["previous_action"]:
            rows.append(row | {"sentence": words.say("role", row | {"same": int(same)})})
    return rows


# What happened, in words -------------------------------------------------------------------


def describe_transitions(changes: pd.DataFrame) -> list[str]:
    """A sentence on each previous segment that does not simply continue, and on each new one.

    A split or a merger is told once, with the names on its other side, without one that keeps the
    old segment's identity.
    """
    told = []
    for kind, side, other, names in (
        ("split", "previous_cluster", "segment", "parts"),
        ("merged", "cluster", "previous_segment", "sources"),
    ):
        for _, rows in changes[changes["transition"] == kind].groupby(side, sort=False):
            heir = rows["cluster"].eq(rows["previous_cluster"])
            listed = words.join(f"“{name}”" for name in rows.loc[~heir, other])
            facts = {**rows.iloc[0], names: listed, "kept": int(heir.any())}
            told.append(words.say(kind, facts))
    for kind in ("emerged", "disappeared"):
        rows = changes[changes["transition"] == kind]
        told += [words.say(kind, {**row}) for _, row in rows.iterrows()]
    return told


# The previous run --------------------------------------------------------------------------


def find_previous(folder: Path, card: Card, *, against: str = "previous") -> Snapshot | None:
    """The published run that the one in a folder is compared with; None where there is none.

    Parameters
    ----------
    folder : of the run at hand; the others lie in the same output folder.
    against : an id in that folder, or a path; `none`; or `previous`: the newest published run
        with the card's title and the same columns in the distance, of another table (by its
        SHA-256) and of no later date.

    Raises
    ------
    InputError
        There is no such run, it was not published, a file of it was changed, or the card lacks a
        column that it was cut by.
    """
    if against == "none":
        return None
    place = Run(folder).outputs
    if against == "previous":
        digest = hash_table(card)
        published = (run.folder for run in Archive(place).list_published())
        found = next((folder for folder in published if _is_previous(folder, card, digest)), None)
        return read_snapshot(found, card) if found else None
    for folder in ((place / against).resolve(), (ROOT / against).resolve()):
        manifest = read_manifest(folder)
        if manifest and manifest.status == "published":
            _verify(folder, manifest)
            return read_snapshot(folder, card)
    raise InputError(
        f"against: {against} is no published run; give an id in the output folder, a path or none."
    )


def _is_previous(folder: Path, card: Card, digest: str) -> bool:
    manifest = read_manifest(folder)
    if not manifest or manifest.title != card.title or manifest.input.get("sha256") == digest:
        return False
    later = card.as_of and manifest.as_of and manifest.as_of > card.as_of.isoformat()
    if later or not {*COMPARED[:2]} <= {entry.path for entry in manifest.files}:
        return False
    _verify(folder, manifest)
    try:
        scorer = _read_scorer(folder)
    except InputError:
        return False
    return scorer is None or {*scorer.columns, *scorer.levels} == {*card.distance}


def _verify(folder: Path, manifest: Manifest) -> None:
    """Refuse a run of which a file that is compared is not what it wrote."""
    listed = {entry.path for entry in manifest.files} | {*COMPARED[:2]}
    for name in COMPARED:
        if name in listed or (folder / name).exists():
            check_file(folder, manifest, name, mend=MEND)


def read_snapshot(folder: Path, card: Card) -> Snapshot:
    """What the run in a folder left behind, as far as another is compared with it.

    Raises
    ------
    InputError
        A file is missing or of another version, or the card lacks a column that was cut by.
    """
    scorer, run = _read_scorer(folder), Run(folder)
    cut_by = [*scorer.columns, *scorer.levels] if scorer else []
    if gone := [name for name in cut_by if name not in card.labels]:
        raise InputError(f"{folder.name} was cut by {gone[0]}, unknown to the card; {MEND}")
    texts = (card.id, *card.descriptors, "segment", "second", "status")
    customers = index_customers(run.read_table("clustered_data.csv", text=texts), card)
    segments = run.read_json("segments.json")
    given = scorer.figures.highest_id if scorer else 0
    highest = max(given, *(segment["id"] for segment in segments))
    day = (run.manifest.as_of or run.manifest.started)[:10]
    verdict = run.manifest.verdict or ""
    told = folder / "tables" / "changes.json"  # not of runs of earlier versions
    history = run.read_json(told.name).get("history", []) if told.is_file() else []
    return Snapshot(folder.name, customers, segments, scorer, highest, day, verdict, (*history,))


def _read_scorer(folder: Path) -> Scorer | None:
    """The model of a run; None where it left none, for it has no centres."""
    path = folder / COMPARED[2]
    try:
        return Scorer(json.loads(path.read_text("utf-8"))) if path.is_file() else None
    except ValueError:
        raise InputError(f"{folder.name} was written by another version; {MEND}") from None
