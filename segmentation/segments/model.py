"""The model: its figures, the segments of customers, the last scans over all rows, its files."""

from __future__ import annotations

import json
import platform
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from segmentation import InputError
from segmentation.customers import Card, database, is_large, open_customers
from segmentation.runs import hash_file
from segmentation.segments import profiles, queries
from segmentation.segments.profiles import Segment, measure_features, measure_levels
from segmentation.segments.scorer import (
    DROPPED,
    STATUSES,
    CodeFigures,
    FeatureFigures,
    Floats,
    ModelFigures,
    Scorer,
    clean_levels,
)

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from segmentation.clustering import stability

FOLDS, HELD_OUT = 10, 0.01  # share beyond the limit, each tenth judged by a fit to the others
MODEL, FIGURES = "segmenter.joblib", "segmenter.json"
SCANS, STILL = 12, 1e-6  # Lloyd over all rows: most scans; gain of the inertia that ends it
SCAN = ["scan", "inertia", "gain"]
ORDER = ("SimpleImputer", "FunctionTransformer", "Clipper")  # of a feature, before any scalers


class NoCentres(InputError):
    """A fitted model that cannot be written as scaled columns and centres."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}, so there are no centres: scoring of new customers, their confidence and the "
            "service cannot be had; segments, profiles and the report can."
        )


# From the Pipeline to its figures ----------------------------------------------------------


def build_figures(model: Pipeline, table: pd.DataFrame, card: Card) -> ModelFigures:
    """All that it takes to score without the fitted Pipeline: the content of `segmenter.json`.

    `model` is a Pipeline of a fitted ColumnTransformer and a clusterer with `cluster_centers_`,
    whose steps a feature are imputing, a logarithm, clipping and scaling, in this order; `table`
    (n rows) what was read, with the rows that the card drops. Ranges are of all customers: of a
    table that stays where it is, by query. Beyond `radius` lies 1 % of held-out customers of the
    rows at hand: each tenth is measured by a fit to the others.

    Raises
    ------
    NoCentres
        The steps or the clusterer cannot be written so.

    Examples
    --------
    >>> from sklearn.cluster import KMeans
    >>> from sklearn.compose import make_column_transformer
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> features = {"age": {}, "visits": {}}
    >>> card = Card.model_validate({"title": "t", "table": "t.csv", "features": features})
    >>> table = pd.DataFrame({"age": [20.0, 30, 60, 70], "visits": [9.0, 7, 1, 3]})
    >>> scaled = make_column_transformer((StandardScaler(), card.distance))
    >>> model = make_pipeline(scaled, KMeans(2, random_state=0)).fit(table[card.distance])
    >>> figures = build_figures(model, table, card)
    >>> sorted(figures.list_centres()["age"].round(1).tolist())
    [25.0, 65.0]
    >>> assign_customers(figures, table, card)["status"].tolist()
    ['ok', 'ok', 'ok', 'ok']
    """
    figures = _list_figures(model, table, card)
    radius = [_find_limit(figures, table)] * len(figures.centres)
    figures = figures.model_copy(update={"radius": radius})
    if not is_large(card):
        return figures
    ranges = queries.measure_ranges(open_customers(card), Scorer(figures))
    pairs = zip(figures.features, ranges, strict=True)
    features = [feature.model_copy(update={"range": ends}) for feature, ends in pairs]
    return figures.model_copy(update={"features": features})


def find_figures(
    model: Pipeline, table: pd.DataFrame, card: Card
) -> tuple[ModelFigures | None, str]:
    """The same; or None, and in a sentence why there are none and what then cannot be had."""
    try:
        return build_figures(model, table, card), ""
    except NoCentres as error:
        return None, str(error)


def _list_figures(model: Pipeline, table: pd.DataFrame, card: Card) -> ModelFigures:
    """The figures with the ranges of the rows at hand, but for the radius."""
    import sklearn

    from segmentation.clustering import Clipper, keep_rows

    used = keep_rows(table, card)
    blocks = _read_blocks(model, used, card)
    features = [block for block in blocks if "levels" not in block]
    for block in features:
        name, feature = block["column"], card.features[block["column"]]
        block["range"] = [used[name].min(), used[name].max()]
        if feature.outliers == "drop":  # found on the scale on which they are judged
            values = table[[name]].dropna()
            fitted = Clipper().fit(np.log1p(values) if feature.transform == "log" else values)
            block["fence"] = [float(fitted.low_[0]), float(fitted.high_[0])]
    centres = _find_centres(model, used[card.distance])[:, _order_columns(blocks)]
    versions = {"python": platform.python_version(), "scikit-learn": sklearn.__version__}
    bare = {"outcomes": {}, "contact": {}, "campaigns": {}, "value": ""}  # nobody new has them yet
    told = {
        "features": features,
        "codes": [block for block in blocks if "levels" in block],
        "centres": centres.tolist(),
        "radius": [0.0] * len(centres),
        "card": card.model_copy(update=bare),
        "versions": versions | {"numpy": np.__version__},
    }
    return ModelFigures.read(told)


def _find_limit(figures: ModelFigures, table: pd.DataFrame) -> float:
    """The distance from the nearest centre that 1 % of held-out customers exceed.

    A fit to the other nine tenths, if they are enough, goes on from the model's centres. Rows are
    ordered first, so that their order in the table changes nothing.
    """
    from segmentation.clustering import KMeans, keep_rows

    scorer, centres = Scorer(figures), np.array(figures.centres)
    rows = scorer.scale(*scorer.take(keep_rows(table, figures.card)))
    rows, held = rows[np.lexsort(rows.T)], np.arange(len(rows)) % FOLDS
    away = np.empty(len(rows))
    for fold in range(min(FOLDS, len(rows))):
        rest = rows[held != fold]
        fit = KMeans(len(centres), init=centres).fit(rest if len(rest) >= len(centres) else rows)
        away[held == fold] = fit.transform(rows[held == fold]).min(axis=1)
    return float(np.quantile(away, 1 - HELD_OUT, method="weibull"))


def _find_centres(model: Pipeline, used: pd.DataFrame) -> Floats:
    """The scaled centres (k, q), if each row belongs to the nearest of them."""
    name, centres = type(model[-1]).__name__, getattr(model[-1], "cluster_centers_", None)
    if centres is None or not hasattr(model, "predict"):
        raise NoCentres(f"{name} does not put customers to the nearest of some centres")
    scaled = np.asarray(model[0].transform(used), dtype=np.float64)
    away = ((scaled[:, None] - centres) ** 2).sum(axis=2)
    own = away[np.arange(len(away)), model.predict(used)]
    if (own > away.min(axis=1) * (1 + 1e-9) + 1e-9).any():
        raise NoCentres(f"{name} does not put every customer to the nearest of its centres")
    return np.asarray(centres, dtype=np.float64)


def _read_blocks(model: Pipeline, used: pd.DataFrame, card: Card) -> list[dict[str, Any]]:
    """The figures of features and codes, in the order of the preprocessor's columns."""
    preprocessor: Any = model[0]
    blocks: list[dict[str, Any]] = []
    if len(model) != 2 or not hasattr(preprocessor, "transformers_"):
        names = ", ".join(type(step).__name__ for _, step in model.steps)
        raise NoCentres(f"the model is not a ColumnTransformer and a clusterer, but {names}")
    for name, fitted, columns in preprocessor.transformers_:
        steps = [step for _, step in getattr(fitted, "steps", [("", fitted)])]
        steps = [step for step in steps if step not in ("passthrough", None)]
        if "drop" in steps:
            continue
        if steps and type(steps[0]).__name__ == "OneHotEncoder":
            read = [_read_codes(steps, columns)]
        else:
            read = [_read_feature(steps, i, str(c), used, card) for i, c in enumerate(columns)]
        weight = (preprocessor.transformer_weights or {}).get(name, 1.0)
        blocks += [block | {"scale": block["scale"] / weight} for block in read]
    return blocks


