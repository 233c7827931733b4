"""The model: fit, order, assign with confidence, save and load."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, cast

import joblib
import numpy as np
import pandas as pd
import sklearn
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.pipeline import Pipeline

from segmentation import InputError
from segmentation.clustering import kmeans, stability
from segmentation.clustering.kmeans import Floats
from segmentation.clustering.preprocessing import (
    find_chains,
    find_drop_fences,
    fit_preprocessor,
    select_rows,
)
from segmentation.clustering.selection import fit_best
from segmentation.customers import database as warehouse
from segmentation.customers import extracts, moments
from segmentation.customers.card import Card
from segmentation.customers.table import count_customers, draw_customers, is_sample
from segmentation.customers.text import Notes, hash_file
from segmentation.segments import queries as expressions
from segmentation.segments.profiles import (
    Segment,
    identify_clusters,
    measure_features,
    measure_levels,
)
from segmentation.segments.scorer import BORDERLINE, STATUSES, Scorer

MODEL, FIGURES = "segmenter.joblib", "segmenter.json"


class Limits(TypedDict):
    """What the training rows spanned: each feature's range, each position's largest distance.

    `fence` holds, for features whose outliers are dropped, where these begin (of the logarithm
    where there is one).
    """

    low: dict[str, float]
    high: dict[str, float]
    radius: list[float]
    fence: dict[str, list[float]]


def fit(table: pd.DataFrame, card: Card, *, k: int, seed: int = 0) -> Pipeline:
    """Fit preprocessing and K-means together on the raw features of the rows used.

    The Pipeline takes raw columns by name and predicts a position 0…k−1: the largest segment
    first, ties by centre in the card's order. The order of the rows changes nothing; a row that
    stands for several customers counts as often.

    Raises
    ------
    InputError
        k is not in 1…n−1, or there are fewer distinct customers than k.
    """
    used = select_rows(table, card).sort_values(card.distance, kind="stable")
    check_k(k, used[card.distance])
    preprocessor, scaled = fit_preprocessor(used, card)
    weights = count_customers(used)
    best = fit_best(scaled, k, weights=weights, seed=seed)
    final = KMeans(k, init=best.centres[_order(best, weights)], n_init=1, random_state=seed)
    final.fit(scaled, sample_weight=weights)
    return Pipeline([("preprocess", preprocessor), ("kmeans", final)])


def check_k(k: int, used: pd.DataFrame) -> None:
    """Refuse a K that the rows cannot fill."""
    if not 1 <= k < len(used):
        raise InputError(f"k must be 1…{len(used) - 1} for {len(used)} customers, got {k}.")
    distinct = len(used.drop_duplicates())
    if k > distinct:
        raise InputError(f"k must be 1…{distinct} for {distinct} distinct customers, got {k}.")


def _order(fit: kmeans.Fit, weights: Floats) -> NDArray[np.intp]:
    """Positions by size, descending; ties by centre, lexicographic (z-scores keep raw order)."""
    sizes = np.bincount(fit.labels, weights, minlength=len(fit.centres))
    return np.lexsort((*fit.centres.T[::-1], -sizes))


def find_centres(pipeline: Pipeline, card: Card) -> pd.DataFrame:
    """The centroids (k, features) in raw units, one row a position; logs are taken back."""
    scaled = pipeline["kmeans"].cluster_centers_
    steps = find_chains(pipeline["preprocess"], card)
    raw = {}
    for i, (name, feature) in enumerate(card.features.items()):
        values = steps[name][-1].inverse_transform(scaled[:, [i]])[:, 0]
        raw[name] = np.expm1(values) if feature.transform == "log" else values
    return pd.DataFrame(raw)


def measure_limits(pipeline: Pipeline, table: pd.DataFrame, card: Card) -> Limits:
    """What the rows used for the fit span, in raw units and in scaled distance."""
    rows = select_rows(table, card)
    fence = find_drop_fences(table, card)
    distances, used = pipeline.transform(rows[card.distance]), rows[list(card.features)]
    nearest = distances.argmin(axis=1)
    radius = [float(distances[nearest == h, h].max()) for h in range(distances.shape[1])]
    return {"low": dict(used.min()), "high": dict(used.max()), "radius": radius, "fence": fence}


def resample_segments(
    pipeline: Pipeline, table: pd.DataFrame, card: Card, *, resamples: int = 100, seed: int = 0
) -> tuple[Floats, Floats]:
    """Do the fitted segments come back? Jaccards (resamples, k) and SLSw (pairs, k) by position.

    On a seeded sample above 2 000 rows. See `stability.jaccard_bootstrap` and `stability.slsw`.
    """
    scaled = scale_rows(pipeline, table, card)
    weights = count_customers(select_rows(table, card))
    rows = scaled[stability.resampling_rows(len(scaled), weights=weights, seed=seed)]
    labels = kmeans.assign(rows, pipeline["kmeans"].cluster_centers_)
    jaccards = stability.jaccard_bootstrap(rows, labels, resamples=resamples, seed=seed)
    return jaccards, stability.slsw(rows, labels, pairs=resamples, seed=seed)


def scale_rows(pipeline: Pipeline, table: pd.DataFrame, card: Card) -> Floats:
    """The rows used (m, p) as the distance sees them."""
    used = select_rows(table, card)[card.distance]
    return pipeline["preprocess"].transform(used).to_numpy()


def find_similarities(
    pipeline: Pipeline, table: pd.DataFrame, card: Card, *, seed: int = 0
) -> Floats:
    """How similar each customer used is to each centre (m, k), 0…1: see `stability.gorge`.

    Of many customers a sample is looked at: see `customers.draw_customers`.
    """
    used = draw_customers(select_rows(table, card), seed=seed)
    scaled = pipeline["preprocess"].transform(used[card.distance]).to_numpy()
    return stability.gorge(scaled, pipeline["kmeans"].cluster_centers_)


def build_scorer(pipeline: Pipeline, card: Card, limits: Limits) -> Scorer:
    """The fitted model as plain arrays."""
    return Scorer.from_figures(_list_figures(pipeline, card, limits))


def assign(scorer: Scorer, table: pd.DataFrame) -> pd.DataFrame:
    """Put each customer (n raw rows) into a segment and say how sure that is.

    Columns: position, distance (scaled), second (position of the next segment), confidence
    and status; see `Scorer.score`. With one segment second and confidence are empty, in a row that
    the card's policies drop all but the status.
    """
    scores = scorer.score(*scorer.take(table))
    result = pd.DataFrame(index=table.index)
    for name in ("position", "second"):
        places = pd.Series(getattr(scores, name), index=table.index, dtype="Int64")
        result[name] = places.mask(places < 0)
    result["distance"], result["confidence"] = scores.distance, scores.confidence
    result["status"] = np.array(STATUSES)[scores.status]
    return result[["position", "distance", "second", "confidence", "status"]]


def clean_levels(levels: pd.Series) -> list[str | None]:
    """The levels of a descriptor as a model knows them, None where there is none."""
    return [None if pd.isna(level) else str(level) for level in levels]


def cluster_customers(
    pipeline: Pipeline, table: pd.DataFrame, card: Card, limits: Limits
) -> pd.DataFrame:
    """All n rows as read, plus cluster, distance, second, confidence and status.

    Rows that the card's policies drop keep an empty cluster and the status `dropped`.
    """
    assigned = assign(build_scorer(pipeline, card, limits), table)
    return pd.concat([table, assigned.rename(columns={"position": "cluster"})], axis=1)


def measure_segments(
    pipeline: Pipeline, clustered: pd.DataFrame, card: Card, limits: Limits
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Figures and levels by position: see `profiles.measure_features`, `profiles.measure_levels`.

    Where `clustered` is a sample, all customers are scored and measured where their table lies.
    """
    if not is_sample(clustered, card):
        return measure_features(clustered, card), measure_levels(clustered, card)
    scorer = build_scorer(pipeline, card, limits)
    positions = [{"id": h, "name": f"{h}"} for h in range(len(scorer.centres))]
    table = extracts.open_customers(card, Notes())
    scored = expressions.score_table(table, scorer, positions)
    return expressions.measure_segments(scored, card), expressions.count_levels(scored, card)


