"""The model as plain arrays: equal to its Pipeline on every row."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelling import build_model

from segmentation import InputError
from segmentation.clustering import KMeans, keep_rows
from segmentation.customers import Card
from segmentation.segments import Scorer, build_figures
from segmentation.segments.scorer import STATUSES, ModelFigures, clean_levels, find_nearest_two

POLICIES = {
    "plain": {},
    "log": {"transform": "log"},
    "clip": {"outliers": "clip"},
    "log clip": {"transform": "log", "outliers": "clip"},
    "drop": {"outliers": "drop", "missing": "drop"},
    "log drop": {"transform": "log", "outliers": "drop"},
    "weight": {"weight": 2.5},
}


def make_table(seed=0, n=120):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": np.arange(n).astype(str),
            "spent": rng.lognormal(3, 1, n).round(2),
            "age": np.where(rng.random(n) < 0.05, np.nan, rng.integers(18, 80, n)),
            "city": rng.choice(["Bonn", "Köln", None], n, p=[0.5, 0.4, 0.1]),
        }
    )


def make_card(policy, *, weight=0.0):
    spent = POLICIES[policy]
    parts = {"spent": spent, "age": {"range": [0, 120]}}
    city = {"weight": weight}
    return Card.model_validate(
        {"title": "t", "table": "t", "id": "id", "features": parts, "descriptors": {"city": city}}
    )


@pytest.fixture(scope="module", params=[(p, w) for p in POLICIES for w in (0.0, 0.7)], ids=str)
def model(request):
    card = make_card(request.param[0], weight=request.param[1])
    table = make_table()
    pipeline = build_model(table, card, 3)
    return pipeline, Scorer(build_figures(pipeline, table, card)), card, table


def as_arrays(scorer, table):
    values = table[scorer.columns].to_numpy(dtype=float)
    codes = [scorer.encode(c, clean_levels(table[c])) for c in scorer.levels]
    return values, np.stack(codes, axis=1) if codes else None


def check_equal(model, table):
    pipeline, scorer, card, _ = model
    values, codes = as_arrays(scorer, table)
    scores = scorer.score(values, codes)
    distances = pipeline.transform(table[card.distance])
    kept = scores.position >= 0
    nearest = np.sort(distances, axis=1)
    told = np.take_along_axis(distances, np.maximum(scores.position, 0)[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(told[kept], nearest[kept, 0], rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(scores.distance[kept], nearest[kept, 0], rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(scores.rival[kept], nearest[kept, 1], rtol=1e-9, atol=1e-7)
    clear = kept & (nearest[:, 1] - nearest[:, 0] > 1e-9)
    assert (scores.position == pipeline.predict(table[card.distance]))[clear].all()
    return scores


def test_every_training_row_gets_the_answer_of_the_pipeline(model):
    _, _, card, table = model
    scores = check_equal(model, table)
    used = table.index.isin(keep_rows(table, card).index)
    assert ((scores.status != STATUSES.index("dropped")) == used).all()
    assert (scores.status[used] == STATUSES.index("outside")).sum() <= 1  # 1 % of 120, held out


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_other_row_gets_the_answer_of_the_pipeline(model, seed):
    check_others(model, seed)


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_many_other_rows_get_the_answer_of_the_pipeline(model, seed):
    check_others(model, seed)


def check_others(model, seed):
    rng = np.random.default_rng(seed)
    other = make_table(seed % 1000, 40).assign(spent=rng.lognormal(3, 2, 40))
    other.loc[rng.random(40) < 0.1, "spent"] = np.nan
    other.loc[0, "city"] = "Ulm"
    check_equal(model, other)


def test_a_level_never_seen_is_outside(model):
    _, scorer, card, table = model
    if not card.coded:
        pytest.skip("the descriptor has no part in the distance")
    values, codes = as_arrays(scorer, table.head(5).assign(city="Ulm"))
    kept = scorer.score(values, codes)
    assert {STATUSES[code] for code in kept.status} <= {"outside", "dropped"}


def test_a_row_alone_gets_what_it_gets_among_others(model):
    _, scorer, _, table = model
    values, codes = as_arrays(scorer, table)
    whole = scorer.score(values, codes)
    for i in range(0, len(table), 7):
        alone = scorer.score(values[[i]], None if codes is None else codes[[i]])
        for one, many in zip(alone, whole, strict=True):
            np.testing.assert_array_equal(one, many[[i]])


def test_figures_survive_json(model):
    _, scorer, _, table = model
    figures = json.loads(json.dumps(scorer.figures.model_dump()))
    values, codes = as_arrays(scorer, table)
    for one, other in zip(
        scorer.score(values, codes), Scorer(figures).score(values, codes), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_the_reasons_are_the_largest_shares(model):
    _, scorer, _, table = model
    values, codes = as_arrays(scorer, table)
    scores = scorer.score(values, codes)
    told = scorer.explain(values, codes, scores)
    rows = scorer.scale(values, codes)
    for i in np.flatnonzero(scores.position >= 0)[:30]:
        own, next_ = scorer.centres[scores.position[i]], scorer.centres[scores.second[i]]
        parts = (rows[i] - next_) ** 2 - (rows[i] - own) ** 2
        shares = [*parts[:2], *([parts[2:].sum()] if len(parts) > 2 else [])]
        assert told[i, 0] == int(np.argmax(shares))
        if told[i, 1] >= 0:
            assert shares[told[i, 1]] == sorted(shares)[-2] >= 0.25 * sum(shares)


def test_one_segment_has_no_rival(table, card):
    scorer = Scorer(build_figures(build_model(table, card, 1), table, card))
    values = table[scorer.columns].to_numpy(dtype=float)
    scores = scorer.score(values)
    assert (scores.position == 0).all()
    assert (scores.second == -1).all()
    assert np.isnan(scores.confidence).all()
    assert (scorer.explain(values, None, scores) == -1).all()


def test_figures_of_another_version_are_refused():
    with pytest.raises(InputError, match=r"of another version .* run the series again"):
        Scorer({"features": [{"column": "a"}]})


LOGGED = {"column": "Age", "transform": "log", "mean": 3, "scale": 1, "range": [0, 9]}
CODED = {"column": "Gender", "levels": ["Male", "Female"], "mean": [0.5, 0.5], "scale": 1}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("features", 0, "scale"), 0.0),
        (("features", 0, "scale"), -1.0),
        (("features", 0, "mean"), float("nan")),
        (("features", 1, "fill"), 1e300),
        (("features", 1, "range"), [9.0, 1.0]),
        (("features", 1, "column"), "other"),
        (("centres", 0, 0), float("inf")),
        (("centres", 0), [0.0]),
        (("centres",), []),
        (("radius",), [1.0]),
        (("radius", 0), -1.0),
        (("confidence",), [[0.0, 1.0]]),
        (("confidence",), [[0.0, 0.5], [1.0, 0.9]]),
        (("confidence",), [[0.5, 1.0], [0.5, 0.9]]),
        (("names",), ["one"]),
        (("features", 0), LOGGED | {"fill": -1}),
        (("format",), 2),
    ],
    ids=str,
)
def test_impossible_figures_are_refused(place, value, table, card):
    figures = build_figures(build_model(table, card, 3), table, card).model_dump()
    part = figures
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    with pytest.raises(InputError, match=r"\((features|centres|figures|radius|confidence|format)"):
        ModelFigures.read(figures)


@pytest.mark.parametrize(
    "codes", [[CODED], [CODED, CODED], [CODED | {"levels": ["Male", "Male"]}]], ids=str
)
def test_what_is_there_twice_is_refused(codes, table, card):
    figures = build_figures(build_model(table, card, 3), table, card).model_dump()
    wide = [[*centre, *[0.0, 0.0] * len(codes)] for centre in figures["centres"]]
    figures |= {"codes": codes, "centres": wide}
    if codes == [CODED]:
        ModelFigures.read(figures)
        figures |= {"ids": [1, 2, 2]}
    with pytest.raises(InputError, match="a column, a level or an id is there twice"):
        ModelFigures.read(figures)


def test_a_model_of_an_earlier_version_says_one_less_the_shadow_value(table, card):
    figures = build_figures(build_model(table, card, 4), table, card).model_dump()
    scorer = Scorer({name: own for name, own in figures.items() if name != "confidence"})
    scores = scorer.score(*scorer.take(table))
    shadow = 2 * scores.distance / (scores.distance + scores.rival)
    np.testing.assert_array_equal(scores.confidence, 1 - shadow)
    assert scorer.borderline == 0.8


def test_the_two_nearest_centres_are_found(mall):
    centres = KMeans(5).fit(mall).cluster_centers_
    away = np.linalg.norm(mall[:, None] - centres, axis=2)
    order = np.argsort(away, axis=1)
    first, second, d1, d2 = find_nearest_two(mall, centres)
    np.testing.assert_array_equal(np.stack([first, second], axis=1), order[:, :2])
    np.testing.assert_allclose(np.stack([d1, d2], axis=1), np.sort(away, axis=1)[:, :2])


def test_the_bundled_card_travels_with_the_model(card, table):
    figures = build_figures(build_model(table, card, 4), table, card)
    scorer = Scorer(figures.model_dump())
    assert scorer.card.features == card.features
    assert scorer.card.descriptors == card.descriptors
    assert scorer.card.id == "CustomerID"
    assert scorer.card.title == card.title
