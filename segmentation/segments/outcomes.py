"""Do segments matter? What became of the customers, and how much of it the segments know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from segmentation.customers import Card

FEWEST, FOLDS = 30, 5
"""Customers of whom an outcome has to be known so that it is judged; folds of the predictions."""

COLUMNS = ["outcome", "label", "kind", "unit", "cluster", "customers", "mean", "low", "high"]
COLUMNS += ["p", "measure", "segments", "features", "carried"]


def describe_outcomes(clustered: pd.DataFrame, card: Card, *, seed: int = 0) -> pd.DataFrame:
    """Each outcome of everyone (cluster missing) and by segment, and what the segments know of it.

    Columns: outcome, label, kind, unit, cluster, customers (of whom it is known), mean (the rate
    of a yes/no), low, high: 95 % intervals, Wilson's of a rate, the bootstrap's of a mean
    (percentiles of 1 000 resamples); the segments are taken as given. In everyone's row: p (a test
    that all segments are alike: chi-squared, by simulated tables where fewer than five are
    expected, or Kruskal-Wallis; Holm's over the outcomes), measure (AUC or R²), segments and
    features: how well they predict unseen customers in five folds, the segment alone or a gradient
    boosting of all features; carried: the one as a share of the other, beyond chance (AUC 0.5,
    R² 0); missing where the features know nothing.
    """
    rows, rng = [], np.random.default_rng(seed)
    for name, outcome in card.outcomes.items():
        known = clustered[clustered["cluster"].notna() & clustered[name].notna()]
        find = _find_wilson if outcome.kind == "yes/no" else bootstrap_mean
        for cluster, values in [(pd.NA, known[name]), *known.groupby("cluster")[name]]:
            row = [name, outcome.label, outcome.kind, outcome.unit, cluster, len(values)]
            row += [values.mean(), *find(values.to_numpy(float), rng)]
            judged = _judge(known, name, card, seed) if cluster is pd.NA else _UNJUDGED
            rows.append([*row, *judged])
    told = pd.DataFrame(rows, columns=COLUMNS).astype({"cluster": "Int64"})
    told["p"] = adjust(told["p"])
    return told


_UNJUDGED = (np.nan, "", np.nan, np.nan, np.nan)


def _judge(known: pd.DataFrame, name: str, card: Card, seed: int) -> tuple[Any, ...]:
    """What stands in everyone's row, p not yet adjusted; nothing of too few or of one kind.

    Codes of segments are fitted by least squares, which gives each its mean.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression

    values, labels = known[name].to_numpy(float), known["cluster"].to_numpy(int)
    if len(known) < FEWEST or np.ptp(values) == 0 or np.ptp(labels) == 0:
        return _UNJUDGED
    rate = card.outcomes[name].kind == "yes/no"
    codes = np.equal.outer(labels, np.unique(labels)).astype(float)
    features = known[list(card.features)].to_numpy(float)
    boosting = HistGradientBoostingRegressor(
        max_iter=50, max_leaf_nodes=8, min_samples_leaf=10, random_state=seed
    )
    own = _predict(LinearRegression(fit_intercept=False), codes, values, rate, seed)
    best = _predict(boosting, features, values, rate, seed)
    seen = max(own, best) > _find_noise(values, rate)
    carried = own / max(own, best) if seen else np.nan
    test, measure, chance = (_test_rates, "AUC", 0.5) if rate else (_test_numbers, "R²", 0.0)
    return test(values, labels, seed), measure, own + chance, best + chance, carried


def adjust(ps: pd.Series) -> pd.Series:
    """Holm's adjustment of p-values; those that are missing stay so and count for nothing.

    >>> adjust(pd.Series([0.01, 0.04, np.nan, 0.03])).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    known = ps.dropna().sort_values()
    steps = known * np.arange(len(known), 0, -1)
    return steps.cummax().clip(upper=1.0).reindex(ps.index)


def _find_wilson(values: np.ndarray, _: np.random.Generator) -> tuple[float, float]:
    from scipy.stats import binomtest

    if not len(values):
        return np.nan, np.nan
    found = binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def bootstrap_mean(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % interval of a mean: percentiles of 1 000 resamples; empty of fewer than two."""
    if len(values) < 2:
        return np.nan, np.nan
    means = [rng.choice(values, len(values)).mean() for _ in range(1000)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _test_rates(values: np.ndarray, labels: np.ndarray, seed: int) -> float:
    from scipy.stats import MonteCarloMethod, chi2_contingency
    from scipy.stats.contingency import expected_freq

    table = pd.crosstab(labels, values).to_numpy()
    if expected_freq(table).min() >= 5:
        return float(chi2_contingency(table, correction=False).pvalue)
    drawn = MonteCarloMethod(n_resamples=4999, rng=np.random.default_rng(seed))
    return float(chi2_contingency(table, correction=False, method=drawn).pvalue)


def _test_numbers(values: np.ndarray, labels: np.ndarray, _: int) -> float:
    from scipy.stats import kruskal

    return float(kruskal(*(values[labels == each] for each in np.unique(labels))).pvalue)


def _find_noise(values: np.ndarray, rate: bool) -> float:
    """What a prediction without knowledge passes in one of forty tries: of AUC - 0.5, or of R²."""
    yes = values.sum()
    if rate:
        return float(1.96 * np.sqrt((len(values) + 1) / (12 * yes * (len(values) - yes))))
    return 3.84 / len(values)


def _predict(model: Any, x: np.ndarray, values: np.ndarray, rate: bool, seed: int) -> float:
    """How well unseen customers are predicted, beyond chance: AUC - 0.5, or R²; at least 0."""
    from sklearn.metrics import r2_score, roc_auc_score
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict

    fewest = int(min(values.sum(), len(values) - values.sum())) if rate else len(values)
    if fewest < FOLDS:
        return 0.0
    split = StratifiedKFold if rate else KFold
    folds = split(FOLDS, shuffle=True, random_state=seed)
    found = cross_val_predict(model, x, values, cv=folds.split(x, values))
    good = roc_auc_score(values, found) - 0.5 if rate else r2_score(values, found)
    return max(0.0, float(good))
