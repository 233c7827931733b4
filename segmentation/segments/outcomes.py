"""What became of the customers: by segment, what segments know of it, and what a letter did."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from segmentation.customers import Card, cards

FEWEST, FOLDS = 30, 5
"""Customers of whom an outcome has to be known so that it is judged; folds of the predictions."""

COLUMNS = ["outcome", "label", "kind", "unit", "cluster", "customers", "mean", "low", "high"]
COLUMNS += ["p", "measure", "segments", "features", "carried"]

LEVEL, POWER = 0.05, 0.8
"""Of every test: how often it errs without a difference, and how often it shall find one."""

DEALS, DEALT = 4999, 20_000
"""How often customers are dealt to two groups anew; from how many on nothing is gained by it."""

COMPARED = ["customers", "sent", "held_back", "sent_mean", "held_mean", "difference", "low", "high"]
COMPARED += ["p", "detectable"]


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
        rate = outcome.kind == "yes/no"
        find = _find_wilson if rate else partial(bootstrap_mean, rng=rng)
        for cluster, values in [(pd.NA, known[name]), *known.groupby("cluster")[name]]:
            row = [name, outcome.label, outcome.kind, outcome.unit, cluster, len(values)]
            row += [values.mean(), *find(values.to_numpy(float))]
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
    from threadpoolctl import threadpool_limits

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
    with threadpool_limits(1, "openmp"):  # on a busy machine two wait for each other: 58 s, not 8
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


def find_power(
    difference: Any, sent: float, held: float, *, base: float, sd: float = 0.0, tests: int = 1
) -> Any:
    """How often a two-sided test at 5 % (Bonferroni's over `tests`) finds a true difference, 0…1.

    Of two means whose standard deviation is `sd`; without one of two rates, where those held back
    have the rate `base`. Normal approximation, the nearer tail.

    >>> find_power(np.array([0.04, 0.06]), 500, 500, base=0.1).round(2).tolist()
    [0.49, 0.81]
    """
    from scipy.stats import norm

    gap, z = np.abs(difference), norm.isf(LEVEL / 2 / tests)
    if sd > 0:
        return norm.sf(z - gap / (sd * np.sqrt(1 / sent + 1 / held)))
    rate = np.clip(base + difference, 0, 1)
    pooled = (sent * rate + held * base) / (sent + held)
    alike = np.sqrt(pooled * (1 - pooled) * (1 / sent + 1 / held))
    apart = np.sqrt(rate * (1 - rate) / sent + base * (1 - base) / held)
    return norm.sf((z * alike - gap) / np.maximum(apart, 1e-12))


def find_detectable(
    sent: float, held: float, *, base: float, sd: float = 0.0, tests: int = 1, wanted: str = "more"
) -> float:
    """The smallest rise (fall, where `wanted` is less) that `find_power` finds four times in five.

    Missing where none is.

    >>> round(find_detectable(500, 500, base=0.1), 3)
    0.059
    """
    from scipy.optimize import brentq

    way = 1 if wanted == "more" else -1
    most = 1e3 * sd if sd > 0 else 1 - base if wanted == "more" else base
    if min(sent, held) < 2 or most <= 0:
        return np.nan

    def miss(difference: float) -> float:
        power = find_power(way * difference, sent, held, base=base, sd=sd, tests=tests)
        return float(power) - POWER

    return float(brentq(miss, 0, most)) if miss(most) > 0 else np.nan


def compare_groups(
    sent: pd.Series, held: pd.Series, outcome: cards.Outcome, *, tests: int = 1, seed: int = 0
) -> dict[str, float]:
    """What those who were written to did, less what those held back did.

    Keys: customers, sent, held_back (of whom the outcome is known), sent_mean, held_mean (rates of
    a yes/no), difference, low, high (its 95 % interval) and p: of rates Newcombe's, and chi-squared
    or, where fewer than five are expected, Fisher's; of means by permutation of Welch's t, which
    is taken as it is of more than 20 000. Then detectable: what so many show four times in five,
    at 5 % over `tests` (Bonferroni). Missing where fewer than two are known of either.

    Source: Newcombe 1998, method 10; Janssen 1997 (the studentized permutation test).

    Examples
    --------
    >>> yes = pd.Series([1.0] * 60 + [0.0] * 40), pd.Series([1.0] * 40 + [0.0] * 60)
    >>> found = compare_groups(*yes, cards.Outcome(kind="yes/no"))
    >>> [round(found[key], 3) for key in ("difference", "low", "high", "p")]
    [0.2, 0.061, 0.328, 0.005]
    """
    sent, held = sent.dropna(), held.dropna()
    n, m = len(sent), len(held)
    one, two = float(sent.mean()), float(held.mean())
    found = {"customers": n + m, "sent": n, "held_back": m, "sent_mean": one, "held_mean": two}
    found["difference"] = one - two
    rate = outcome.kind == "yes/no"
    if min(n, m) < 2:
        return found
    low, high, p = _compare_rates(sent, held) if rate else _compare_means(sent, held, seed)
    sd = 0.0 if rate else float(np.sqrt((sent.var() + held.var()) / 2))
    base = two if rate else 0.0
    least = np.nan
    if rate or sd:
        least = find_detectable(n, m, base=base, sd=sd, tests=tests, wanted=outcome.wanted)
    return found | {"low": low, "high": high, "p": p, "detectable": least}


def pool_groups(told: pd.DataFrame) -> dict[str, float]:
    """The differences of several segments as one, and the p of a test that they are the same.

    Of rows as `compare_groups` gives them. The means are those of the segments by their customers
    known; each end of the interval is as far away as the segments' own ends are together.

    Source: Zou and Donner 2008 (the method of variance estimates recovery).
    """
    from scipy.stats import chi2, norm

    rows = told[told["low"].notna()]
    found = {key: int(told[key].sum()) for key in ("customers", "sent", "held_back")}
    if rows.empty:
        return found | dict.fromkeys(["difference", "held_mean"], np.nan)
    weights = rows["customers"] / rows["customers"].sum()
    means = {key: float(weights @ rows[key]) for key in ("sent_mean", "held_mean", "difference")}
    errors = (rows["high"] - rows["low"]) / (2 * norm.isf(LEVEL / 2))
    ways = [rows["difference"] - rows[end] for end in ("low", "high")]
    below, above = (float(np.sqrt(weights**2 @ way**2)) for way in ways)
    gap, z = means["difference"], norm.isf(LEVEL / 2)
    error = (below if gap > 0 else above) / z
    inner = 1 / errors**2
    spread = inner @ (rows["difference"] - np.average(rows["difference"], weights=inner)) ** 2
    found |= means | {"low": gap - below, "high": gap + above, "p": 2 * norm.sf(abs(gap) / error)}
    found["detectable"] = (z + norm.isf(1 - POWER)) * error
    return found | {"differ": chi2.sf(spread, len(rows) - 1) if len(rows) > 1 else np.nan}


def _compare_rates(sent: pd.Series, held: pd.Series) -> tuple[float, float, float]:
    from scipy.stats import chi2_contingency, fisher_exact
    from scipy.stats.contingency import expected_freq

    one, two = float(sent.mean()), float(held.mean())
    low, high = _find_wilson(sent.to_numpy(float))
    held_low, held_high = _find_wilson(held.to_numpy(float))
    below, above = math.hypot(one - low, held_high - two), math.hypot(high - one, two - held_low)
    table = np.array([[each.sum(), len(each) - each.sum()] for each in (sent, held)], dtype=int)
    if not table.any(axis=0).all():  # all did, or nobody
        p = 1.0
    elif expected_freq(table).min() < 5:
        p = fisher_exact(table).pvalue
    else:
        p = chi2_contingency(table, correction=False).pvalue
    return one - two - below, one - two + above, float(p)


def _compare_means(sent: pd.Series, held: pd.Series, seed: int) -> tuple[float, float, float]:
    """Interval and p of a difference of means, by what Welch's t would be had chance dealt anew.

    Both groups, each less its mean, are dealt again and again; so the shape of the figures, such
    as a few who spend a lot, is that of all customers, and the ends need not lie alike.
    """
    from scipy.stats import t

    groups = sent.to_numpy(float), held.to_numpy(float)
    (n, one), (m, two) = ((len(each), each.var(ddof=1) / len(each)) for each in groups)
    gap, error = groups[0].mean() - groups[1].mean(), math.sqrt(one + two)
    if error == 0:
        return np.nan, np.nan, np.nan
    if n + m > DEALT:
        df = (one + two) ** 2 / (one**2 / (n - 1) + two**2 / (m - 1))
        ends, beyond = t.ppf([LEVEL / 2, 1 - LEVEL / 2], df), t.sf(abs(gap) / error, df)
    else:
        ts = _deal(np.concatenate([each - each.mean() for each in groups]), m, seed)
        ends = np.quantile(ts, [LEVEL / 2, 1 - LEVEL / 2])
        farther = min((ts >= gap / error).sum(), (ts <= gap / error).sum())
        beyond = (1 + farther) / (1 + len(ts))
    return gap - error * ends[1], gap - error * ends[0], float(min(1, 2 * beyond))


def _deal(values: np.ndarray, m: int, seed: int) -> np.ndarray:
    """Welch's t of the others against m of the values, dealt 4 999 times."""
    rng, n, dealt = np.random.default_rng(seed), len(values) - m, []
    rows = max(1, 2_000_000 // len(values))
    for left in range(DEALS, 0, -rows):
        chances = rng.random((min(rows, left), len(values)), dtype=np.float32)
        own = values[np.argpartition(chances, m - 1, axis=1)[:, :m]]
        sums, squares = own.sum(axis=1), (own**2).sum(axis=1)
        ours, theirs = sums / m, (values.sum() - sums) / n
        errors = (squares / m - ours**2) / (m - 1)
        errors += (((values**2).sum() - squares) / n - theirs**2) / (n - 1)
        dealt.append((theirs - ours) / np.sqrt(np.maximum(errors, 1e-300)))
    return np.concatenate(dealt)


def _find_wilson(values: np.ndarray) -> tuple[float, float]:
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