def _order_columns(blocks: list[dict[str, Any]]) -> list[int]:
    """The places of the scaled columns in the order of the figures: features, then codes."""
    coded = ["levels" in block for block in blocks for _ in block.get("levels", [""])]
    return np.argsort(coded, kind="stable").tolist()


def _read_codes(steps: list[Any], columns: Any) -> dict[str, Any]:
    """A one-hot encoded descriptor, scaled by BlockScaler if at all."""
    encoder, *rest = steps
    kinds = [type(step).__name__ for step in rest]
    levels = clean_levels(encoder.categories_[0])
    alone = len(columns) == 1 and len(encoder.get_feature_names_out()) == len(levels)
    if kinds not in ([], ["BlockScaler"]) or not alone:
        raise NoCentres(f"the codes of {', '.join(map(str, columns))} are not one block of levels")
    mean = rest[0].mean_.tolist() if rest else [0.0] * len(levels)
    scale = float(rest[0].scale_) if rest else 1.0
    return {"column": columns[0], "levels": levels, "mean": mean, "scale": scale}


def _read_feature(
    steps: list[Any], place: int, column: str, used: pd.DataFrame, card: Card
) -> dict[str, Any]:
    """What is done to one column: fill, transform, clip; a scaler shifts and divides behind."""
    if column not in card.features:
        raise NoCentres(f"{column} is no feature of the card")
    feature, last = card.features[column], -1
    told: dict[str, Any] = {"column": column, "label": feature.label, "unit": feature.unit}
    told |= {"fill": float(used[column].median()), "mean": 0.0, "scale": 1.0}
    for step in steps:
        kind = type(step).__name__
        rank = ORDER.index(kind) if kind in ORDER else len(ORDER)
        if rank < last or rank == last < len(ORDER):
            raise NoCentres(f"{kind} of {column} comes too late to be written in plain figures")
        last, shift, by = rank, 0.0, 1.0
        match kind:
            case "SimpleImputer" if not step.add_indicator:
                told["fill"] = float(step.statistics_[place])
            case "FunctionTransformer" if step.func in (None, np.log1p):
                told["transform"] = "log" if step.func else "none"
            case "Clipper":
                told["clip"] = [float(step.low_[place]), float(step.high_[place])]
            case "StandardScaler" | "RobustScaler":
                middle = step.mean_ if kind == "StandardScaler" else step.center_
                shift = 0.0 if middle is None else float(middle[place])
                by = 1.0 if step.scale_ is None else float(step.scale_[place])
            case "MinMaxScaler" if not step.clip:
                shift, by = -step.min_[place] / step.scale_[place], 1 / step.scale_[place]
            case _:
                raise NoCentres(f"{kind} as a step of {column} cannot be written in plain figures")
        told["mean"], told["scale"] = told["mean"] + told["scale"] * shift, told["scale"] * by
    return told


