"""How many segments: one row per K, every rule's answer, the choice."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import pandas as pd
from kneed import KneeLocator
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import (
    calinski_harabasz_score,
    davies_bouldin_score,
    silhouette_samples,
)

from segmentation import kmeans

SAMPLE = 10_000
"""Silhouettes of more rows than this are those of a seeded sample."""

DEFAULT_RULE = "elbow"


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


def sweep(
    matrix: ArrayLike, *, k_max: int = 10, k: int = 0, starts: int = kmeans.STARTS, seed: int = 0
) -> pd.DataFrame:
    """One row per K = 1…k_max (and the K asked for) of the scaled features (n, p).

    Columns: k, inertia, best_share (of the starts), elbow, silhouette and its standard error,
    calinski_harabasz, davies_bouldin, smallest_share. Undefined cells are empty.
    """
    matrix = np.asarray(matrix, dtype=float)
    most = len(np.unique(matrix, axis=0))
    wanted = sorted({*range(1, min(k_max, most) + 1), *([k] if k else [])})
    table = pd.DataFrame([_measure(matrix, each, starts=starts, seed=seed) for each in wanted])
    elbow = find_elbow(table)
    table["elbow"] = pd.array([None if elbow is None else each == elbow for each in table["k"]])
    return table


def _measure(matrix: NDArray[np.float64], k: int, *, starts: int, seed: int) -> dict[str, Any]:
    fit = kmeans.fit(matrix, k, starts=starts, seed=seed)
    row = {
        "k": k,
        "inertia": fit.inertia,
        "best_share": fit.best_share,
        "elbow": None,
        "silhouette": np.nan,
        "silhouette_se": np.nan,
        "calinski_harabasz": np.nan,
        "davies_bouldin": np.nan,
        "smallest_share": np.bincount(fit.labels).min() / len(matrix),
    }
    if 1 < k < len(matrix):
        row["silhouette"], row["silhouette_se"] = _measure_silhouette(matrix, fit.labels, seed)
        row["calinski_harabasz"] = calinski_harabasz_score(matrix, fit.labels)
        row["davies_bouldin"] = davies_bouldin_score(matrix, fit.labels)
    return row


def _measure_silhouette(
    matrix: NDArray[np.float64], labels: NDArray[np.int64], seed: int
) -> tuple[float, float]:
    """Mean silhouette and its standard error: 0 where every row was counted."""
    if len(matrix) <= SAMPLE:
        return float(silhouette_samples(matrix, labels).mean()), 0.0
    rows = np.random.default_rng(seed).choice(len(matrix), SAMPLE, replace=False)
    values = silhouette_samples(matrix[rows], labels[rows])
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(SAMPLE))


def measure_silhouettes(matrix: ArrayLike, k: int, *, seed: int = 0) -> pd.DataFrame:
    """The silhouette of each customer in the cut with K segments: columns cluster, silhouette.

    Clusters are numbered by size, the largest 0. Source: Rousseeuw (1987).
    """
    matrix = np.asarray(matrix, dtype=float)
    labels = kmeans.fit(matrix, k, seed=seed).labels
    rank = np.empty(k, dtype=int)
    rank[np.argsort(-np.bincount(labels, minlength=k), kind="stable")] = np.arange(k)
    values = silhouette_samples(matrix, labels) if k > 1 else np.full(len(matrix), np.nan)
    return pd.DataFrame({"cluster": rank[labels], "silhouette": values})


def find_elbow(table: pd.DataFrame) -> int | None:
    """The K at which kneedle finds the elbow of inertia, or None (Satopää et al. 2011, S = 1)."""
    curve = table.sort_values("k")
    if len(curve) < 3:
        return None
    found = KneeLocator(curve["k"], curve["inertia"], S=1, curve="convex", direction="decreasing")
    return None if found.elbow is None else int(found.elbow)


def answer_elbow(table: pd.DataFrame) -> Answer:
    """Kneedle's elbow of inertia, else the largest second difference."""
    if (k := find_elbow(table)) is not None:
        return {"k": k, "reason": "the curve of inertia bends most here (kneedle)"}
    if len(table) < 3:
        return {"k": None, "reason": "fewer than three K were tried"}
    bend = np.diff(table["inertia"], n=2)
    k = int(table["k"].iloc[int(bend.argmax()) + 1])
    return {"k": k, "reason": "kneedle finds no elbow; inertia's second difference is largest here"}


