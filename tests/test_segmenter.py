"""The model: its figures, its answers with and without centres, all rows, saving and loading."""

import json

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelling import build_model, build_preprocessor
from sklearn.cluster import AgglomerativeClustering
from sklearn.cluster import KMeans as TheirKMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, RobustScaler

from segmentation import InputError
from segmentation.clustering import KMeans
from segmentation.customers import Card
from segmentation.segments import (
    Scorer,
    assign_customers,
    build_figures,
    measure_segments,
    model,
    profiles,
    tracking,
)
from segmentation.segments.model import NoCentres, polish


@pytest.fixture(scope="module")
def fitted(table, card):
    return build_model(table, card, 4)


@pytest.fixture(scope="module")
def figures(fitted, table, card):
    return build_figures(fitted, table, card)


@pytest.fixture(scope="module")
def clustered(figures, table, card):
    return assign_customers(figures, table, card)


# With centres ------------------------------------------------------------------------------


def test_the_largest_segment_comes_first(fitted, clustered, table):
    assert clustered["cluster"].value_counts(sort=False).sort_index().tolist() == [65, 57, 40, 38]
    assert clustered["cluster"].tolist() == fitted.predict(table).tolist()
    assert fitted["kmeans"].inertia_ == pytest.approx(205.2, abs=0.05)


def test_centres_are_the_means_in_raw_units(fitted, figures, table, card):
    means = table[list(card.features)].groupby(fitted.predict(table)).mean()
    np.testing.assert_allclose(figures.list_centres(), means, rtol=1e-10)


def test_confidence_and_border_follow_the_shadow_value(fitted, figures, clustered, table, card):
    """Without a curve as files of earlier versions have it, then by a curve."""
    nearest = np.sort(fitted.transform(table), axis=1)
    shadow = 2 * nearest[:, 0] / (nearest[:, 0] + nearest[:, 1])
    curve = np.array([[0.3, 1.0], [0.7, 0.9], [0.9, 0.7], [1.0, 0.5]])
    sure = assign_customers(figures.add_confidence(curve), table, card)
    for told, confidence in [(clustered, 1 - shadow), (sure, np.interp(shadow, *curve.T))]:
        np.testing.assert_allclose(told["confidence"], confidence)
        inside = told["status"] != "outside"
        assert ((told["status"] == "borderline") == (shadow > 0.8))[inside].all()
        assert {"ok", "borderline"} <= set(told["status"])
        assert (told["second"] != told["cluster"]).all()
    parts = sure.groupby("status")["confidence"]
    assert parts.max()["borderline"] < 0.8 <= parts.min()["ok"]


@pytest.mark.parametrize(("kept", "wanted"), [(0.7, -1.0), (0.9, 1.0)])
def test_a_flat_curve_makes_all_borderline_or_none(figures, table, card, kept, wanted):
    flat = figures.add_confidence(np.array([[0.0, kept], [1.0, kept]]))
    assert flat.borderline == wanted
    statuses = assign_customers(flat, table, card)["status"]
    assert (statuses == "borderline").any() == (wanted < 0)
    assert (statuses == "ok").any() == (wanted > 0)


def test_beyond_what_was_trained_on_is_outside(figures, table, card):
    old = table.iloc[[0]].assign(Age=99.0)
    far = {"Age": 70.0, "Annual Income (k$)": 137.0, "Spending Score (1-100)": 99.0}
    edge = table.loc[[table["Age"].idxmax()]]
    asked = pd.concat([old, table.iloc[[0]].assign(**far), edge])
    statuses = assign_customers(figures, asked, card)["status"].tolist()
    assert statuses[:2] == ["outside", "outside"]
    assert statuses[2] != "outside"


