"""What the distance sees: rows chosen, gaps filled, outliers clipped, features scaled."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.utils.validation import validate_data

from segmentation import kmeans
from segmentation.cards import Card, Feature
from segmentation.drafts import SKEWED

FENCE = 3.0
"""Outliers lie so many interquartile ranges beyond the quartiles (Tukey's outer fence)."""


def find_fences(values: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper outer fence of each column, in the column's own unit."""
    low, high = np.nanquantile(np.asarray(values, dtype=float), [0.25, 0.75], axis=0)
    return low - FENCE * (high - low), high + FENCE * (high - low)


class Clipper(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Clip each column to the outer fences of the rows it was fitted on."""

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Learn the fences of a table (n, p)."""
        self.low_, self.high_ = find_fences(validate_data(self, X, dtype=float))
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Clip a table (n, p)."""
        return np.clip(validate_data(self, X, dtype=float, reset=False), self.low_, self.high_)


class Weigher(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Centre the columns and give all of them together the variance `weight`²."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Learn means and spread of a table (n, p)."""
        values = validate_data(self, X, dtype=float)
        self.mean_, spread = values.mean(axis=0), np.sqrt(values.var(axis=0).sum())
        self.scale_ = spread / self.weight if spread > 0 else 1.0
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Centre and scale a table (n, p)."""
        return (validate_data(self, X, dtype=float, reset=False) - self.mean_) / self.scale_

    def inverse_transform(self, X: Any) -> NDArray[np.float64]:
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
        chains[name] = make_pipeline(codes, Weigher(descriptor.weight))
    steps = [(f"x{i}", chain, [name]) for i, (name, chain) in enumerate(chains.items())]
    return ColumnTransformer(steps, verbose_feature_names_out=False).set_output(transform="pandas")


def find_chains(preprocessor: ColumnTransformer, card: Card) -> dict[str, Any]:
    """The fitted pipeline of each column in the distance, by the column's name."""
    fitted = preprocessor.named_transformers_
    return {name: fitted[f"x{i}"] for i, name in enumerate(card.distance)}


def _build_steps(feature: Feature) -> Any:
    log = FunctionTransformer(np.log1p, np.expm1, feature_names_out="one-to-one")
    steps = [log] if feature.transform == "log" else []
    steps += [Clipper()] if feature.outliers == "clip" else []
    return make_pipeline(SimpleImputer(strategy="median"), *steps, Weigher(feature.weight))


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
        name: [float(fence) for fence in find_fences(_transform(table[name], feature))]
        for name, feature in card.features.items()
        if feature.outliers == "drop"
    }


def _find_kept(table: pd.DataFrame, card: Card) -> pd.Series:
    kept = pd.Series(True, index=table.index)
    for name, feature in card.features.items():
        if feature.missing == "drop":
            kept &= table[name].notna()
        if feature.outliers == "drop":
            kept &= ~_find_outliers(_transform(table[name], feature))
    return kept


def _find_outliers(values: pd.Series) -> pd.Series:
    low, high = find_fences(values)
    return (values < low) | (values > high)


def report_policies(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row a feature: its policies, its outer fences in raw units, the rows they concern."""
    rows = []
    for name, feature in card.features.items():
        values = _transform(table[name], feature)
        fences = find_fences(values)
        low, high = np.expm1(fences) if feature.transform == "log" else fences
        rows.append(
            {
                "feature": feature.title,
                "missing": int(table[name].isna().sum()),
                "policy for missing": feature.missing,
                "lower fence": float(low),
                "upper fence": float(high),
                "outliers": int(_find_outliers(values).sum()),
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
        if count := int(_find_outliers(_transform(table[name], feature)).sum()):
            rows.append((name, "values beyond the outer fences", count, done[feature.outliers]))
    used = int(_find_kept(table, card).sum())
    rows.append(("", "customers used", used, f"of {len(table)} in the table"))
    return pd.DataFrame(rows, columns=found.columns)


def summarize_policies(table: pd.DataFrame, card: Card) -> str:
    """What the policies changed and for how many rows, in a sentence."""
    report = report_policies(table, card)
    dropped = int((~_find_kept(table, card)).sum())
    filled = int(report.loc[report["policy for missing"] == "median", "missing"].sum())
    clipped = int(report.loc[report["policy for outliers"] == "clip", "outliers"].sum())
    kept = int(report.loc[report["policy for outliers"] == "keep", "outliers"].sum())
    done = [
        *([f"{dropped} dropped"] if dropped else []),
        *([f"{filled} missing values filled with the median"] if filled else []),
        *([f"{clipped} outliers clipped"] if clipped else []),
        *([f"{kept} outliers kept"] if kept else []),
    ]
    told = ", ".join(done) or "nothing was missing and nothing lay beyond the outer fences"
    return f"{len(table) - dropped} of {len(table)} customers are used: {told}."


def scale(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """The z-scored features (m, p) of the rows used, as the distance sees them."""
    return build_preprocessor(card).fit_transform(select_rows(table, card)[card.distance])


def summarize_scaling(table: pd.DataFrame, card: Card) -> str:
    """How unequal the features' variances were before scaling, in a sentence."""
    shares = (variances := table[list(card.features)].var(ddof=0)) / variances.sum()
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
    """The table that the later notebooks start from: id, scaled features, encoded descriptors."""
    used = select_rows(table, card)
    return pd.concat([used[[card.id]], scale(table, card), encode(used, card)], axis=1)


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
    """How K segments follow each descriptor (Cramér's V), left out of and put in the distance."""
    scaled = scale(table, card)
    used = select_rows(table, card)
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


def measure_association(labels: Any, levels: pd.Series) -> float:
    """Cramér's V between a cut and a descriptor: 0 unrelated, 1 the one tells the other."""
    named = levels.fillna("missing").astype(str)
    counts = pd.crosstab(np.asarray(labels), named.to_numpy()).to_numpy(dtype=float)
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
