"""How many segments: every rule's answer, the choice, the verdict on it.

All of it is read off the sweep: one row per K with the columns of `k_selection.csv`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import BaseModel, computed_field

from segmentation import words
from segmentation.clustering import kmeans, null, stability
from segmentation.clustering.rows import check_k
from segmentation.clustering.stability import PREDICTED, STRONG

NEAR_BEST = 0.8  # share of the best score that comes near it, of which K it takes the largest
DEEP = 0.5  # depth of a valley from which on it parts two segments: half of the lower peak
STABLE = 0.75  # mean Jaccard from which on a segment is stable (Hennig 2007)
REPRODUCIBLE = 0.8  # mean adjusted Rand index from which on a whole cut is the same one again
SMALL = 0.1  # share below which a distinct group may be missed by the choice of K
SAMPLED = 0.8  # share of the customers in a sample on which the rule is asked again
ERRORS = {  # figures that a verdict rests on, and their standard errors
    "z": "z_se",
    "prediction_strength": "prediction_strength_se",
    "ari_mean": "ari_se",
    "jaccard_min": "jaccard_se",
    "compared_valley": "valley_se",
}

Verdict = Literal["natural", "reproducible", "constructive", "none"]
Answer = tuple[int | None, str]  # K, None where a rule finds none, and why


class Selection(BaseModel, frozen=True):
    """The choice that `selection.json` hands over.

    `asked` tells whether `k` was asked for, else `rule` decided; `rules` has each rule's K, or
    None; `certainty` is the verdict in plain words, with its figures; `reading` the entry of
    `words.yaml` that says so; `close` whether another seed could give another verdict; `again` in
    how many of how many samples of the customers the calibrated rule gives this K and verdict,
    `shares` in how many each answer ("4 reproducible"); `answer` all of it.
    """

    k: int
    asked: bool
    rule: str
    rules: dict[str, int | None]
    reason: str
    verdict: Verdict
    certainty: str
    reading: str
    close: bool
    shares: dict[str, int] = {}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def again(self) -> tuple[int, int] | None:
        """In how many of how many samples the answer is this one."""
        same = self.shares.get(f"{self.k} {self.verdict}", 0)
        return (same, sum(self.shares.values())) if self.shares else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def answer(self) -> str:
        """How many, who decided, how sure that is, whether the rules agree."""
        k = self.k
        by = f"by the {self.rule} rule" if self.rules.get(self.rule) == k else "as in the last run"
        by = "as asked" if self.asked else by
        agreeing = [rule for rule, at in self.rules.items() if at == k]
        others = [f"{rule} {at or 'none'}" for rule, at in self.rules.items() if at != k]
        backing = f"{words.join(agreeing) or 'none'} {'say' if len(agreeing) > 1 else 'says'} {k}"
        agreement = f"The rules disagree: {backing}; {words.join(others)}."
        if not others:
            agreement = f"All {len(self.rules)} rules say {k}."
        parts = [f"{k} segment{'' if k == 1 else 's'}, {by}.", self.certainty, agreement]
        if self.again:
            same, samples = self.again
            parts.append(words.say("again", {"same": same, "samples": samples}))
        return " ".join(parts)


def answer_calibrated(sweep: pd.DataFrame) -> Answer:
    """The largest K whose score comes near the best one among the gated that halves predict.

    score = excess of the silhouette over the null's mean, times prediction strength. 1 if none.
    """
    gated = sweep[sweep["gated"].fillna(False).astype(bool)]
    eligible = gated[gated["prediction_strength"] > PREDICTED]
    if gated.empty:
        return 1, "no K stands clear of structureless data"
    if eligible.empty:
        found = list_ks(gated["k"])
        return 1, f"clear of structureless data, but not predicted by halves, is K = {found}"
    score = eligible["excess"] * eligible["prediction_strength"]
    return int(eligible["k"][score >= NEAR_BEST * score.max()].max()), (
        f"clear of structureless data and predicted by halves is K = {list_ks(eligible['k'])}; "
        "the largest that scores near the best"
    )


def find_small_group(sweep: pd.DataFrame, k: int) -> pd.Series | None:
    """The row of a K whose smallest segment is a distinct group that the cut into `k` has not.

    It has fewer than a tenth of the customers, and valleys deeper than 95 % of structureless
    tables have part it from its neighbours, in a cut that stands clear. None where none is.
    """
    clear = sweep["clear"].fillna(False).astype(bool)
    deep = sweep["compared_small_valley"] > sweep["null_small_valley_q95"].clip(lower=DEEP)
    least = sweep.loc[sweep["k"] == k, "smallest_share"].min()
    small = sweep["smallest_share"] < min(SMALL, 2 / 3 * least)
    able = sweep[clear & deep & small]
    return able.loc[able["excess"].idxmax()] if len(able) else None


def answer_silhouette(sweep: pd.DataFrame) -> Answer:
    """The K with the largest mean silhouette (Rousseeuw 1987)."""
    values = sweep.set_index("k")["silhouette"].dropna()
    if values.empty:
        return None, "no K has a silhouette"
    return int(values.idxmax()), f"the mean silhouette is largest here ({values.max():.3f})"


def answer_elbow(sweep: pd.DataFrame) -> Answer:
    """Kneedle's elbow of inertia (Satopää et al. 2011, S = 1), else its largest bend."""
    from kneed import KneeLocator  # which brings all of matplotlib

    curve = sweep.set_index("k")["inertia"].sort_index()
    if len(curve) < 3:
        return None, "fewer than three K were tried"
    elbow = KneeLocator(curve.index, curve, S=1, curve="convex", direction="decreasing").elbow
    if elbow is not None:
        return int(elbow), "the curve of inertia bends most here (kneedle)"
    k = int(curve.index[np.diff(curve, n=2).argmax() + 1])
    return k, "kneedle finds no elbow; inertia's second difference is largest here"


