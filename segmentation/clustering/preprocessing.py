"""What the distance sees: rows chosen, gaps filled, outliers clipped, features scaled."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn import config_context
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.utils.validation import validate_data

from segmentation.clustering import kmeans
from segmentation.customers import moments
from segmentation.customers.card import COUNT, Card, Feature
from segmentation.customers.draft import SKEWED
from segmentation.customers.moments import Floats
from segmentation.customers.table import count_customers, draw_customers, hide_ids

FENCE = 3.0
"""Outliers lie so many interquartile ranges beyond the quartiles (Tukey's outer fence)."""


def find_fences(values: Any, weights: Any) -> tuple[float, float]:
    """Lower and upper outer fence of (n,) values, in their own unit; a weight counts customers."""
    low, high = moments.quantile(values, [0.25, 0.75], weights)
    return float(low - FENCE * (high - low)), float(high + FENCE * (high - low))


class Filler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Fill the gaps of each column with its median."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:  # noqa: ARG002
        """Learn the medians of a table (n, p)."""
        values = validate_data(self, X, dtype=float, ensure_all_finite="allow-nan")
        weights = np.ones(len(values)) if sample_weight is None else sample_weight
        self.median_ = np.array([moments.quantile(v, 0.5, weights) for v in values.T])
        return self

    def transform(self, X: Any) -> Floats:
        """Fill a table (n, p)."""
        values = validate_data(self, X, dtype=float, ensure_all_finite="allow-nan", reset=False)
        return np.where(np.isnan(values), self.median_, values)


class Clipper(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Clip each column to the outer fences of the rows it was fitted on."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:  # noqa: ARG002
        """Learn the fences of a table (n, p)."""
        values = validate_data(self, X, dtype=float)
        weights = np.ones(len(values)) if sample_weight is None else sample_weight
        fences = [find_fences(column, weights) for column in values.T]
        self.low_, self.high_ = np.array(fences).T
        return self

    def transform(self, X: Any) -> Floats:
        """Clip a table (n, p)."""
        return np.clip(validate_data(self, X, dtype=float, reset=False), self.low_, self.high_)


class Weigher(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Centre the columns and give all of them together the variance `weight`²."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:  # noqa: ARG002
        """Learn means and spread of a table (n, p)."""
        values = validate_data(self, X, dtype=float)
        self.mean_ = np.average(values, axis=0, weights=sample_weight)
        squares = np.average((values - self.mean_) ** 2, axis=0, weights=sample_weight)
        spread = np.sqrt(squares.sum())
        self.scale_ = spread / self.weight if spread > 0 else 1.0
        return self

    def transform(self, X: Any) -> Floats:
        """Centre and scale a table (n, p)."""
        return (validate_data(self, X, dtype=float, reset=False) - self.mean_) / self.scale_

    def inverse_transform(self, X: Any) -> Floats:
        """The table (n, p) that gave these values."""
        return np.asarray(X, dtype=float) * self.scale_ + self.mean_


def build_preprocessor(card: Card) -> ColumnTransformer:
    """A pipeline a feature (impute, log, clip, scale), fed from raw columns by name.

    A feature is a z-score times its weight. A descriptor with a weight is one-hot, all its columns
    together with the variance of one feature of that weight.
    """
    chains = {name: _build_steps(feature) for name, feature in card.features.items()}
    for name, descriptor in card.coded.items():
        codes = OneHotEncoder(
            sparse_output=False, handle_unknown="ignore", feature_name_combiner=_name_code
        )
        chains[name] = make_pipeline(codes, _count(Weigher(descriptor.weight)))
    steps = [(f"x{i}", chain, [name]) for i, (name, chain) in enumerate(chains.items())]
    return ColumnTransformer(steps, verbose_feature_names_out=False).set_output(transform="pandas")


def find_chains(preprocessor: ColumnTransformer, card: Card) -> dict[str, Any]:
    """The fitted pipeline of each column in the distance, by the column's name."""
    fitted = preprocessor.named_transformers_
    return {name: fitted[f"x{i}"] for i, name in enumerate(card.distance)}


def _build_steps(feature: Feature) -> Any:
    log = FunctionTransformer(np.log1p, np.expm1, feature_names_out="one-to-one")
    steps = [log] if feature.transform == "log" else []
    steps += [_count(Clipper())] if feature.outliers == "clip" else []
    return make_pipeline(_count(Filler()), *steps, _count(Weigher(feature.weight)))


def _count(step: Any) -> Any:
    """A step that learns from rows that stand for several customers."""
    with config_context(enable_metadata_routing=True):
        return step.set_fit_request(sample_weight=True)


def fit_preprocessor(used: pd.DataFrame, card: Card) -> tuple[ColumnTransformer, pd.DataFrame]:
    """The preprocessor fitted on rows used, each for as many customers as it counts; and these
    rows (m, p) as the distance sees them."""
    preprocessor = build_preprocessor(card)
    with config_context(enable_metadata_routing=True):
        weights = count_customers(used)
        scaled = preprocessor.fit_transform(used[card.distance], sample_weight=weights)
    return preprocessor, scaled


def _name_code(column: Any, level: Any) -> str:
    return f"{column} is {'missing' if pd.isna(level) else level}"


def _transform(values: pd.Series, feature: Feature) -> pd.Series:
    """A feature on the scale on which its outliers are told."""
    return np.log1p(values) if feature.transform == "log" else values


def select_rows(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """The rows (m ≤ n) that the card's `drop` policies leave for the fit."""
    return table[_find_kept(table, card)]


def find_drop_fences(table: pd.DataFrame, card: Card) -> dict[str, list[float]]:
    """Where outliers begin of the features that drop them, on the scale on which they are told."""
    return {
        name: [*find_fences(_transform(table[name], feature), count_customers(table))]
        for name, feature in card.features.items()
        if feature.outliers == "drop"
    }


def _find_kept(table: pd.DataFrame, card: Card) -> pd.Series:
    kept = pd.Series(True, index=table.index)
    for name, feature in card.features.items():
        if feature.missing == "drop":
            kept &= table[name].notna()
        if feature.outliers == "drop":
            kept &= ~_find_outliers(table, name, feature)
    return kept


def _find_outliers(table: pd.DataFrame, name: str, feature: Feature) -> pd.Series:
    values = _transform(table[name], feature)
    low, high = find_fences(values, count_customers(table))
    return (values < low) | (values > high)


def _total(table: pd.DataFrame, rows: pd.Series) -> int:
    """How many customers some rows stand for."""
    return round(count_customers(table)[rows.to_numpy()].sum())


def report_policies(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row a feature: its policies, its outer fences in raw units, the customers concerned."""
    rows = []
    for name, feature in card.features.items():
        fences = find_fences(_transform(table[name], feature), count_customers(table))
        low, high = np.expm1(fences) if feature.transform == "log" else fences
        rows.append(
            {
                "feature": feature.title,
                "missing": _total(table, table[name].isna()),
                "policy for missing": feature.missing,
                "lower fence": float(low),
                "upper fence": float(high),
                "outliers": _total(table, _find_outliers(table, name, feature)),
                "policy for outliers": feature.outliers,
                "transform": feature.transform,
                "weight": feature.weight,
            }
        )
    return pd.DataFrame(rows)


def describe_quality(table: pd.DataFrame, found: pd.DataFrame, card: Card) -> pd.DataFrame:
    """What was found while reading, then outliers by their policy, then the customers used.

    Columns as of `customers.inspect_customers`: column, finding, rows, done.
    """
    done = {"keep": "kept", "clip": "clipped", "drop": "left out"}
    rows = [*found.itertuples(index=False, name=None)]
    for name, feature in card.features.items():
        if count := _total(table, _find_outliers(table, name, feature)):
            rows.append((name, "values beyond the outer fences", count, done[feature.outliers]))
    used, all_ = count_used(table, card), round(count_customers(table).sum())
    rows.append(("", "customers used", used, f"of {all_:,} in the table"))
    return pd.DataFrame(rows, columns=found.columns)


def count_used(table: pd.DataFrame, card: Card) -> int:
    """How many customers the card's `drop` policies leave for the fit."""
    return _total(table, _find_kept(table, card))


def summarize_policies(table: pd.DataFrame, card: Card) -> str:
    """What the policies changed and for how many customers, in a sentence."""
    report = report_policies(table, card)
    used, all_ = count_used(table, card), round(count_customers(table).sum())
    filled = int(report.loc[report["policy for missing"] == "median", "missing"].sum())
    clipped = int(report.loc[report["policy for outliers"] == "clip", "outliers"].sum())
    kept = int(report.loc[report["policy for outliers"] == "keep", "outliers"].sum())
    done = [
        *([f"{all_ - used:,} dropped"] if all_ > used else []),
        *([f"{filled:,} missing values filled with the median"] if filled else []),
        *([f"{clipped:,} outliers clipped"] if clipped else []),
        *([f"{kept:,} outliers kept"] if kept else []),
    ]
    told = ", ".join(done) or "nothing was missing and nothing lay beyond the outer fences"
    return f"{used:,} of {all_:,} customers are used: {told}."


def scale(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """The z-scored features (m, p) of the rows used, as the distance sees them."""
    return fit_preprocessor(select_rows(table, card), card)[1]


def summarize_scaling(table: pd.DataFrame, card: Card) -> str:
    """How unequal the features' variances were before scaling, in a sentence."""
    counts = count_customers(table)
    variances = pd.Series({name: moments.sd(table[name], counts) ** 2 for name in card.features})
    shares = variances / variances.sum()
    largest = str(shares.idxmax())
    return (
        f"Unscaled, {card.label(largest)} would make up {shares.max():.0%} of all squared "
        f"distances; as z-scores each of the {len(shares)} features makes up {1 / len(shares):.0%}."
    )


def encode(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """Descriptors that are not in the distance as 0/1 columns `column=level`, less the first."""
    outside = [name for name in card.descriptors if name not in card.coded]
    if not outside:
        return pd.DataFrame(index=table.index)
    levels = {name: table[name].fillna("missing").astype(str) for name in outside}
    codes = pd.get_dummies(pd.DataFrame(levels, index=table.index), prefix_sep="=", dtype=int)
    first = [f"{name}={min(values)}" for name, values in levels.items() if len(values)]
    return codes.drop(columns=first)


def preprocess(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """The table that the later notebooks start from: id, scaled features, encoded descriptors.

    Where rows stand for several customers, a column `customers` says for how many.
    """
    used = select_rows(table, card)
    known = used[[name for name in (card.id, COUNT) if name in used]]
    return pd.concat([known, scale(table, card), encode(used, card)], axis=1)


def describe_prepared(prepared: pd.DataFrame, card: Card) -> pd.DataFrame:
    """Mean, standard deviation, minimum and maximum (4 rows) of each prepared column."""
    counts, values = count_customers(prepared), hide_ids(prepared, card)
    told = {
        "mean": [moments.mean(values[name], counts) for name in values],
        "std": [moments.sd(values[name], counts, ddof=1) for name in values],
        "min": values.min().to_list(),
        "max": values.max().to_list(),
    }
    return pd.DataFrame(told, index=values.columns).T


def select_matrix(prepared: pd.DataFrame, card: Card) -> pd.DataFrame:
    """What the distance sees (n, p) of a prepared table: features, then codes in the distance."""
    codes = [c for c in prepared if any(str(c).startswith(f"{name} is ") for name in card.coded)]
    return prepared[[*card.features, *codes]]


def summarize_skew(table: pd.DataFrame, card: Card) -> str:
    """Which features a log transform would even out, in a sentence; it is proposed, not done."""
    skewed = [
        f"{feature.label} (skewness {skew:.1f})"
        for name, feature in card.features.items()
        if feature.transform == "none" and table[name].min() >= 0
        if (skew := table[name].skew()) > SKEWED
    ]
    if not skewed:
        return "No feature without a transform is strongly skewed."
    return f"Strongly skewed: {', '.join(skewed)}. Consider `transform: log` in the card."


def compare_encoded(table: pd.DataFrame, card: Card, *, k: int = 4, seed: int = 0) -> pd.DataFrame:
    """How K segments follow each descriptor (Cramér's V), left out of and put in the distance.

    Of many customers a sample is looked at: see `customers.draw_customers`.
    """
    used = draw_customers(select_rows(table, card), seed=seed)
    scaled = fit_preprocessor(used, card)[1]
    rows = []
    for name, descriptor in card.descriptors.items():
        if name in card.coded:
            continue
        codes = encode(used, card.model_copy(update={"descriptors": {name: descriptor}}))
        widened = np.hstack([scaled, (codes - codes.mean()) / codes.std(ddof=0).replace(0, 1)])
        out = kmeans.fit(scaled, k, seed=seed).labels
        into = kmeans.fit(widened, k, seed=seed).labels
        v = [measure_association(labels, used[name]) for labels in (out, into)]
        rows.append((descriptor.label, k, *v))
    return pd.DataFrame(rows, columns=["descriptor", "K", "V left out", "V put in"])


def measure_association(labels: Any, levels: pd.Series, weights: Any = None) -> float:
    """Cramér's V between a cut and a descriptor: 0 unrelated, 1 the one tells the other."""
    named = levels.fillna("missing").astype(str).to_numpy()
    customers = pd.Series(kmeans.weigh(len(named), weights))
    counts = customers.groupby([np.asarray(labels), named]).sum().unstack(fill_value=0).to_numpy()
    expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
    freedom = min(counts.shape) - 1
    chi2 = ((counts - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi2 / (counts.sum() * freedom))) if freedom else 0.0


def summarize_encoded(comparison: pd.DataFrame) -> str:
    """Why descriptors stay out of the distance, in a sentence a descriptor."""
    if comparison.empty:
        return "The card names no descriptor, so there is nothing to keep out of the distance."
    return " ".join(
        f"Put into the distance as 0/1, {row[0]} would decide the cut at K = {row[1]} (Cramér's V "
        f"{row[3]:.2f}, against {row[2]:.2f} left out)."
        if row[3] > max(0.5, row[2])
        else f"{row[0]} changes little at K = {row[1]} (Cramér's V {row[3]:.2f} put in, "
        f"{row[2]:.2f} left out)."
        for row in comparison.itertuples(index=False)
    )