@pytest.mark.parametrize("clusterer", [None, "mixture"])
def test_a_dropped_row_keeps_an_empty_cluster(table, card, clusterer):
    holed = table.copy()
    holed.loc[3, "Age"] = np.nan
    dropping = card.features["Age"].model_copy(update={"missing": "drop"})
    card = card.model_copy(update={"features": {**card.features, "Age": dropping}})
    own = build_model(holed, card, 4)
    own = fit_other(holed.drop(index=3), card, MIXTURE) if clusterer else own
    known = own if clusterer else build_figures(own, holed, card)
    clustered = assign_customers(known, holed, card)
    assert clustered.loc[3, "status"] == "dropped"
    assert clustered.loc[3, ["cluster", "distance", "second", "confidence"]].isna().all()
    assert clustered["cluster"].notna().sum() == 199


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_row_and_column_order_change_nothing(seed, table, card, clustered):
    shuffled = table.sample(frac=1, random_state=seed).sample(frac=1, axis=1, random_state=seed)
    again = build_figures(build_model(shuffled, card, 4), shuffled, card)
    assert assign_customers(again, table, card)["cluster"].equals(clustered["cluster"])


@pytest.mark.parametrize("scaler", [MinMaxScaler(), RobustScaler(), None], ids=str)
def test_other_scalers_are_written_as_figures(table, card, scaler):
    """Several columns in one step, a scaler of another kind behind the first, or none at all."""
    columns = [*card.features]
    steps = [(columns[2], "passthrough" if scaler is None else scaler, columns[2:])]
    both = make_pipeline(RobustScaler(), MinMaxScaler((-1, 3)))
    chains = ColumnTransformer(
        [*steps, ("both", both, columns[:2])], transformer_weights={"both": 2}
    )
    other = Pipeline([("preprocess", chains), ("kmeans", TheirKMeans(4, random_state=0))])
    other.fit(table[columns])
    figures = build_figures(other, table, card)
    scorer, frozen = Scorer(figures), model.freeze(other, figures)
    scaled = other[0].transform(table[columns])
    np.testing.assert_allclose(scorer.scale(*scorer.take(table)), scaled, rtol=1e-9, atol=1e-12)
    assert scorer.columns == [columns[2], *columns[:2]]
    assert (scorer.score(*scorer.take(table)).position == other.predict(table[columns])).all()
    np.testing.assert_allclose(frozen[0].transform(table), scaled, rtol=0, atol=1e-12)
    assert (frozen.predict(table) == other.predict(table[columns])).all()


def test_one_in_a_hundred_of_held_out_customers_is_outside(card):
    """Of tables with and without groups; a limit from 300 rows has a sampling error of .6 %."""
    rates = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        places = rng.normal(scale=40 * (seed % 2), size=(4, 3))
        rows = places[rng.integers(4, size=5_300)] + rng.normal(50, 10, (5_300, 3))
        table = pd.DataFrame(rows, columns=list(card.features))
        own, new = table.head(300), table.iloc[300:]
        told = assign_customers(build_figures(build_model(own, card, 4), own, card), new, card)
        rates.append((told["status"] == "outside").mean())
    assert 0.005 < np.mean(rates) < 0.02


def test_the_order_of_rows_moves_no_limit(figures, table, card):
    shuffled = table.sample(frac=1, random_state=1)
    again = build_figures(build_model(shuffled, card, 4), shuffled, card)
    assert again.radius == pytest.approx(figures.radius, rel=1e-12)


# Without centres ---------------------------------------------------------------------------


MIXTURE = GaussianMixture(4, random_state=0, n_init=3)


def fit_other(table, card, clusterer, *between):
    steps = [("preprocess", build_preprocessor(card)), *between, ("clusterer", clusterer)]
    return Pipeline(steps).fit(table[card.distance])


