"""How many segments: one row per K, every rule's answer, the choice and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from segmentation import words
from segmentation.clustering import kmeans, stability
from segmentation.clustering.kmeans import Fit, Floats, Labels

STARTS, FEWER_STARTS = 100, 20
"""Starts of a fit: many are cheap on a small table, and K = 6 of the bundled one needs them."""

SAMPLE = 10_000
"""Silhouettes of more rows than this are those of a seeded sample; fits have fewer starts."""

FAMILY_WISE = 0.95
LEAST_EXCESS = 0.06
LEAST_SHARE = 0.05
STRONG = 0.8
RETURNING = 0.75
NEAR_BEST = 0.8
STABLE = 0.75
REPRODUCIBLE = 0.8
DEFAULT_RULE = "calibrated"

Verdict = Literal["natural", "reproducible", "constructive", "none"]


class Answer(TypedDict):
    """What one rule says: its K (None where it finds none) and why."""

    k: int | None
    reason: str


class Selection(TypedDict):
    """The choice that `selection.json` hands over."""

    k: int
    asked: bool
    rule: str
    rules: dict[str, int | None]
    reason: str
    verdict: NotRequired[Verdict]
    certainty: NotRequired[str]


# One row per K


def fit_all(
    matrix: ArrayLike,
    *,
    k_max: int = 10,
    k: int = 0,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> dict[int, Fit]:
    """The best cut of the scaled features (n, p) for each K = 1…k_max and the K asked for.

    Here and below a row counts as so many customers as its weight says, one where none is given.
    """
    rows = np.asarray(matrix, dtype=float)
    others = int(kmeans.weigh(len(rows), weights).sum()) - 1
    most = min(k_max, others, _count_distinct(rows, enough=k_max))
    wanted = sorted({*range(1, most + 1), *([k] if k else [])})
    return {each: fit_best(rows, each, weights=weights, seed=seed) for each in wanted}


def _count_distinct(rows: Floats, *, enough: int) -> int:
    """Count the different rows; those of the first 10 000 where they are enough."""
    first = len(np.unique(rows[:SAMPLE], axis=0))
    return first if first >= enough else len(np.unique(rows, axis=0))


def fit_best(matrix: ArrayLike, k: int, *, weights: ArrayLike | None = None, seed: int = 0) -> Fit:
    """The best cut of a matrix (n, p) into k: of 100 starts, of 20 above 10 000 rows."""
    rows = np.asarray(matrix, dtype=float)
    return kmeans.fit(rows, k, starts=count_starts(len(rows)), weights=weights, seed=seed)


def count_starts(rows: int) -> int:
    """How many starts a fit to so many rows has."""
    return STARTS if rows <= SAMPLE else FEWER_STARTS


def measure(
    matrix: ArrayLike,
    fits: dict[int, Fit],
    *,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per K of `fits`, with the criteria that need no resampling.

    Columns: k, inertia, best_share (of the starts), elbow, silhouette and its standard error,
    calinski_harabasz, davies_bouldin, smallest_share. Undefined cells are empty.
    """
    rows = np.asarray(matrix, dtype=float)
    weight = kmeans.weigh(len(rows), weights)
    table = pd.DataFrame([_measure_fit(rows, k, fit, weight) for k, fit in fits.items()])
    table = table.merge(_measure_silhouettes(rows, fits, weight, seed), on="k", how="left")
    elbow = find_elbow(table)
    table["elbow"] = pd.array([None if elbow is None else k == elbow for k in table["k"]])
    return table


def _measure_fit(rows: Floats, k: int, fit: Fit, weights: Floats) -> dict[str, Any]:
    cut = 1 < k < weights.sum()
    ratio, overlap = measure_indices(rows, fit.labels, weights) if cut else (np.nan, np.nan)
    return {
        "k": k,
        "inertia": fit.inertia,
        "best_share": fit.best_share,
        "smallest_share": np.bincount(fit.labels, weights, k).min() / weights.sum(),
        "calinski_harabasz": ratio,
        "davies_bouldin": overlap,
    }