def answer_gap(sweep: pd.DataFrame) -> Answer:
    """The first K whose gap is within one standard error of the first maximum (firstSEmax)."""
    gaps = sweep.dropna(subset="gap").sort_values("k")
    if gaps.empty:
        return None, "no K has a gap"
    (first, k), *others = stability.gap_choices(gaps["gap"], gaps["gap_se"]).items()
    return k, f"{first}; {', '.join(f'{rule} says {other}' for rule, other in others)}"


def answer_prediction_strength(sweep: pd.DataFrame) -> Answer:
    """The largest K with a prediction strength above 0.8 (Tibshirani & Walther 2005)."""
    strengths = sweep.set_index("k")["prediction_strength"]
    k = int(strengths.index[strengths > STRONG].max())
    if k == 1:
        return 1, f"no K ≥ 2 has a prediction strength above {STRONG}"
    return k, f"the largest K above {STRONG} (it has {strengths[k]:.2f})"


def answer_stability(sweep: pd.DataFrame) -> Answer:
    """The best silhouette among K that come back: ARI above the null, all Jaccards ≥ 0.75."""
    back = sweep[(sweep["compared_ari"] > sweep["null_ari_q95"]) & (sweep["jaccard_min"] >= STABLE)]
    if back.empty:
        return 1, "no K comes back more often than structureless data does"
    k = int(back.loc[back["silhouette"].idxmax(), "k"])
    return k, f"of K = {list_ks(back['k'])}, which come back, it has the largest silhouette"


def list_ks(ks: Iterable[Any]) -> str:
    """'2', '2 and 4', '2, 3 and 4'."""
    return words.join(f"{int(k)}" for k in ks)


RULES = {
    "calibrated": answer_calibrated,
    "silhouette": answer_silhouette,
    "elbow": answer_elbow,
    "gap": answer_gap,
    "prediction-strength": answer_prediction_strength,
    "stability": answer_stability,
}


def ask_rules(sweep: pd.DataFrame) -> pd.DataFrame:
    """Every rule's answer, side by side: columns rule, k, reason, at_edge (of the range tried)."""
    rows = [(rule, *answer(sweep)) for rule, answer in RULES.items()]
    answers = pd.DataFrame(rows, columns=["rule", "k", "reason"]).astype({"k": "Int64"})
    return answers.assign(at_edge=(answers["k"] == sweep["k"].max()).fillna(False).astype(bool))


def keep_k(sweep: pd.DataFrame, before: int) -> bool:
    """Whether the previous run's K is eligible still: clear of the null, predicted by halves."""
    row = sweep[(sweep["k"] == before) & (sweep["prediction_strength"] > PREDICTED)]
    return bool(row["gated"].fillna(False).astype(bool).any())