# Who belongs where -------------------------------------------------------------------------


def assign_customers(
    model: Pipeline | ModelFigures, table: pd.DataFrame, card: Card
) -> pd.DataFrame:
    """All n rows as read, and behind them cluster, distance, second, confidence and status.

    `cluster` and `second` are positions 0 … k − 1 of the model (empty where the card's policies
    drop the customer), `distance` is scaled; see `Scorer.score`. `model` is what `build_figures`
    gave, or a fitted Pipeline whose last step predicts or has labels of the rows used: then
    positions are numbered by size, confidence is the model's own probability where it tells one,
    and distance and second are empty. A label below 0 (noise) counts as dropped.

    Raises
    ------
    InputError
        The clusterer cannot predict, and its labels are not those of the rows used.
    """
    if isinstance(model, ModelFigures):
        scorer = Scorer(model)
        scores = scorer.score(*scorer.take(table))
        told = scores._asdict() | {"cluster": scores.position}
    else:
        told = _predict(model, table, card)
    told = pd.DataFrame(told, index=table.index)
    for name in ("cluster", "second"):
        told[name] = told[name].astype("Int64").mask(told[name] < 0)
    told["status"] = np.array(STATUSES)[told["status"]]
    names = ["cluster", "distance", "second", "confidence", "status"]
    return pd.concat([table, told[names]], axis=1)


def _predict(model: Pipeline, table: pd.DataFrame, card: Card) -> dict[str, Any]:
    """The scores that a clusterer without centres gives."""
    from segmentation.clustering import keep_rows

    used = keep_rows(table, card)
    wanted = used[card.distance]
    labels = model.predict(wanted) if hasattr(model, "predict") else model[-1].labels_
    if len(labels) != len(used):
        raise InputError(
            f"{type(model[-1]).__name__} cannot predict and has labels of {len(labels):,} rows; "
            f"fit it on the {len(used):,} rows used."
        )
    own = pd.Series(labels, index=used.index)
    order = own[own >= 0].value_counts(sort=False).sort_index()
    order = order.sort_values(ascending=False, kind="stable").index
    positions = own.map({label: i for i, label in enumerate(order)})
    cluster = positions.reindex(table.index).fillna(-1).astype("int64")
    told: dict[str, Any] = {"distance": np.nan, "second": -1, "confidence": np.nan}
    if len(order) > 1 and hasattr(model, "predict_proba"):
        chances = model.predict_proba(wanted).max(axis=1)
        told["confidence"] = pd.Series(chances, index=used.index).reindex(table.index)
    return told | {"cluster": cluster, "status": np.where(cluster < 0, DROPPED, 0)}