def answer_silhouette(table: pd.DataFrame) -> Answer:
    """The K with the largest mean silhouette (Rousseeuw 1987)."""
    if table["silhouette"].isna().all():
        return {"k": None, "reason": "no K has a silhouette"}
    best = table.loc[table["silhouette"].idxmax()]
    reason = f"the mean silhouette is largest here ({best['silhouette']:.3f})"
    return {"k": int(best["k"]), "reason": reason}


RULES = {"elbow": answer_elbow, "silhouette": answer_silhouette}


def ask_rules(table: pd.DataFrame) -> pd.DataFrame:
    """Every rule's answer, side by side: columns rule, k, reason, at_edge (of the range tried)."""
    rows = [{"rule": rule, **answer(table)} for rule, answer in RULES.items()]
    answers = pd.DataFrame(rows, columns=["rule", "k", "reason"])
    answers["k"] = answers["k"].astype("Int64")
    answers["at_edge"] = (answers["k"] == int(table["k"].max())).fillna(False).astype(bool)
    return answers


def choose(answers: pd.DataFrame, *, rule: str = DEFAULT_RULE, k: int = 0) -> Selection:
    """The K that is used: the one asked for, or the rule's where `k` is 0.

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
    return {"k": chosen, "asked": bool(k), "rule": rule, "rules": rules, "reason": reason}


def summarize_choice(selection: Selection) -> str:
    """The answer of the notebook: how many, by which rule, and what the others say."""
    k, rule = selection["k"], selection["rule"]
    by = "as asked" if selection["asked"] else f"by the {rule} rule: {selection['reason']}"
    return f"{count_segments(k)}, {by}. {summarize_rules(selection)}"


def count_segments(k: int) -> str:
    """'4 segments', '1 segment'."""
    return f"{k} segment{'' if k == 1 else 's'}"


def summarize_rules(selection: Selection) -> str:
    """Whether the rules agree with the K used and with each other, in a sentence."""
    k = selection["k"]
    others = {rule: at for rule, at in selection["rules"].items() if at != k}
    agreeing = [rule for rule in selection["rules"] if rule not in others]
    if not others:
        return f"All rules agree on {k}: {', '.join(agreeing)}."
    said = " and ".join(
        f"{rule} says {'none' if at is None else at}" for rule, at in others.items()
    )
    backing = f"{' and '.join(agreeing)} says {k}" if agreeing else f"no rule says {k}"
    return f"The rules disagree: {backing}, {said}. A rule is an argument, not a proof."


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


def summarize_silhouettes(table: pd.DataFrame) -> str:
    """Where the mean silhouette peaks and how clear the peak is, in a sentence."""
    curve = table.dropna(subset="silhouette").sort_values("silhouette", ascending=False)
    if curve.empty:
        return "No K in this range has a silhouette."
    best = curve.iloc[0]
    first = f"The mean silhouette peaks at K = {best['k']:.0f} with {best['silhouette']:.3f}"
    edge = ", the edge of the range tried" if best["k"] == table["k"].max() else ""
    if len(curve) < 2:
        return f"{first}{edge}."
    next_best = curve.iloc[1]
    return (
        f"{first}{edge}; the runner-up is K = {next_best['k']:.0f} with "
        f"{next_best['silhouette']:.3f}."
    )


def summarize_silhouette_profile(samples: pd.DataFrame) -> str:
    """How many customers sit closer to another segment than to their own, in a sentence."""
    values = samples["silhouette"].dropna()
    if values.empty:
        return "With one segment there is no other to be closer to."
    share = float((values < 0).mean())
    means = samples.groupby("cluster")["silhouette"].mean()
    return (
        f"{share:.1%} of the customers sit closer to another segment than to their own; the mean "
        f"silhouette of a segment runs from {means.min():.2f} to {means.max():.2f}."
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


def summarize_starts(table: pd.DataFrame, *, starts: int = kmeans.STARTS) -> str:
    """How easily the best fit was found, in a sentence."""
    worst = table.loc[table["best_share"].idxmin()]
    return (
        f"Of {starts} starts, {worst['best_share']:.0%} found the best fit at K = "
        f"{worst['k']:.0f}, the hardest; a single start would often have missed it."
        if worst["best_share"] < 0.5
        else f"At every K at least {worst['best_share']:.0%} of {starts} starts found the best fit."
    )