@pytest.mark.parametrize("clusterer", [MIXTURE, AgglomerativeClustering(4)], ids=str)
def test_another_clusterer_has_segments_profiles_and_names(clusterer, table, card):
    other = fit_other(table, card, clusterer)
    with pytest.raises(NoCentres, match="scoring of new customers"):
        build_figures(other, table, card)
    clustered = assign_customers(other, table, card)
    labels = other.predict(table) if clusterer is MIXTURE else other[-1].labels_
    sizes = clustered["cluster"].value_counts(sort=False).sort_index()
    assert sizes.tolist() == sorted(np.bincount(labels), reverse=True)
    assert len(pd.crosstab(clustered["cluster"], labels).stack().loc[lambda n: n > 0]) == 4
    assert clustered["confidence"].notna().all() == (clusterer is MIXTURE)
    assert clustered[["distance", "second"]].isna().all(axis=None)
    measures, levels = measure_segments(clustered, card)
    profile = profiles.profile_features(measures, card)
    means = clustered.groupby("cluster")[list(card.features)].mean()
    segments = tracking.identify_segments(clustered, profile, card, centres=means)
    ages = table["Age"].groupby(clustered["cluster"].to_numpy()).mean()
    assert [s["centre"]["Age"] for s in segments] == pytest.approx(ages.tolist())
    rules = profiles.find_rules(clustered, card)
    listed = profiles.add_words(
        segments, profile, profiles.profile_levels(levels, card), rules, card
    )
    assert all(segment["roles"] and segment["sentences"] for segment in listed)


@pytest.mark.parametrize(
    ("between", "clusterer"),
    [([("pca", PCA(2))], KMeans(4)), ([], AgglomerativeClustering(4)), ([], MIXTURE)],
    ids=["pca", "agglomerative", "mixture"],
)
def test_what_cannot_be_written_as_centres_says_so(between, clusterer, table, card):
    with pytest.raises(NoCentres, match="the service cannot be had"):
        build_figures(fit_other(table, card, clusterer, *between), table, card)


def test_a_step_that_is_not_affine_says_so(table, card):
    chains = ColumnTransformer([("all", QuantileTransformer(n_quantiles=20), [*card.features])])
    other = Pipeline([("preprocess", chains), ("kmeans", KMeans(4))]).fit(table[card.distance])
    with pytest.raises(NoCentres, match="QuantileTransformer as a step of Age"):
        build_figures(other, table, card)


@pytest.mark.parametrize("how", [{"drop": "first"}, {"min_frequency": 100}], ids=str)
def test_codes_that_are_no_levels_say_so(how, table, card):
    """One level left out, and those of fewer than a hundred customers put together."""
    coded = card.descriptors["Gender"].model_copy(update={"weight": 1.0})
    card = card.model_copy(update={"descriptors": {"Gender": coded}})
    rows = table.assign(Gender=np.array(["Female", "Male", "Other"])[table.index % 3])
    other = Pipeline([("preprocess", build_preprocessor(card)), ("kmeans", KMeans(4))])
    other.set_params(**{f"preprocess__x3__onehotencoder__{name}": v for name, v in how.items()})
    with pytest.raises(NoCentres, match="the codes of Gender are not one block of levels"):
        build_figures(other.fit(rows[card.distance]), rows, card)


def test_labels_of_other_rows_are_refused(table, card):
    other = fit_other(table.head(150), card, AgglomerativeClustering(4))
    with pytest.raises(InputError, match="labels of 150 rows; fit it on the 200 rows used"):
        assign_customers(other, table, card)


# All rows of a table that stays where it is ------------------------------------------------


@pytest.fixture(scope="module")
def lying(tmp_path_factory):
    """A table of continuous columns in DuckDB, its card, and a sample of its rows."""
    path = tmp_path_factory.mktemp("lying") / "customers.ddb"
    rng = np.random.default_rng(0)
    places = rng.normal(scale=2, size=(5, 4))[rng.integers(5, size=20_000)]
    values = places + rng.normal(size=(20_000, 4))
    table = pd.DataFrame(values, columns=list("abcd")).assign(d=lambda t: np.exp(t["d"]))
    table.insert(0, "id", [f"c{i}" for i in range(len(table))])
    table.loc[::97, "b"] = np.nan
    table["kind"] = rng.choice(["x", "y"], len(table))
    with duckdb.connect(str(path)) as db:
        db.register("made", table)
        db.execute("CREATE TABLE customers AS FROM made")
    features = {"a": {"weight": 2}, "b": {"missing": "drop"}, "c": {}, "d": {"transform": "log"}}
    card = Card.model_validate(
        {"title": "Lying", "table": "customers", "backend": f"duckdb://{path}", "id": "id"}
        | {"features": features, "descriptors": {"kind": {"weight": 0.5}}}
    )
    return table, card, table.sample(2_000, random_state=0)