def measure_segments(
    clustered: pd.DataFrame,
    card: Card,
    *,
    figures: ModelFigures | None = None,
    recut: stability.Recut | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Figures and levels by position: see `profiles.measure_features`, `profiles.measure_levels`.

    Of the rows of `clustered` (as `assign_customers` gives them); with `figures`, and where the
    table stays where it is, all customers are scored and measured there. With both `figures` and
    `recut`, of the customers with a segment, intervals too: see `profiles.add_intervals`.
    """
    scored: Any = clustered
    measure: Any = measure_features
    count: Any = measure_levels
    if figures is not None and is_large(card):
        positions = [{"id": h, "name": f"{h}"} for h in range(len(figures.centres))]
        scored = queries.score_table(open_customers(card), Scorer(figures), positions)
        measure, count = queries.measure_segments, queries.count_levels
    measures, levels = measure(scored, card), count(scored, card)
    if figures is None or recut is None:
        return measures, levels
    values = clustered.loc[clustered["cluster"].notna(), list(card.measured)]
    return profiles.add_intervals(measures, recut, values), levels


# Lloyd over all rows -----------------------------------------------------------------------


def polish(model: Pipeline, table: pd.DataFrame, card: Card) -> tuple[Pipeline, pd.DataFrame]:
    """The model with the centres of all customers of a table that stays where it is.

    Lloyd's iterations go on from the model's centres, one aggregate query a scan: until a scan
    gains less than 1e-6 of the inertia, or for twelve. The order of the positions stays.
    Also gives one row a scan: scan, inertia (before its step), gain (the share of it that moving
    the centres takes away). A table read whole is fitted already: the model as it is, no scans.

    Raises
    ------
    NoCentres
        As `build_figures`.
    """
    from segmentation.clustering import keep_rows

    if not is_large(card):
        return model, pd.DataFrame(columns=SCAN)
    blocks, start = _read_blocks(model, table, card), Scorer(_list_figures(model, table, card))
    steps = queries.move_centres(open_customers(card), start)
    rows, moved = list[tuple[int, float, float]](), deepcopy(model)
    while len(rows) < SCANS and (not rows or rows[-1][2] >= STILL):
        inertia, gain, centres = next(steps)
        rows.append((len(rows) + 1, inertia, gain))
    moved[-1].cluster_centers_[:, _order_columns(blocks)] = centres
    moved[-1].inertia_ = inertia
    moved[-1].labels_ = moved.predict(keep_rows(table, card)[card.distance])
    return moved, pd.DataFrame(rows, columns=SCAN)


# A model that travels ----------------------------------------------------------------------


def freeze(model: Pipeline, figures: ModelFigures) -> Pipeline:
    """The fitted model in scikit-learn's own classes: it loads where this package is not.

    Raw columns in, positions out. Clipping is a min-max scaler that only clips; the gap of a
    descriptor, None or NaN, is the level "".
    """
    from sklearn.cluster import KMeans
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    parts: list[Any] = [*figures.features, *figures.codes]
    typical = {part.column: [getattr(part, "fill", "")] for part in parts}
    chains = [(f"x{i}", _build_chain(part), [part.column]) for i, part in enumerate(parts)]
    preprocessor = ColumnTransformer(chains, verbose_feature_names_out=False)
    preprocessor.fit(pd.DataFrame(typical))  # the median of one row is its value
    for part, (_, chain, _) in zip(parts, preprocessor.transformers_, strict=True):
        _set_figures(chain, part)
    centres = np.array(figures.centres)
    clusterer = KMeans(len(centres), init=centres, n_init=1).fit(centres)
    clusterer.cluster_centers_ = centres
    clusterer._n_threads = 1  # else the file would differ from machine to machine
    known = vars(model[-1])
    names = ("labels_", "inertia_", "n_iter_")
    vars(clusterer).update({name: known[name] for name in names if name in known})
    return Pipeline([("preprocess", preprocessor), ("kmeans", clusterer)])


def _build_chain(part: FeatureFigures | CodeFigures) -> Pipeline:
    """The steps from a raw column to what the distance sees of it, not yet fitted."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import (
        FunctionTransformer,
        MinMaxScaler,
        OneHotEncoder,
        StandardScaler,
    )

    if isinstance(part, CodeFigures):
        levels = np.array([level or "" for level in part.levels], dtype=object)
        how: Any = {"strategy": "constant", "fill_value": ""}
        filled = [SimpleImputer(missing_values=gap, **how) for gap in (np.nan, None)]
        coded = OneHotEncoder(categories=[levels], handle_unknown="ignore", sparse_output=False)
        return make_pipeline(*filled, coded, StandardScaler())
    log = FunctionTransformer(np.log1p, np.expm1, feature_names_out="one-to-one")
    steps = [
        SimpleImputer(strategy="median"),
        log if part.transform == "log" else None,
        MinMaxScaler(clip=True) if part.clip else None,
        StandardScaler(),
    ]
    return make_pipeline(*filter(None, steps))


