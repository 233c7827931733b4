"""Any small table is refused or ends in segments, whatever the order of rows and columns."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelling import build_model

from segmentation import InputError
from segmentation.customers import Card, explain_card, read_customers
from segmentation.segments import build_figures, profiles, tracking
from segmentation.segments import model as modelling

NAMES = ["a", "b", "Spend (€)", "=x", "名前", "kind", "id", "cluster", "", "a b"]
NUMBERS = st.floats(-1e6, 1e6).map(lambda v: f"{v:.3g}") | st.integers(-5, 5).map(str)
CELLS = NUMBERS | st.sampled_from(
    ["", "n/a", "x", "1,5", "€3", "inf", "1e400", '"', "é", "5%", "-"]
)
COLUMN = st.sampled_from([NUMBERS, NUMBERS, NUMBERS, CELLS])


@st.composite
def files(draw):
    """The text of a CSV of few columns and 8 to 30 rows, mostly of numbers."""
    names = draw(
        st.lists(st.sampled_from(NAMES), min_size=2, max_size=5, unique=draw(st.booleans()))
    )
    rows = draw(st.integers(8, 30))
    kinds = [draw(COLUMN) for _ in names]
    columns = [draw(st.lists(kind, min_size=rows, max_size=rows)) for kind in kinds]
    text = io.StringIO()
    delimiter = draw(st.sampled_from(",;\t"))
    csv.writer(text, delimiter=delimiter).writerows([names, *zip(*columns, strict=True)])
    return text.getvalue()


def segment(card, k=2):
    """The whole way from the file to segments with sentences, as the notebooks go it."""
    table = read_customers(card).table
    fitted = build_model(table, card, k)
    figures, _ = modelling.find_figures(fitted, table, card)
    clustered = modelling.assign_customers(figures or fitted, table, card)
    measures, levels = modelling.measure_segments(clustered, card, figures=figures)
    profile = profiles.profile_features(measures, card)
    means = clustered.groupby("cluster")[list(card.features)].mean()
    segments = tracking.identify_segments(clustered, profile, card, centres=means)
    levels, rules = profiles.profile_levels(levels, card), profiles.find_rules(clustered, card)
    return clustered, profiles.add_words(segments, profile, levels, rules, card)


LONG = [pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6)]
ANY = settings(deadline=None, suppress_health_check=list(HealthCheck))


@given(text=files())
@settings(ANY, max_examples=8)
def test_any_table_is_refused_or_ends_in_segments(text, tmp_path_factory):
    check_any(text, tmp_path_factory)


@pytest.mark.long
@given(text=files())
@settings(ANY, max_examples=400)
def test_many_tables_are_refused_or_end_in_segments(text, tmp_path_factory):
    check_any(text, tmp_path_factory)


def check_any(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "table.csv"
    path.write_bytes(text.encode())
    try:
        card, _ = explain_card(path)
        clustered, segments = segment(card)
    except InputError:
        return
    assert sum(segment["size"] for segment in segments) == clustered["cluster"].notna().sum()
    assert all(segment["sentences"] and segment["name"] for segment in segments)
    assert "nan" not in " ".join(s for each in segments for s in each["sentences"])


CARD = {
    "title": "t",
    "table": "table.csv",
    "id": "id",
    "features": {
        "x": {"transform": "log"},
        "y": {"weight": 2.0, "outliers": "clip"},
        "z": {"missing": "drop"},
    },
    "descriptors": {"kind": {"weight": 0.5}, "place": {}},
}


def make_table(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(rng.choice([0, 4, 9], (60, 3)), 1)
    frame = pd.DataFrame(values, columns=["x", "y", "z"]).round(2)
    frame["x"] = np.exp(frame["x"] / 3).round(3)
    frame.loc[rng.choice(60, 4), "z"] = np.nan
    frame.insert(0, "id", [f"c{i}" for i in range(60)])
    return frame.assign(kind=rng.choice(["a", "b", "c"], 60), place=rng.choice(["p", "q"], 60))


def read_members(folder, frame):
    """The customers of each segment, as a set of sets."""
    frame.to_csv(folder / "table.csv", index=False)
    card = Card.model_validate(CARD).model_copy(update={"path": folder / "card.yaml"})
    clustered, _ = segment(card, k=3)
    return clustered.dropna(subset="cluster").set_index("id")["cluster"].sort_index()


@pytest.mark.parametrize("seed", [0, 1, *LONG])
def test_order_and_further_columns_change_nothing(seed, tmp_path):
    frame = make_table(seed)
    rng = np.random.default_rng(seed)
    members = read_members(tmp_path, frame)
    shuffled = frame.sample(frac=1, random_state=seed)
    mixed = frame[list(rng.permutation(frame.columns))]
    wider = frame.assign(noise=rng.normal(size=60), mail="x@mail.example")
    for other in (shuffled, mixed, wider):
        pd.testing.assert_series_equal(read_members(tmp_path, other), members)


@pytest.mark.parametrize("seed", range(3))
def test_equal_rows_land_together(seed, tmp_path):
    frame = make_table(seed)
    twins = frame.assign(id=frame["id"] + "t")
    members = read_members(tmp_path, pd.concat([frame, twins]))
    ours = members[~members.index.str.endswith("t")]
    assert (members[ours.index + "t"].to_numpy() == ours.to_numpy()).all()


def test_log_weights_and_codes_are_in_the_distance_as_stated(tmp_path):
    frame = make_table(1)
    frame.to_csv(tmp_path / "table.csv", index=False)
    card = Card.model_validate(CARD).model_copy(update={"path": tmp_path / "card.yaml"})
    table = read_customers(card).table
    fitted = build_model(table, card, 3)
    used = table.dropna(subset="z")
    scaled = fitted["preprocess"].transform(used[card.distance])
    spread = scaled.std(ddof=0)
    assert spread["x"] == pytest.approx(1)
    assert spread["y"] == pytest.approx(2)
    codes = scaled[[c for c in scaled if c.startswith("kind is ")]]
    assert codes.var(ddof=0).sum() == pytest.approx(0.5**2)
    logged = np.log1p(used["x"])
    np.testing.assert_allclose(scaled["x"], (logged - logged.mean()) / logged.std(ddof=0))
    assert "place" not in " ".join(scaled.columns)
    centres = build_figures(fitted, table, card).list_centres()
    labels = fitted.predict(used[card.distance])
    for position in range(3):
        own = used[labels == position]
        expected = [np.expm1(np.log1p(own["x"]).mean()), own["z"].mean()]
        np.testing.assert_allclose(centres.loc[position, ["x", "z"]], expected, rtol=1e-9)