def test_polishing_is_lloyd_on_all_rows(lying):
    table, card, sample = lying
    start = build_model(sample, card, 5)
    polished, scans = polish(start, sample, card)
    rows = start[0].transform(table.dropna()[card.distance]).to_numpy()
    centres = start[-1].cluster_centers_
    for scan in scans.itertuples():
        whole = TheirKMeans(5, init=centres, n_init=1, max_iter=scan.scan, tol=0).fit(rows)
    assert 2 <= len(scans) <= 12
    assert scans["inertia"].is_monotonic_decreasing
    assert scans["gain"].iloc[-1] < 1e-6 or len(scans) == 12
    np.testing.assert_allclose(polished[-1].cluster_centers_, whole.cluster_centers_, rtol=1e-9)
    assert (start[-1].cluster_centers_ != polished[-1].cluster_centers_).any()
    used = sample.dropna(subset="b")[card.distance]
    assert polished[-1].labels_.tolist() == polished.predict(used).tolist()


def test_limits_and_measures_are_those_of_all_rows(lying):
    table, card, sample = lying
    polished, _ = polish(build_model(sample, card, 5), sample, card)
    figures = build_figures(polished, sample, card)
    clustered = assign_customers(figures, table, card)
    used = clustered[clustered["cluster"].notna()]
    assert len(used) == table["b"].notna().sum()
    assert 0.005 < (used["status"] == "outside").mean() < 0.02
    assert len({*figures.radius}) == 1
    assert [f.range for f in figures.features] == [
        (used[name].min(), used[name].max()) for name in card.features
    ]
    measures, levels = measure_segments(clustered.head(10), card, figures=figures)
    columns = ["cluster", "size", "variable", "customers", "mean", "sd", "median"]
    wanted = profiles.measure_features(clustered, card)
    merged = measures[columns].merge(wanted[columns], on=["cluster", "variable"])
    assert len(merged) == len(measures) == 6 * 4
    for name in ("size", "customers", "mean", "sd", "median"):
        np.testing.assert_allclose(merged[f"{name}_x"], merged[f"{name}_y"], rtol=1e-9)
    counted = profiles.measure_levels(clustered, card)
    assert levels["customers"].sum() == counted["customers"].sum() == 2 * len(used)


def test_a_table_read_whole_is_fitted_already(fitted, table, card):
    polished, scans = polish(fitted, table, card)
    assert polished is fitted
    assert list(scans.columns) == ["scan", "inertia", "gain"]
    assert scans.empty


# Saved and loaded --------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path, fitted, figures):
    segments = [{"id": i, "name": f"Segment {i}"} for i in range(4)]
    model.save_model(tmp_path, fitted, figures, segments, highest_id=7)
    return tmp_path


def test_what_was_saved_is_what_is_loaded(saved, fitted, table):
    loaded, figures = model.load_model(saved)
    assert (loaded.predict(table) == fitted.predict(table)).all()
    assert (figures.ids, figures.highest_id) == ([0, 1, 2, 3], 7)
    assert [feature.unit for feature in figures.features] == ["years", "k$", "points"]


def test_an_altered_model_is_never_unpickled(saved):
    path = saved / model.MODEL
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="is not the file that the run wrote"):
        model.load_model(saved)


def test_a_model_of_another_version_is_refused(saved):
    path = saved / model.FIGURES
    figures = json.loads(path.read_text("utf-8"))
    figures["versions"]["scikit-learn"] = "1.4.2"
    path.write_text(json.dumps(figures), "utf-8")
    with pytest.raises(InputError, match=r"written by scikit-learn 1\.4\.2"):
        model.load_model(saved)


def test_without_centres_only_the_pipeline_is_saved(saved, table, card):
    other = fit_other(table, card, MIXTURE)
    model.save_model(saved, other, None, [])
    assert not (saved / model.FIGURES).exists()
    with pytest.raises(InputError, match="no segmenter here; run the series first"):
        model.load_model(saved)