def choose(
    sweep: pd.DataFrame,
    *,
    rule: str = "calibrated",
    k: int | None = None,
    customers: int | None = None,
    before: int | None = None,
    samples: pd.DataFrame | None = None,
    skewed: Sequence[str] = (),
) -> Selection:
    """The K that is used, the one asked for or the rule's where it is None, and the verdict on it.

    `samples` is what `resample_choice` gives, `skewed` names features that reach far to one side.
    The calibrated rule leaves the K of the run `before` while it is eligible (`keep_k`).

    Raises
    ------
    InputError
        `k` is too large for so many `customers`: see `check_k`.
    ValueError
        The rule is unknown or finds no K, or `k` is not in the sweep.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if k is not None and customers is not None:
        check_k(k, customers)
    answers = {name: answer(sweep) for name, answer in RULES.items()}
    found, reason = answers[rule]
    if before and before != found and rule == "calibrated" and keep_k(sweep, before):
        reason = f"the last run's, clear and predicted still; by itself the rule says {found}"
        found = before
    chosen = found if k is None else k
    if chosen is None:
        raise ValueError(f"the {rule} rule finds no K: {reason}; ask for one")
    by_k = sweep.set_index("k", drop=False)
    if chosen not in by_k.index:
        raise ValueError(f"k must be one of {list_ks(by_k.index)}, which were tried, got {chosen}")
    row, asked = by_k.loc[chosen], k is not None
    verdict = judge(row, k=chosen, asked=asked)
    reading = read_verdict(verdict, row, sweep, skewed=bool(skewed))
    close = is_close(sweep, k=chosen, decided=chosen == answers["calibrated"][0] and not asked)
    shares = dict[str, int]()
    if samples is not None:
        answered = samples["k"].astype(str) + " " + samples["verdict"]
        shares = answered.value_counts().to_dict()
    return Selection(
        k=chosen,
        asked=asked,
        rule=rule,
        rules={name: answer[0] for name, answer in answers.items()},
        reason="it was asked for" if asked else reason,
        verdict=verdict,
        certainty=explain_verdict(reading, row, sweep, skewed=skewed, close=close),
        reading=reading,
        close=close,
        shares=shares,
    )


def judge(row: pd.Series, *, k: int, asked: bool) -> Verdict:
    """Name the kind of segmentation that is shown, after Dolnicar & Leisch (2010).

    *natural*: clear of the null, prediction strength above 0.8, every Jaccard ≥ 0.75, and between
    every two neighbours a valley of depth 0.5 and deeper than 95 % of structureless tables have;
    *reproducible*: clear of the null and mean ARI ≥ 0.8; *none*: one segment, not asked for;
    *constructive*: anything else.
    """
    if k == 1 and not asked:
        return "none"
    gated = not pd.isna(row["gated"]) and bool(row["gated"])
    comes_back = row["prediction_strength"] > STRONG and row["jaccard_min"] >= STABLE
    if gated and comes_back and row["compared_valley"] >= max(DEEP, row["null_valley_q95"]):
        return "natural"
    return "reproducible" if gated and row["ari_mean"] >= REPRODUCIBLE else "constructive"


def is_close(sweep: pd.DataFrame, *, k: int, decided: bool) -> bool:
    """Whether another seed could give another verdict.

    That is, whether it changes where all figures lie two standard errors (by the number of
    resamples) higher or lower; K with it where the calibrated rule `decided` it.
    """
    verdicts = set()
    for step in (-2, 2):
        moved = sweep.copy()
        for figure, error in ERRORS.items():
            moved[figure] += step * sweep[error].fillna(0)
        moved = null.mark_gate(moved, sweep["smallest_share"])
        chosen = answer_calibrated(moved)[0] if decided else k
        row = moved.set_index("k", drop=False).loc[chosen]
        verdicts.add(judge(row, k=int(row["k"]), asked=False))
    return len(verdicts) > 1


def read_verdict(verdict: Verdict, row: pd.Series, sweep: pd.DataFrame, *, skewed: bool) -> str:
    """The entry of `words.yaml` that says no more of a verdict than was found."""
    clear = sweep["clear"].fillna(False).astype(bool)
    if verdict == "constructive" and row["k"] == 1:
        return "asked one"
    if verdict == "constructive":
        return "clear" if clear[sweep["k"] == row["k"]].all() else verdict
    beyond = sweep["z"].fillna(-np.inf) > sweep["z_needed"]
    if verdict == "none" and (clear.any() or (beyond.any() and not skewed)):
        return "small difference"
    return "one dominant skew" if verdict == "none" and skewed else verdict


def explain_verdict(
    reading: str, row: pd.Series, sweep: pd.DataFrame, *, skewed: Sequence[str], close: bool
) -> str:
    """The verdict in plain words, with the figures of its row of the sweep."""
    entry, k = words.read_words()["verdicts"][reading], int(row["k"])
    told = [words.write(entry["say"], {**row, "skewed": words.join(skewed)})]
    cuts = sweep.dropna(subset="ari_mean")
    if entry["strength"] == 0 and reading != "asked one":
        best = cuts.loc[cuts["ari_mean"].idxmax()] if len(cuts) else None
        told.append("No cut was tried." if best is None else words.say("cut", best))
    if reading == "small difference" and skewed:
        told.append(words.say("skew", {"skewed": words.join(skewed)}))
    if reading == "constructive" and answer_calibrated(sweep)[0] == 1:
        told.append("No structure was found in this table.")
    if (small := find_small_group(sweep, k)) is not None:
        told.append(words.say("small group", small))
    if close:
        told.append(words.say("close", {}))
    return " ".join(told)


def resample_choice(
    X: ArrayLike, ks: Iterable[int], *, resamples: int = 100, seed: int = 0
) -> pd.DataFrame:
    """How sure of K: the calibrated rule again on samples of 80 % of an (n, p) table.

    One row a sample, half as many as `resamples`: k and verdict. The null is drawn once, at the
    samples' size; in a sample an eighth of the `resamples` is made. Of at most 2 000 rows.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 2)) + [[0, 0], [9, 0], [0, 9]] * 20
    >>> resample_choice(X, [2, 3, 4], resamples=6)["k"].tolist()
    [3, 3, 3]
    """
    rows, samples = stability.draw_resampled(X, seed), max(1, resamples // 2)
    n, wanted = round(SAMPLED * len(rows)), [k for k in ks if 1 < k <= SAMPLED * len(rows) / 2]
    if not wanted or n < 2:
        return pd.DataFrame({"k": [1] * samples, "verdict": ["none"] * samples})
    few = max(2, resamples // 8)
    how: dict[str, Any] = {"draws": max(19, resamples - 1), "halvings": 0, "pairs": 0}
    chance = null.describe_chance(null.null_table(rows, wanted, n=n, seed=seed, **how))
    seeds = np.random.SeedSequence(seed).generate_state(samples).tolist()

    def answer(part: slice) -> list[tuple[int, str]]:
        drawn = [kmeans.draw_rows(rows, n, seed=s) for s in seeds[part]]
        sweeps = [sweep_briefly(each, wanted, chance, resamples=few, seed=seed) for each in drawn]
        rows_of = [sweep.set_index("k", drop=False) for sweep in sweeps]
        found = [int(answer_calibrated(sweep)[0] or 1) for sweep in sweeps]
        pairs = zip(rows_of, found, strict=True)
        return [(k, judge(by_k.loc[k], k=k, asked=False)) for by_k, k in pairs]

    work = samples * n * max(wanted) ** 2 * null.STARTS
    answers = chain(*kmeans.spread(answer, samples, work))
    return pd.DataFrame(list(answers), columns=["k", "verdict"])


def sweep_briefly(
    X: ArrayLike, ks: Sequence[int], chance: pd.DataFrame, *, resamples: int = 20, seed: int = 0
) -> pd.DataFrame:
    """The columns of the sweep of an (n, p) table that the calibrated rule and its verdict ask.

    `chance` describes structureless tables of this size (`null.describe_chance`). A K in the gate
    is halved, the chosen one resampled, `resamples` times.
    """
    how: dict[str, Any] = {"starts": null.STARTS, "seed": seed}
    rows = np.asarray(X, dtype=np.float64)
    fits = {k: kmeans.fit(rows, k, **how) for k in ks}
    cuts = {k: fit.labels for k, fit in fits.items()}
    least = {k: np.bincount(cut, minlength=k).min() / len(rows) for k, cut in cuts.items()}
    shares = pd.Series(least)
    sweep = null.open_gate(null.measure_fits(rows, [*fits.values()]), chance, shares)
    sweep = sweep.assign(smallest_share=shares, ari_mean=np.nan, jaccard_min=np.nan)
    sweep["prediction_strength"] = np.nan
    for k in sweep.index[sweep["gated"]]:
        strength = stability.prediction_strength(rows, k, halvings=resamples, **how)
        sweep.at[k, "prediction_strength"] = strength.mean()
    chosen = answer_calibrated(sweep.reset_index())[0]
    if chosen in cuts:
        jaccards = stability.jaccard_bootstrap(rows, cuts[chosen], resamples=resamples, **how)
        aris = stability.bootstrap_ari(rows, chosen, pairs=resamples, **how)
        sweep.at[chosen, "jaccard_min"] = jaccards.mean(axis=0).min()
        sweep.at[chosen, "ari_mean"] = aris.mean()
    return sweep.reindex([1, *ks]).rename_axis("k").reset_index()