def measure_indices(rows: Floats, labels: Labels, weights: Floats) -> tuple[float, float]:
    """Calinski–Harabasz (1974) and Davies–Bouldin (1979) of a cut of weighted rows (n, p)."""
    sizes = np.bincount(labels, weights).astype(float)
    held, per = sizes > 0, np.maximum(sizes, np.finfo(float).tiny)
    sums = [np.bincount(labels, weights * column) for column in rows.T]
    centres, away = np.stack(sums, axis=1) / per[:, None], np.zeros(len(rows))
    for column, middle in zip(rows.T, centres.T, strict=True):
        away += (column - middle[labels]) ** 2
    spread = np.bincount(labels, weights * np.sqrt(away)) / per
    ratio = _compare_variances(sizes[held], centres[held], float(weights @ away))
    return ratio, _compare_neighbours(centres[held], spread[held])


def _compare_variances(sizes: Floats, centres: Floats, within: float) -> float:
    """Calinski–Harabasz from sizes (k,), centres (k, p) and the sum of squares within."""
    k, customers = len(sizes), sizes.sum()
    away = ((centres - sizes @ centres / customers) ** 2).sum(axis=1)
    return float(sizes @ away * (customers - k) / (within * (k - 1))) if within > 0 else 1.0


def _compare_neighbours(centres: Floats, spread: Floats) -> float:
    """Davies–Bouldin from centres (k, p) and the mean distances to them (k,)."""
    apart = cdist(centres, centres)
    if np.allclose(spread, 0) or np.allclose(apart, 0):
        return 0.0
    near = (spread[:, None] + spread) / np.where(apart > 0, apart, np.inf)
    return float(near.max(axis=1).mean())


def _measure_silhouettes(
    rows: Floats, fits: dict[int, Fit], weights: Floats, seed: int
) -> pd.DataFrame:
    """Mean silhouette and its standard error (0 where every row was counted) per K ≥ 2."""
    ks = [k for k in fits if k > 1]
    if not ks:
        return pd.DataFrame({"k": [], "silhouette": [], "silhouette_se": []})
    drawn, counts = np.arange(len(rows)), weights
    if sampled := len(rows) > SAMPLE:
        drawn = stability.resampling_rows(len(rows), limit=SAMPLE, weights=weights, seed=seed)
        counts = np.ones(len(drawn))
    labels = np.array([fits[k].labels[drawn] for k in ks])
    values = kmeans.silhouettes(rows[drawn], labels, weights=counts)
    errors = values.std(axis=1, ddof=1) / np.sqrt(len(drawn)) * sampled
    means = np.average(values, axis=1, weights=counts)
    return pd.DataFrame({"k": ks, "silhouette": means, "silhouette_se": errors})


def measure_silhouettes(
    matrix: ArrayLike, fit: Fit, *, weights: ArrayLike | None = None, seed: int = 0
) -> pd.DataFrame:
    """The silhouette of each customer in one cut: columns cluster, silhouette (Rousseeuw 1987).

    Clusters are numbered by size, the largest 0. Above 10 000 customers, of a seeded sample.
    """
    rows = np.asarray(matrix, dtype=float)
    sizes = np.bincount(fit.labels, kmeans.weigh(len(rows), weights))
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    drawn = stability.resampling_rows(len(rows), limit=SAMPLE, weights=weights, seed=seed)
    values = kmeans.silhouettes(rows[drawn], fit.labels[drawn])[0]
    return pd.DataFrame({"cluster": rank[fit.labels[drawn]], "silhouette": values})