def save_customers(
    place: Callable[[str], Path], scorer: Scorer, card: Card, segments: list[Segment]
) -> str:
    """Write every customer of a large Parquet file with segment and confidence; what was done.

    `place` tells where a table of a name goes. A table read whole needs no other file than
    `clustered_data.csv`; the customers of a database stay there.
    """
    if not extracts.is_large(card):
        return "Every customer stands in clustered_data.csv."
    if card.backend:
        return (
            "The customers stay in their database; segmentation score --backend URL --table "
            f"{card.table} --into NAME writes everyone's segment beside them."
        )
    table = extracts.open_customers(card, Notes())
    scored = expressions.score_table(table, scorer, cast(list[dict[str, Any]], segments))
    warehouse.save_file(scored, place("clustered_data.parquet"))
    return "Every customer stands in clustered_data.parquet, with segment and confidence."


def name_customers(clustered: pd.DataFrame, segments: list[Segment]) -> pd.DataFrame:
    """The clustered table as people read it: ids for positions, names of `segment`, `second`."""
    names = {position: segment["name"] for position, segment in enumerate(segments)}
    named = identify_clusters(clustered, segments)
    named["second"] = clustered["second"].map(names)
    named.insert(named.columns.get_loc("cluster") + 1, "segment", clustered["cluster"].map(names))
    return named


