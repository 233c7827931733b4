"""How many segments: every rule's answer, the choice, the verdict on it, other choices beside it.

All of it is read off the sweep: one row per K with the columns of `k_selection.csv`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import BaseModel, computed_field
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import minmax_scale, robust_scale, scale

from segmentation import words
from segmentation.clustering import kmeans, stability

PREDICTED = 0.75  # prediction strength above which a K is eligible for the calibrated rule
NEAR_BEST = 0.8  # share of the best score that comes near it, of which K it takes the largest
STRONG = 0.8  # prediction strength of halves that predict each other (Tibshirani & Walther 2005)
STABLE = 0.75  # mean Jaccard from which on a segment is stable (Hennig 2007)
REPRODUCIBLE = 0.8  # mean adjusted Rand index from which on a whole cut is the same one again

Verdict = Literal["natural", "reproducible", "constructive", "none"]
Answer = tuple[int | None, str]  # K, None where a rule finds none, and why


class Selection(BaseModel, frozen=True):
    """The choice that `selection.json` hands over.

    `asked` tells whether `k` was asked for, else `rule` decided; `rules` has each rule's K, or
    None; `certainty` is the verdict in plain words, with its figures; `answer` all of it.
    """

    k: int
    asked: bool
    rule: str
    rules: dict[str, int | None]
    reason: str
    verdict: Verdict
    certainty: str

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
        return f"{k} segment{'' if k == 1 else 's'}, {by}. {self.certainty} {agreement}"


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
    before: int | None = None,
) -> Selection:
    """The K that is used, the one asked for or the rule's where it is None, and the verdict on it.

    The calibrated rule leaves the K of the run `before` while it is eligible (`keep_k`).

    Raises
    ------
    ValueError
        The rule is unknown or finds no K, or `k` is not in the sweep.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
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
    verdict = judge(by_k.loc[chosen], k=chosen, asked=k is not None)
    return Selection(
        k=chosen,
        asked=k is not None,
        rule=rule,
        rules={name: answer[0] for name, answer in answers.items()},
        reason=reason if k is None else "it was asked for",
        verdict=verdict,
        certainty=explain_verdict(verdict, by_k.loc[chosen], sweep),
    )


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


def explain_verdict(verdict: Verdict, row: pd.Series, sweep: pd.DataFrame) -> str:
    """The verdict in plain words, with the figures of its row of the sweep."""
    plain = words.write(words.find_verdict(verdict, row)["say"], row)
    if verdict == "none":
        cuts = sweep.dropna(subset="ari_mean")
        best = cuts["ari_mean"].idxmax() if len(cuts) else None
        return f"{plain} {words.say('cut', cuts.loc[best]) if len(cuts) else 'No cut was tried.'}"
    if verdict == "constructive" and row["k"] != 1 and answer_calibrated(sweep)[0] == 1:
        return f"{plain} No structure was found in this table."
    return plain


def vary(X: pd.DataFrame, codes: pd.DataFrame, labels: ArrayLike, *, seed: int = 0) -> pd.DataFrame:
    """How far a cut survives other choices: columns variation, ari (to the main cut).

    Other scalings of X (n, p), each feature left out, each 0/1 column of `codes` (n, c) put in,
    and Ward and a Gaussian mixture instead of K-means; `labels` (n,) are the main cut. Of a seeded
    sample above 2 000 rows. Empty where there is one segment.

    Examples
    --------
    >>> X = pd.DataFrame({"a": [0.0, 0.1, 0.2, 9.0, 9.1, 9.2], "b": [0.0, 1, 0, 1, 0, 1]})
    >>> vary(X, X[[]], [0, 0, 0, 1, 1, 1]).set_index("variation")["ari"]["without b"].item()
    1.0
    """
    given = np.asarray(labels)
    k = len(np.unique(given))
    if k == 1:
        return pd.DataFrame({"variation": [], "ari": []})
    drawn = kmeans.draw_positions(len(X), stability.count_resampled(X.shape[1]), seed=seed)
    rows, codes = X.iloc[drawn], codes.iloc[drawn]
    variants: dict[str, Any] = {"min–max scaling": minmax_scale(rows)}
    variants["robust scaling"] = robust_scale(rows)
    if len(rows.columns) > 1:
        variants |= {f"without {name}": rows.drop(columns=name) for name in rows}
    for name in codes:
        variants[f"with {name} in the distance"] = np.hstack([rows, scale(codes[[name]])])
    how = {"starts": stability.CUT_STARTS, "seed": seed}
    cuts = {name: kmeans.fit(matrix, k, **how).labels for name, matrix in variants.items()}
    cuts["Ward instead of K-means"] = AgglomerativeClustering(k).fit_predict(rows)
    mixture = GaussianMixture(k, n_init=5, random_state=seed, reg_covar=1e-4)
    cuts["Gaussian mixture instead of K-means"] = mixture.fit_predict(rows)
    found = [(name, adjusted_rand_score(given[drawn], cut)) for name, cut in cuts.items()]
    return pd.DataFrame(found, columns=["variation", "ari"])