def measure_gap(
    matrix: ArrayLike,
    *,
    k_max: int = 10,
    resamples: int = 100,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The gap statistic per K: columns k, gap, gap_se; of a sample above 2 000 customers."""
    rows = _sample(matrix, weights, seed)
    most = min(k_max, len(np.unique(rows, axis=0)) - 1)
    return stability.gap_statistic(rows, k_max=max(1, most), references=resamples, seed=seed)


# Resampling


@dataclass(frozen=True)
class Resamples:
    """What resampling gave: a column per K of ARIs and prediction strengths, Jaccards per K.

    Attributes
    ----------
    aris : DataFrame (pairs, K)
    strengths : DataFrame (halvings, K)
    jaccards : {K: (resamples, K) array}
    rows : int
        Customers who were resampled: all, or a seeded sample of 2 000.
    """

    aris: pd.DataFrame
    strengths: pd.DataFrame
    jaccards: dict[int, Floats]
    rows: int


def resample(
    matrix: ArrayLike,
    ks: Iterable[int],
    *,
    resamples: int = 100,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> Resamples:
    """Cut again and again: bootstrap ARI, prediction strength and Jaccards for each K ≥ 2.

    `resamples` pairs of bootstrap samples, half as many halvings, as many Jaccard resamples.
    """
    rows = _sample(matrix, weights, seed)
    halvings = max(1, resamples // 2)
    wanted = [k for k in ks if 1 < k <= len(rows) // 2]
    aris = {k: stability.bootstrap_ari(rows, k, pairs=resamples, seed=seed) for k in wanted}
    strengths = {
        k: stability.prediction_strength(rows, k, halvings=halvings, seed=seed) for k in wanted
    }
    jaccards = {k: _resample_jaccards(rows, k, resamples, seed) for k in wanted}
    return Resamples(pd.DataFrame(aris), pd.DataFrame(strengths), jaccards, len(rows))


def _resample_jaccards(rows: Floats, k: int, resamples: int, seed: int) -> Floats:
    labels = fit_best(rows, k, seed=seed).labels
    return stability.jaccard_bootstrap(rows, labels, resamples=resamples, seed=seed)


def _sample(matrix: ArrayLike, weights: ArrayLike | None, seed: int) -> Floats:
    """The rows of all customers, or of a seeded sample of 2 000."""
    rows = np.asarray(matrix, dtype=float)
    return rows[stability.resampling_rows(len(rows), weights=weights, seed=seed)]


def add_resamples(table: pd.DataFrame, resampled: Resamples) -> pd.DataFrame:
    """The table with prediction_strength (1 at K = 1), ari_mean, ari_q25 … and jaccard_min."""
    aris = resampled.aris
    figures = pd.DataFrame(
        {
            "prediction_strength": resampled.strengths.mean(),
            "ari_mean": aris.mean(),
            "ari_q25": aris.quantile(0.25),
            "ari_median": aris.median(),
            "ari_q75": aris.quantile(0.75),
            "jaccard_min": {k: v.mean(axis=0).min() for k, v in resampled.jaccards.items()},
        }
    )
    joined = table.merge(figures.rename_axis("k").reset_index(), on="k", how="left")
    joined.loc[joined["k"] == 1, "prediction_strength"] = 1.0
    return joined


def draw_null(
    matrix: ArrayLike,
    ks: Iterable[int],
    *,
    draws: int = 99,
    halvings: int = 20,
    pairs: int = 10,
    weights: ArrayLike | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> pd.DataFrame:
    """The table's own figures (draw −1) beside those of structureless data like it (draw ≥ 0).

    Columns draw, k ≥ 2, silhouette, prediction_strength, ari, all with the same counts on the
    same number of rows, so that they may be compared. See `stability.fit_null`.
    """
    rows = _sample(matrix, weights, seed)
    wanted = [k for k in ks if k > 1]
    if not wanted:
        return pd.DataFrame(columns=["k", "silhouette", "prediction_strength", "ari", "draw"])
    counts: dict[str, Any] = {
        "halvings": halvings,
        "pairs": pairs,
        "seed": seed,
        "threads": threads,
    }
    own = stability.measure_cuts(rows, wanted, **counts).assign(draw=-1)
    return pd.concat([own, stability.null_table(rows, wanted, draws=draws, **counts)])


def scale_counts(resamples: int) -> dict[str, int]:
    """The counts of `draw_null` at a scale; 100 gives 99 draws, 20 halvings and 10 pairs."""
    counts = {"halvings": resamples // 5, "pairs": resamples // 10}
    return {"draws": max(19, resamples - 1), **{name: max(1, n) for name, n in counts.items()}}


def add_null(table: pd.DataFrame, null: pd.DataFrame) -> pd.DataFrame:
    """The table with the null's mean and 95 % quantile of each figure, and the gate.

    Columns null_silhouette, null_silhouette_q95 (likewise prediction_strength, ari),
    compared_silhouette, compared_prediction_strength, compared_ari (the table's own figures, with
    the null's counts) and those of `open_gate`.
    """
    figures = ["silhouette", "prediction_strength", "ari"]
    own = null[null["draw"] < 0].set_index("k")[figures]
    chance = null[null["draw"] >= 0].groupby("k")[figures]
    parts = [
        chance.mean().add_prefix("null_"),
        chance.quantile(FAMILY_WISE).add_prefix("null_").add_suffix("_q95"),
        own.add_prefix("compared_"),
    ]
    joined = table.merge(pd.concat(parts, axis=1).reset_index(), on="k", how="left")
    joined = joined.merge(open_gate(joined, null), on="k", how="left")
    return joined.astype({"gated": "boolean"})


def open_gate(table: pd.DataFrame, null: pd.DataFrame) -> pd.DataFrame:
    """Which K stand clear of structureless data: columns k, excess, z, gated.

    The silhouette's z-score in the null must exceed the 95 % quantile of the null draws' own
    largest z over K (family-wise), the silhouette lie 0.06 above the null's mean, and no segment
    be smaller than 5 %.
    """
    wide = null.pivot_table(index="draw", columns="k", values="silhouette")
    drawn = wide[wide.index >= 0]
    spread = drawn.std().where(lambda sd: sd > 0)
    threshold = ((drawn - drawn.mean()) / spread).max(axis=1).quantile(FAMILY_WISE)
    gate = pd.DataFrame({"excess": wide.loc[-1] - drawn.mean()})
    gate["z"] = gate["excess"] / spread
    large = table.set_index("k")["smallest_share"].reindex(gate.index) >= LEAST_SHARE
    clear = gate["z"].fillna(np.inf) > threshold
    gate["gated"] = clear & (gate["excess"] >= LEAST_EXCESS) & large
    return gate.reset_index()


# Rules


def find_elbow(table: pd.DataFrame) -> int | None:
    """The K at which kneedle finds the elbow of inertia, or None (Satopää et al. 2011, S = 1)."""
    curve = table.sort_values("k")
    if len(curve) < 3:
        return None
    from kneed import KneeLocator  # which brings all of matplotlib

    found = KneeLocator(curve["k"], curve["inertia"], S=1, curve="convex", direction="decreasing")
    return None if found.elbow is None else int(found.elbow)


def find_eligible(table: pd.DataFrame) -> pd.DataFrame:
    """The gated K that halves of the table predict (strength above 0.75), with their score.

    score = excess of the silhouette over the null's mean, times prediction strength.
    """
    returning = find_gated(table)[lambda gated: gated["prediction_strength"] > RETURNING]
    return returning.assign(score=returning["excess"] * returning["prediction_strength"])


def find_gated(table: pd.DataFrame) -> pd.DataFrame:
    """The K that stand clear of structureless data."""
    return table[table["gated"].fillna(False).astype(bool)]


def answer_calibrated(table: pd.DataFrame) -> Answer:
    """The largest K whose score comes near the best one (0.8 of it) among the eligible; else 1."""
    eligible = find_eligible(table)
    if eligible.empty:
        gated = _list(find_gated(table)["k"])
        why = f"clear of structureless data, but not predicted by halves, is K = {gated}"
        return {"k": 1, "reason": why if gated else "no K stands clear of structureless data"}
    near = eligible[eligible["score"] >= NEAR_BEST * eligible["score"].max()]
    return {
        "k": int(near["k"].max()),
        "reason": f"clear of structureless data and predicted by halves is K = "
        f"{_list(eligible['k'])}; the largest that scores near the best",
    }


def answer_silhouette(table: pd.DataFrame) -> Answer:
    """The K with the largest mean silhouette (Rousseeuw 1987)."""
    if table["silhouette"].isna().all():
        return {"k": None, "reason": "no K has a silhouette"}
    best = table.loc[table["silhouette"].idxmax()]
    reason = f"the mean silhouette is largest here ({best['silhouette']:.3f})"
    return {"k": int(best["k"]), "reason": reason}


def answer_elbow(table: pd.DataFrame) -> Answer:
    """Kneedle's elbow of inertia, else the largest second difference."""
    if (k := find_elbow(table)) is not None:
        return {"k": k, "reason": "the curve of inertia bends most here (kneedle)"}
    if len(table) < 3:
        return {"k": None, "reason": "fewer than three K were tried"}
    bend = np.diff(table["inertia"], n=2)
    k = int(table["k"].iloc[int(bend.argmax()) + 1])
    return {"k": k, "reason": "kneedle finds no elbow; inertia's second difference is largest here"}


def answer_gap(table: pd.DataFrame) -> Answer:
    """The first K whose gap is within one standard error of the first maximum (firstSEmax)."""
    gaps = table.dropna(subset="gap").sort_values("k")
    if gaps.empty:
        return {"k": None, "reason": "no K has a gap"}
    answers = stability.gap_choices(gaps["gap"], gaps["gap_se"])
    first, *others = answers.items()
    beside = ", ".join(f"{rule} says {k}" for rule, k in others)
    return {"k": first[1], "reason": f"{first[0]}; {beside}"}


def answer_prediction_strength(table: pd.DataFrame) -> Answer:
    """The largest K with a prediction strength above 0.8 (Tibshirani & Walther 2005)."""
    strong = table[table["prediction_strength"] > STRONG]
    best = strong.loc[strong["k"].idxmax()]
    if best["k"] == 1:
        return {"k": 1, "reason": f"no K ≥ 2 has a prediction strength above {STRONG}"}
    figure = f"{best['prediction_strength']:.2f}"
    return {"k": int(best["k"]), "reason": f"the largest K above {STRONG} (it has {figure})"}


def answer_stability(table: pd.DataFrame) -> Answer:
    """The best silhouette among K that come back: ARI above the null, all Jaccards ≥ 0.75."""
    back = table[(table["compared_ari"] > table["null_ari_q95"]) & (table["jaccard_min"] >= STABLE)]
    if back.empty:
        return {"k": 1, "reason": "no K comes back more often than structureless data does"}
    best = back.loc[back["silhouette"].idxmax()]
    reason = f"of K = {_list(back['k'])}, which come back, it has the largest silhouette"
    return {"k": int(best["k"]), "reason": reason}


def _list(ks: Iterable[Any]) -> str:
    return words.join(f"{int(k)}" for k in ks)


def _name_ks(ks: Iterable[Any]) -> str:
    return f"K = {listed}" if (listed := _list(ks)) else "no K"


RULES = {
    "calibrated": answer_calibrated,
    "silhouette": answer_silhouette,
    "elbow": answer_elbow,
    "gap": answer_gap,
    "prediction-strength": answer_prediction_strength,
    "stability": answer_stability,
}


def ask_rules(table: pd.DataFrame) -> pd.DataFrame:
    """Every rule's answer, side by side: columns rule, k, reason, at_edge (of the range tried)."""
    rows = [{"rule": rule, **answer(table)} for rule, answer in RULES.items()]
    answers = pd.DataFrame(rows, columns=["rule", "k", "reason"])
    answers["k"] = answers["k"].astype("Int64")
    answers["at_edge"] = (answers["k"] == int(table["k"].max())).fillna(False).astype(bool)
    return answers


def choose(
    table: pd.DataFrame, answers: pd.DataFrame, *, rule: str = DEFAULT_RULE, k: int = 0
) -> Selection:
    """The K that is used, the one asked for or the rule's where `k` is 0, and the verdict on it.

    Raises
    ------
    ValueError
        The rule is unknown, or finds no K.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    by_rule = answers.set_index("rule")
    rules = {name: None if pd.isna(v) else int(v) for name, v in by_rule["k"].items()}
    if not k and rules[rule] is None:
        raise ValueError(f"the {rule} rule finds no K: {by_rule.at[rule, 'reason']}; ask for one")
    reason = "it was asked for" if k else str(by_rule.at[rule, "reason"])
    chosen = k or rules[rule] or 1
    choice: Selection = {
        **{"k": chosen, "asked": bool(k), "rule": rule, "rules": rules, "reason": reason}
    }
    row = table.set_index("k", drop=False).loc[chosen]
    verdict = judge(row, k=chosen, asked=bool(k))
    return {**choice, "verdict": verdict, "certainty": explain_verdict(verdict, row, table)}


# The verdict


def judge(row: pd.Series, *, k: int, asked: bool) -> Verdict:
    """Name the kind of segmentation that is shown, after Dolnicar & Leisch (2010).

    *natural*: clear of the null, prediction strength above 0.8, every Jaccard ≥ 0.75;
    *reproducible*: clear of the null and mean ARI ≥ 0.8; *none*: one segment, not asked for;
    *constructive*: anything else.
    """
    if k == 1 and not asked:
        return "none"
    gated = not pd.isna(row["gated"]) and bool(row["gated"])
    if gated and row["prediction_strength"] > STRONG and row["jaccard_min"] >= STABLE:
        return "natural"
    return "reproducible" if gated and row["ari_mean"] >= REPRODUCIBLE else "constructive"


def explain_verdict(verdict: Verdict, row: pd.Series, table: pd.DataFrame) -> str:
    """The verdict in plain words, with the figures of its row of the table."""
    told = words.write(words.find_verdict(verdict, row)["say"], row)
    if verdict == "none":
        return f"{told} {_suggest_cut(table)}"
    if verdict == "constructive" and row["k"] != 1 and answer_calibrated(table)["k"] == 1:
        return f"{told} No structure was found in this table."
    return told


def _suggest_cut(table: pd.DataFrame) -> str:
    """What a constructive cut would look like if one were asked for."""
    cuts = table.dropna(subset="ari_mean")
    if cuts.empty:
        return "No cut was tried."
    return words.say("cut", cuts.loc[cuts["ari_mean"].idxmax()])


FALSE_ALARMS = (12, 1200)
"""Structureless tables in which the calibrated rule found segments, of how many were tried."""


def summarize_calibration() -> str:
    """How often the calibrated rule is fooled by structureless tables, in a sentence."""
    found, tables = FALSE_ALARMS
    return (
        f"Tried on {tables} structureless tables of six kinds, the calibrated rule found segments "
        f"in {found} ({found / tables:.1%}); docs/methods.md has the table."
    )


# Sensitivity


def vary(
    matrix: pd.DataFrame,
    codes: pd.DataFrame,
    fit: Fit,
    *,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """How far the cut survives other choices: columns variation, ari (to the main cut).

    Other scalings, each feature left out, each encoded descriptor put in, and Ward and a
    Gaussian mixture instead of K-means; on a seeded sample above 2 000 customers.
    """
    if len(fit.centres) == 1:
        return pd.DataFrame({"variation": [], "ari": []})
    drawn = stability.resampling_rows(len(matrix), weights=weights, seed=seed)
    rows, k, main = matrix.iloc[drawn], len(fit.centres), fit.labels[drawn]
    variants = _vary_features(rows, codes.iloc[drawn])
    cuts = {name: fit_best(m, k, seed=seed).labels for name, m in variants.items()}
    cuts["Ward instead of K-means"] = AgglomerativeClustering(k).fit_predict(rows)
    mixture = GaussianMixture(k, n_init=5, random_state=seed, reg_covar=1e-4)
    cuts["Gaussian mixture instead of K-means"] = mixture.fit_predict(rows)
    found = [(name, adjusted_rand_score(main, labels)) for name, labels in cuts.items()]
    return pd.DataFrame(found, columns=["variation", "ari"])


def _vary_features(rows: pd.DataFrame, codes: pd.DataFrame) -> dict[str, Any]:
    scaled = StandardScaler().fit_transform(codes) if len(codes.columns) else codes
    variants: dict[str, Any] = {
        "min–max scaling": MinMaxScaler().fit_transform(rows),
        "robust scaling": RobustScaler().fit_transform(rows),
    }
    variants |= {f"without {name}": rows.drop(columns=name) for name in rows}
    variants |= {
        f"with {name} in the distance": np.column_stack([rows, scaled[:, i]])
        for i, name in enumerate(codes)
    }
    return variants


def summarize_sensitivity(variations: pd.DataFrame) -> str:
    """Which other choices keep the cut and which one changes it most, in a sentence."""
    if variations.empty:
        return "With one segment there is no cut that could change."
    kept = int((variations["ari"] >= REPRODUCIBLE).sum())
    worst = variations.loc[variations["ari"].idxmin()]
    return (
        f"{kept} of {len(variations)} other choices give nearly the same segments (ARI ≥ "
        f"{REPRODUCIBLE}); the one that changes most is “{worst['variation']}” "
        f"(ARI {worst['ari']:.2f})."
    )


# Sentences


def count_segments(k: int) -> str:
    """'4 segments', '1 segment'."""
    return f"{k} segment{'' if k == 1 else 's'}"


def summarize_choice(selection: Selection) -> str:
    """The answer of the notebook: how many, who decided, how sure that is."""
    by = "as asked" if selection["asked"] else f"by the {selection['rule']} rule"
    certainty = selection.get("certainty", "")
    return f"{count_segments(selection['k'])}, {by}. {certainty} {summarize_rules(selection)}"


def summarize_rules(selection: Selection) -> str:
    """Whether the rules agree with the K used and with each other, in a sentence."""
    k, rules = selection["k"], selection["rules"]
    agreeing = [rule for rule, at in rules.items() if at == k]
    others = [f"{rule} {'none' if at is None else at}" for rule, at in rules.items() if at != k]
    if not others:
        return f"All {len(rules)} rules say {k}."
    backing = f"{words.join(agreeing)} {'says' if len(agreeing) == 1 else 'say'} {k}"
    return f"The rules disagree: {backing if agreeing else f'none says {k}'}; {words.join(others)}."


def name_sample(drawn: int, customers: float) -> str:
    """'all 200 customers', 'a seeded sample of 2,000 of the 100,000,000 customers'."""
    whole = "all" if drawn == round(customers) else f"a seeded sample of {drawn:,} of the"
    return f"{whole} {customers:,.0f} customers"


def summarize_rows(weights: ArrayLike) -> str:
    """What the rows of the table are, in a sentence, from the customers that each stands for."""
    counts = np.asarray(weights, dtype=float)
    rows, customers = f"{len(counts):,}", f"{counts.sum():,.0f} customers"
    if (counts == 1).all():
        return f"Each of the {rows} rows is one customer."
    if (counts == counts[0]).all():
        return f"The {rows} rows are a sample; each stands for {counts[0]:,.4g} of {customers}."
    return f"The {rows} rows stand for {customers}: customers with equal figures share a row."


def summarize_starts(table: pd.DataFrame, *, starts: int, weights: ArrayLike | None = None) -> str:
    """How easily the best fit was found, in a sentence or two."""
    worst = table.loc[table["best_share"].idxmin()]
    found = f"{worst['best_share']:.0%} of {starts} starts found the best fit"
    where = ""
    if weights is not None and len(counts := np.asarray(weights)) > kmeans.STARTED:
        seen = name_sample(kmeans.STARTED, counts.sum())
        where = f" The starts saw {seen}; the best of them was refined on all rows."
    if worst["best_share"] >= 0.5:
        return f"At every K at least {found}.{where}"
    return (
        f"At K = {worst['k']:.0f}, the hardest, {found}; a single start would often have missed "
        f"it.{where}"
    )


def summarize_elbow(table: pd.DataFrame) -> str:
    """What the inertia curve shows, in a sentence."""
    k = find_elbow(table)
    if k is None:
        return "Inertia falls without a bend: kneedle finds no elbow in this range."
    drop = 1 - table.set_index("k")["inertia"][k] / table["inertia"].iloc[0]
    return (
        f"The bend is at K = {k}, where {drop:.0%} of the inertia of one segment is gone. Kneedle "
        "finds a bend in structureless data too, and it moves with the range of K."
    )


def summarize_silhouettes(table: pd.DataFrame, *, customers: float | None = None) -> str:
    """Where the mean silhouette peaks and where it stands out of the null, in a sentence or two."""
    curve = table.dropna(subset="silhouette").sort_values("silhouette", ascending=False)
    if curve.empty:
        return "No K in this range has a silhouette."
    best = curve.iloc[0]
    edge = ", the edge of the range tried" if best["k"] == table["k"].max() else ""
    peak = f"The mean silhouette peaks at K = {best['k']:.0f} with {best['silhouette']:.3f}{edge}"
    seen = ""
    if customers and best.get("silhouette_se", 0) > 0:
        error = f"standard error {best['silhouette_se']:.1g}"
        seen = f" It is that of {name_sample(SAMPLE, customers)} ({error})."
    if "null_silhouette" not in table:
        return f"{peak}.{seen}"
    clear = _name_ks(find_gated(table)["k"])
    return (
        f"{peak}, where structureless data like these have {best['null_silhouette']:.3f}; clear of "
        f"such data is {clear}.{seen}"
    )


def summarize_indices(table: pd.DataFrame) -> str:
    """Which K the two variance-ratio indices prefer, in a sentence."""
    scored = table.dropna(subset="calinski_harabasz")
    if scored.empty:
        return "No K in this range has these indices."
    high = int(scored.loc[scored["calinski_harabasz"].idxmax(), "k"])
    low = int(scored.loc[scored["davies_bouldin"].idxmin(), "k"])
    verb = "Both prefer" if high == low else f"Calinski–Harabasz prefers K = {high}, Davies–Bouldin"
    return f"{verb} K = {low}."


def summarize_gap(table: pd.DataFrame) -> str:
    """What the gap statistic's three rules answer, in a sentence."""
    gaps = table.dropna(subset="gap")
    answers = stability.gap_choices(gaps["gap"], gaps["gap_se"])
    said = words.join([f"{rule} says {k}" for rule, k in answers.items()])
    return f"Against uniform boxes {said}; K = 1 is a legal answer here."


def summarize_strengths(table: pd.DataFrame) -> str:
    """Which K one half of the customers predicts for the other, in a sentence."""
    tried = table[(table["k"] > 1) & table["prediction_strength"].notna()]
    if tried.empty:
        return "No K above 1 was tried."
    strong = tried.loc[tried["prediction_strength"] > STRONG, "k"]
    found = _name_ks(strong)
    noise = tried.loc[tried["null_prediction_strength_q95"] > STRONG, "k"]
    warning = (
        f" Structureless data pass that bound too at K = {_list(noise)}." if len(noise) else ""
    )
    return f"Halves of the customers predict each other (above {STRONG}) at {found}.{warning}"


def summarize_aris(table: pd.DataFrame) -> str:
    """Which K comes back best and worst under resampling, in a sentence."""
    tried = table.dropna(subset="ari_mean")
    if tried.empty:
        return "No K above 1 was tried."
    best, worst = tried.loc[tried["ari_mean"].idxmax()], tried.loc[tried["ari_mean"].idxmin()]
    above = tried.loc[tried["compared_ari"] > tried["null_ari_q95"], "k"]
    found = _name_ks(above)
    return (
        f"The cut comes back best at K = {best['k']:.0f} (mean ARI {best['ari_mean']:.2f}) and "
        f"worst at K = {worst['k']:.0f} ({worst['ari_mean']:.2f}); above what noise gives is "
        f"{found}."
    )


def summarize_jaccards(resampled: Resamples) -> str:
    """At which K every segment comes back, in a sentence."""
    least = {k: float(values.mean(axis=0).min()) for k, values in resampled.jaccards.items()}
    if not least:
        return "No K above 1 was tried."
    stable = [k for k, value in least.items() if value >= STABLE]
    worst = min(least, key=lambda k: least[k])
    found = _name_ks(stable)
    return (
        f"Every segment is stable (mean Jaccard ≥ {STABLE}) at {found}; the weakest segment of "
        f"all, at K = {worst}, has {least[worst]:.2f}."
    )


def summarize_sample(resampled: Resamples, customers: float) -> str:
    """What was resampled, in a sentence."""
    pairs, halvings = len(resampled.aris), len(resampled.strengths)
    verb = "was" if resampled.rows < round(customers) else "were"
    return (
        f"Resampled {verb} {name_sample(resampled.rows, customers)}: {pairs} pairs of bootstrap "
        f"samples and {halvings} halvings for each K."
    )


def summarize_clustergram(flow: stability.Flow) -> str:
    """How far apart the segments of the smallest and the largest K lie, in a sentence."""
    nodes = flow.nodes.groupby("k")["score"]
    gaps = nodes.apply(
        lambda scores: float(np.diff(np.sort(scores)).min()) if len(scores) > 1 else 0
    )
    near, far = int(gaps.idxmin()), int(gaps.idxmax())
    return (
        f"On the first principal axis the two closest segments are {gaps[far]:.2f} apart at "
        f"K = {far} and {gaps[near]:.2f} at K = {near}; what is close here may lie apart on "
        "another axis."
    )


def summarize_flow(flow: stability.Flow) -> str:
    """Which segments keep their customers when K grows, in a sentence."""
    known = flow.nodes.dropna(subset="slsa")
    if known.empty:
        return "One K alone has no ancestors to compare with."
    means = known.groupby("k")["slsa"].mean()
    best, worst = int(means.idxmax()), int(means.idxmin())
    return (
        f"Going to K = {best}, segments keep most to one ancestor (mean SLSa {means[best]:.2f}); "
        f"going to K = {worst} they mix most ({means[worst]:.2f})."
    )


def summarize_silhouette_profile(samples: pd.DataFrame, *, customers: float | None = None) -> str:
    """How many customers sit closer to another segment than to their own, in a sentence."""
    values = samples["silhouette"].dropna()
    if values.empty:
        return "With one segment there is no other to be closer to."
    share = float((values < 0).mean())
    means = samples.groupby("cluster")["silhouette"].mean()
    drawn = customers is not None and len(samples) < round(customers)
    whom = name_sample(len(samples), customers) if customers and drawn else "the customers"
    return (
        f"{share:.1%} of {whom} sit closer to another segment than to their own; the mean "
        f"silhouette of a segment runs from {means.min():.2f} to {means.max():.2f}."
    )