def count_statuses(named: pd.DataFrame) -> pd.DataFrame:
    """One row a segment, largest first, and how many of its customers are borderline.

    Columns: cluster, segment, customers, borderline, share, and of the borderline ones the segment
    that most are near to (`toward`) and how many these are (`nearest`).
    """
    used = named[named["status"] != "dropped"]
    counts = pd.Series(count_customers(used), index=used.index)
    rows = []
    for (cluster, segment), own in used.groupby(["cluster", "segment"], sort=False):
        near = own[own["status"] == "borderline"]
        sums = counts[near.index].groupby(near["second"], sort=False).sum()
        most = sums.sort_values(ascending=False, kind="stable").head(1)
        toward, nearest = (most.index[0], round(most.iloc[0])) if len(most) else ("", 0)
        size, borders = round(counts[own.index].sum()), round(counts[near.index].sum())
        rows.append((cluster, segment, size, borders, borders / size, toward, nearest))
    columns = ["cluster", "segment", "customers", "borderline", "share", "toward", "nearest"]
    counted = pd.DataFrame(rows, columns=columns)
    return counted.sort_values("customers", ascending=False, kind="stable", ignore_index=True)


def summarize_assignment(clustered: pd.DataFrame) -> str:
    """How sure the assignment is, in a sentence."""
    used = clustered[clustered["status"] != "dropped"]
    counts = count_customers(used)
    total = counts.sum()
    if used["confidence"].isna().all():
        return f"All {total:,.0f} customers are in one segment; there is no border to be near."
    near = counts[used["status"] == "borderline"].sum()
    return (
        f"{near:,.0f} of {total:,.0f} customers ({near / total:.0%}) are borderline: nearly as "
        "close to a second segment. The median confidence is "
        f"{moments.quantile(used['confidence'], 0.5, counts):.2f}."
    )


def save_segmenter(
    folder: Path,
    pipeline: Pipeline,
    card: Card,
    limits: Limits,
    segments: list[Segment],
    *,
    highest_id: int = 0,
) -> None:
    """Write `segmenter.joblib`, the fitted Pipeline, and the same in plain figures beside it.

    `highest_id` is the highest id that was ever given, so that none is given twice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(pipeline, folder / MODEL)
    ids = [segment["id"] for segment in segments]
    figures = _list_figures(pipeline, card, limits) | {
        "ids": ids,
        "names": [segment["name"] for segment in segments],
        "highest_id": max(highest_id, *ids),
        "sha256": {MODEL: hash_file(folder / MODEL)},
    }
    (folder / FIGURES).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _list_figures(pipeline: Pipeline, card: Card, limits: Limits) -> dict[str, Any]:
    """What `segmenter.json` says of a model: all that it takes to score without the Pipeline."""
    steps = find_chains(pipeline["preprocess"], card)
    features = []
    for name, feature in card.features.items():
        chain = dict(steps[name].steps)
        clip, scaler = chain.get("clipper"), chain["weigher"]
        features.append(
            {
                "column": name,
                "label": feature.label,
                "unit": feature.unit,
                "fill": float(chain["filler"].median_[0]),
                "transform": feature.transform,
                "clip": [float(clip.low_[0]), float(clip.high_[0])] if clip else None,
                "fence": limits["fence"].get(name),
                "mean": float(scaler.mean_[0]),
                "scale": float(scaler.scale_),
                "range": [float(limits["low"][name]), float(limits["high"][name])],
            }
        )
    codes = [
        {
            "column": name,
            "levels": clean_levels(chain[0].categories_[0]),
            "mean": chain[-1].mean_.tolist(),
            "scale": float(chain[-1].scale_),
        }
        for name in card.coded
        for chain in [steps[name]]
    ]
    return {
        "features": features,
        "codes": codes,
        "centres": pipeline["kmeans"].cluster_centers_.tolist(),
        "radius": limits["radius"],
        "borderline": BORDERLINE,
        "card": card.model_dump(
            mode="json", exclude={"table", "backend", "path"}, exclude_defaults=True
        ),
        "versions": {
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
    }


def load_segmenter(folder: Path) -> tuple[Pipeline, dict[str, Any]]:
    """The fitted Pipeline and its plain figures, from a run's `artifacts` folder.

    Raises
    ------
    InputError
        A file is missing, is not what the run wrote, or comes from another scikit-learn.
    """
    if not (folder / MODEL).is_file() or not (folder / FIGURES).is_file():
        raise InputError(f"{folder}: no segmenter here; run the series first.")
    figures = json.loads((folder / FIGURES).read_text("utf-8"))
    if hash_file(folder / MODEL) != figures["sha256"][MODEL]:
        raise InputError(f"{MODEL} is not the file that the run wrote; run 04_modeling again.")
    stamped = figures["versions"]["scikit-learn"]
    if stamped != sklearn.__version__:
        raise InputError(
            f"{MODEL} was written by scikit-learn {stamped}, this is {sklearn.__version__}; "
            "run the series again."
        )
    return joblib.load(folder / MODEL), figures