def _set_figures(chain: Pipeline, part: Any) -> None:
    """Give the fitted steps of a column the model's figures."""
    steps, width = chain.named_steps, chain[-1].n_features_in_
    if clipper := steps.get("minmaxscaler"):
        clipper.feature_range, clipper.scale_, clipper.min_ = part.clip, np.ones(1), np.zeros(1)
    scaler = steps["standardscaler"]
    scaler.mean_, scaler.scale_ = np.full(width, part.mean), np.full(width, part.scale)
    scaler.var_ = scaler.scale_**2


# For people and programs -------------------------------------------------------------------


def save_customers(place: Path, figures: ModelFigures, card: Card, segments: list[Segment]) -> bool:
    """Write every customer of a large Parquet file with segment and confidence to `place`.

    Whether that was done: a table read whole needs no other file than `clustered_data.csv`, and
    the customers of a database stay there.
    """
    if not is_large(card) or card.backend:
        return False
    named: Any = segments
    scored = queries.score_table(open_customers(card), Scorer(figures), named)
    scored.to_parquet(place, row_group_size=database.ROWS_TOGETHER)
    return True


def save_model(
    folder: Path,
    model: Pipeline,
    figures: ModelFigures | None,
    segments: list[Segment],
    *,
    highest_id: int = 0,
) -> None:
    """Write `segmenter.joblib`, the fitted Pipeline, and beside it its figures if it has any.

    With figures it is written in scikit-learn's own classes (`freeze`), without as it was fitted.
    `highest_id` is the highest id that an earlier run gave, so that none is given twice.
    """
    import joblib

    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(freeze(model, figures) if figures else model, folder / MODEL)
    (folder / FIGURES).unlink(missing_ok=True)
    if figures is None:
        return
    ids, names = [s["id"] for s in segments], [s["name"] for s in segments]
    told = figures.model_dump() | {"ids": ids, "names": names}
    told |= {"highest_id": max(highest_id, *ids), "sha256": {MODEL: hash_file(folder / MODEL)}}
    text = json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / FIGURES).write_text(text, "utf-8")


def load_model(folder: Path) -> tuple[Pipeline, ModelFigures]:
    """The fitted Pipeline and its figures, from a run's `artifacts` folder.

    Raises
    ------
    InputError
        A file is missing, is not what the run wrote, or comes from another scikit-learn.
    """
    import joblib
    import sklearn

    if not (folder / MODEL).is_file() or not (folder / FIGURES).is_file():
        raise InputError(f"{folder}: no segmenter here; run the series first.")
    figures = ModelFigures.read(json.loads((folder / FIGURES).read_text("utf-8")))
    if hash_file(folder / MODEL) != figures.sha256.get(MODEL):
        raise InputError(f"{MODEL} is not the file that the run wrote; run 04_modeling again.")
    stamped = figures.versions.get("scikit-learn")
    if stamped != sklearn.__version__:
        raise InputError(
            f"{MODEL} was written by scikit-learn {stamped}, this is {sklearn.__version__}; "
            "run the series again."
        )
    return joblib.load(folder / MODEL), figures
