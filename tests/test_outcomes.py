"""Outcomes: read like other columns, never in the distance, and what segments know of them."""

import numpy as np
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from played import play_run
from scipy.stats import permutation_test, ttest_ind

from segmentation import InputError
from segmentation.customers import Card, open_customers, read_card, read_customers
from segmentation.customers.card import Outcome
from segmentation.runs import Run
from segmentation.segments import outcomes, profiles, queries

PARTS = {"title": "t", "table": "t.csv", "id": "id", "features": {"a": {}, "b": {}}}
PARTS["outcomes"] = {"Answered": {"kind": "yes/no"}, "Margin": {"unit": "€"}}


def write(folder, rows=(), **parts):
    lines = [f"c{i},{i % 7},{i * 1.5},{'yes' if i % 3 else 'No'},{i / 2}" for i in range(40)]
    for place, line in rows:
        lines[place] = line
    header = "id,a,b,Answered,Margin"
    (folder / "t.csv").write_text("\n".join([header, *lines]) + "\n")
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump(PARTS | parts))
    return path


def test_outcomes_are_read_as_numbers_and_stay_out_of_the_distance(tmp_path):
    rows = [(0, "c0,0,0,,"), (1, "c1,1,1.5,TRUE,n/a"), (2, "c2,2,3,0,-7.25")]
    card = read_card(write(tmp_path, rows))
    table = read_customers(card).table
    assert table["Answered"].tolist()[:5] == pytest.approx([np.nan, 1, 0, 0, 1], nan_ok=True)
    assert table["Margin"].tolist()[:4] == pytest.approx([np.nan, np.nan, -7.25, 1.5], nan_ok=True)
    assert card.distance == ["a", "b"]
    assert [*table.columns] == ["id", "a", "b", "Answered", "Margin"]


@pytest.mark.parametrize(
    ("rows", "parts", "told"),
    [
        (
            [(4, "c4,4,6,maybe,2")],
            {},
            "column Answered: 1 values are neither yes nor no ('maybe' in",
        ),
        (
            [(4, "c4,4,6,yes,much")],
            {},
            "column Margin: 1 values are not numbers ('much' in line 6)",
        ),
        ([], {"outcomes": {"Gone": {}}}, "column Gone is missing; known are"),
        ([], {"outcomes": {"a": {}}}, "a is an outcome, which no feature is made of"),
        (
            [],
            {"features": {"a": {}, "b": {}, "r": {"expression": "Margin / a"}}},
            "Margin is an outcome, which no feature is made of",
        ),
        ([], {"outcomes": {"Margin": {"kind": "rate"}}}, "outcomes.Margin.kind"),
    ],
)
def test_an_outcome_that_cannot_be_is_refused(rows, parts, told, tmp_path):
    with pytest.raises(InputError) as refused:
        read_customers(read_card(write(tmp_path, rows, **parts)))
    assert told in str(refused.value)


def test_a_database_gives_the_outcomes_of_the_file(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    rows = [(0, "c0,0,0,,"), (1, "c1,1,1.5,no,")]
    card = read_card(write(tmp_path, rows))
    ours = read_customers(card).table
    with duckdb.connect(str(tmp_path / "shop.ddb")) as base:
        source = f"read_csv('{tmp_path / 't.csv'}', types={{'Answered': 'BOOLEAN'}})"
        base.execute(f"CREATE TABLE people AS SELECT * FROM {source}")
    parts = {"backend": f"duckdb://{tmp_path / 'shop.ddb'}", "table": "people"}
    for name in ("", "Margin"):
        there = read_card(write(tmp_path, rows, value=name, **parts))
        theirs = read_customers(there).table.set_index("id").loc[ours["id"]].reset_index()
        pd.testing.assert_frame_equal(theirs[[*ours]], ours, check_dtype=False)
    lying = open_customers(there)
    measured = queries.measure_segments(lying.mutate(cluster=(lying.b > 20).cast("int64")), there)
    here = ours.assign(cluster=(ours["b"] > 20).astype("Int64"))
    wanted = profiles.measure_features(here, there)
    keys = ["cluster", "variable"]
    one, two = (m.sort_values(keys, ignore_index=True)[[*wanted]] for m in (measured, wanted))
    pd.testing.assert_frame_equal(one, two, check_dtype=False)
    assert wanted.loc[wanted["variable"] == "Margin", "customers"].tolist() == [38, 12, 26]


def test_a_value_of_a_database_has_to_be_numbers_and_an_input_is_read_too(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    features = {"a": {}, "r": {"expression": "b / (a + 1)"}}
    given = {"inputs": {"b": {"unit": "€", "missing_values": [3]}}, "features": features}
    rows = [(0, "c0,0,,,")]
    card = read_card(write(tmp_path, rows, value="b", **given))
    ours = read_customers(card).table
    assert ours["b"].isna().sum() == 2
    with duckdb.connect(str(tmp_path / "shop.ddb")) as base:
        base.execute(f"CREATE TABLE people AS FROM read_csv('{tmp_path / 't.csv'}')")
        base.execute("CREATE TABLE words AS SELECT * REPLACE ('x' || Margin AS Margin) FROM people")
    parts = {"backend": f"duckdb://{tmp_path / 'shop.ddb'}", "table": "people"} | given
    there = read_card(write(tmp_path, rows, value="b", **parts))
    theirs = read_customers(there).table.set_index("id").loc[ours["id"]].reset_index()
    pd.testing.assert_frame_equal(theirs[[*ours]], ours, check_dtype=False)
    there = read_card(write(tmp_path, rows, value="Margin", **parts | {"table": "words"}))
    with pytest.raises(InputError, match="column Margin: its values are string, not numbers"):
        read_customers(there)


def make(seed, count=400):
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, 4, count)
    values = {"a": cluster + rng.normal(0, 0.3, count), "b": rng.normal(0, 1, count)}
    return rng, pd.DataFrame(values | {"cluster": cluster})


CARD = Card.model_validate(PARTS)


def describe(people):
    """Everyone's row of each outcome."""
    told = outcomes.describe_outcomes(people, CARD)
    return told[told["cluster"].isna()]


def test_what_segments_know_is_told_against_what_the_features_know():
    rng, people = make(1, 3000)
    people["Answered"] = (rng.random(3000) < 0.1 + 0.15 * people["cluster"]).astype(float)
    people["Margin"] = people["a"] + 2 * people["b"] + rng.normal(0, 0.5, 3000)
    known = describe(people).set_index("outcome")
    assert (known["p"] < 1e-6).all()
    assert known.loc["Answered", "carried"] > 0.9  # it hangs on the segment alone
    # of Var(a) + 4 Var(b) the segments know 1.25; boosting nearly all of 1.25 + 0.09 + 4
    assert 0.18 < known.loc["Margin", "carried"] < 0.3
    assert known["measure"].tolist() == ["AUC", "R²"]


def test_no_difference_is_seldom_called_one():
    called = 0
    for seed in range(100):
        rng, people = make(seed, 120)
        people["Answered"] = (rng.random(120) < 0.1).astype(float)
        people["Margin"] = rng.lognormal(size=120)
        people.loc[:5, "Margin"] = np.nan
        labels = people["cluster"].to_numpy(int)
        tests = [
            outcomes._test_rates(people["Answered"].to_numpy(), labels, seed),
            outcomes._test_numbers(people["Margin"].fillna(1).to_numpy(), labels, seed),
        ]
        called += (outcomes.adjust(pd.Series(tests)) < 0.05).any()
    assert called <= 12  # 5 expected; 13 and more in one of 500 such tests


def test_intervals_hold():
    held = {"Answered": 0, "Margin": 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        low, high = outcomes._find_wilson((rng.random(100) < 0.2).astype(float))
        held["Answered"] += low <= 0.2 <= high
        low, high = outcomes.bootstrap_mean(rng.normal(5, 2, 90), rng)
        held["Margin"] += low <= 5 <= high
    assert min(held.values()) >= 88  # 95 expected; fewer in one of 500 such tests


def test_gaps_are_left_out():
    rng, people = make(0, 400)
    people["Answered"] = (rng.random(400) < 0.2).astype(float)
    people["Margin"] = rng.normal(5, 2, 400)
    people.loc[people.index[:40], "Margin"] = np.nan
    told = outcomes.describe_outcomes(people, CARD)
    everyone = told[told["cluster"].isna()].set_index("outcome")["customers"]
    assert everyone.tolist() == [400, 360]
    assert told.loc[told["cluster"].notna()].groupby("outcome")["customers"].sum().tolist() == [
        400,
        360,
    ]
    assert (told["low"] < told["mean"]).all()
    assert (told["mean"] < told["high"]).all()
    wilson = outcomes._find_wilson(people["Answered"].to_numpy())
    assert told.loc[0, ["low", "high"]].tolist() == pytest.approx(wilson)


def test_too_little_is_not_judged():
    _, people = make(1, 20)
    people = people.assign(Answered=1.0, Margin=2.0)
    known = describe(people)
    assert known[["p", "segments", "features", "carried"]].isna().all(axis=None)
    assert outcomes.describe_outcomes(people, Card.model_validate(PARTS | {"outcomes": {}})).empty


def test_the_series_tells_what_became_of_each_segment(tmp_path):
    rng = np.random.default_rng(4)
    kind = np.repeat([0, 1, 2], 60)
    frame = pd.DataFrame({
        "id": [f"c{i}" for i in range(180)], "a": rng.normal(6.0 * kind, 1).round(3),
        "b": rng.normal(4.0 * (kind == 1), 1).round(3),
        "Answered": np.where(rng.random(180) < 0.1 + 0.3 * kind, "yes", "no"),
        "Margin": rng.normal(50, 10, 180).round(2),
    })  # fmt: skip
    frame.loc[::9, "Margin"] = np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(PARTS | {"value": "Margin"}))
    folder = play_run(tmp_path / "out/one", tmp_path / "card.yaml", resamples=20, k=3, k_max=3)
    run = Run(folder)
    told, clustered = run.read_table("outcomes.csv"), run.read_table("clustered_data.csv")
    everyone = told[told["cluster"].isna()].set_index("outcome")
    assert everyone.loc["Answered", "p"] < 0.01
    assert everyone.loc["Margin", "p"] > 0.05
    assert everyone["segment"].tolist() == ["everyone", "everyone"]
    rates = told[(told["outcome"] == "Answered") & told["cluster"].notna()]
    wanted = clustered.groupby("cluster")["Answered"].mean()
    assert rates.set_index("cluster")["mean"].to_dict() == pytest.approx(wanted.to_dict())
    assert "Answered" not in (folder / "artifacts/segmenter.json").read_text("utf-8")
    worth = run.read_table("segment_values.csv").set_index("cluster")
    own = clustered.groupby("cluster")["Margin"]
    assert worth["total"].to_dict() == pytest.approx(own.sum().to_dict())
    assert (worth["low"] < worth["mean"]).all()
    assert (worth["mean"] < worth["high"]).all()
    soup = BeautifulSoup((folder / "reports/report.html").read_text("utf-8"), "html.parser")
    names = {s["id"]: s.get("title", s["name"]) for s in run.read_json("segments.json")}
    listed = [names[each] for each in worth["mean"].sort_values(ascending=False).index]
    assert [column.h2.get_text(strip=True) for column in soup.find_all("article")] == listed
    assert "Columns stand in the order of margin;" in soup.get_text()
    assert "Margin is known of 160 of 180 customers; sums are of these." in run.manifest.warnings
    bands = run.read_table("value_bands.csv")
    assert (bands["customers"].sum(), bands["total"].sum()) == (160, pytest.approx(own.sum().sum()))


def test_features_of_two_values_are_boosted_like_others():
    rng, people = make(2, 600)
    people["a"], people["b"] = rng.integers(0, 2, (2, 600)).astype(float)
    people["Answered"] = (people["a"] != people["b"]).astype(float)  # neither alone tells anything
    people["Margin"] = people["Answered"]
    assert (describe(people)["features"] > 0.95).all()


# What a letter did ---------------------------------------------------------------------------

RATE, MARGIN = Outcome(kind="yes/no"), Outcome(unit="€")


def make_rate(yes, of):
    return pd.Series([1.0] * yes + [0.0] * (of - yes))


def test_two_rates_are_compared_as_newcombe_published():
    """Newcombe 1998, Statistics in Medicine 17, 873-890, table II, method 10."""
    for one, two, low, high in [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((5, 56), (0, 29), -0.0381, 0.1926),
    ]:
        found = outcomes.compare_groups(make_rate(*one), make_rate(*two), RATE)
        assert (found["low"], found["high"]) == pytest.approx((low, high), abs=6e-5)


def test_two_means_are_compared_by_dealing_the_customers_anew():
    rng = np.random.default_rng(5)
    sent, held = rng.lognormal(0, 1, 90), rng.lognormal(0.5, 1, 30)
    found = outcomes.compare_groups(pd.Series(sent), pd.Series(held), MARGIN)

    def find_t(x, y, axis):
        return ttest_ind(x, y, axis=axis, equal_var=False).statistic

    centred = sent - sent.mean(), held - held.mean()
    dealt = permutation_test(
        centred, find_t, vectorized=True, n_resamples=4999, rng=np.random.default_rng(1)
    ).null_distribution
    t = find_t(sent, held, 0)
    assert found["p"] == pytest.approx(2 * min((dealt <= t).mean(), (dealt >= t).mean()), abs=0.01)
    error = (sent.mean() - held.mean()) / t
    ends = found["difference"] - error * np.quantile(dealt, [0.975, 0.025])
    assert (found["low"], found["high"]) == pytest.approx(ends, abs=0.2 * error)  # sd 0.05


def test_very_many_means_are_compared_by_student():
    rng = np.random.default_rng(6)
    sent, held = pd.Series(rng.normal(1, 2, 15_000)), pd.Series(rng.normal(1, 3, 6_000))
    found = outcomes.compare_groups(sent, held, MARGIN)
    known = ttest_ind(sent, held, equal_var=False)
    ends = known.confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((ends.low, ends.high))
    assert found["p"] == pytest.approx(known.pvalue)


@pytest.mark.parametrize("wanted", ["more", "less"])
def test_what_would_show_is_found_four_times_in_five(wanted):
    rng, way = np.random.default_rng(7), 1 if wanted == "more" else -1
    least = outcomes.find_detectable(1500, 500, base=0.2, wanted=wanted)
    sent, held = rng.binomial(1500, 0.2 + way * least, 2000), rng.binomial(500, 0.2, 2000)
    pooled = (sent + held) / 2000
    z = (sent / 1500 - held / 500) / np.sqrt(pooled * (1 - pooled) * (1 / 1500 + 1 / 500))
    assert 0.77 <= (np.abs(z) > 1.96).mean() <= 0.83  # 0.8, sd 0.009
    assert outcomes.find_detectable(100, 100, base=0, sd=2) == pytest.approx(
        2.8016 * 2 * 0.02**0.5, rel=1e-3
    )


def test_nothing_is_claimed_of_nobody_or_of_what_is_all_alike():
    empty, same = pd.Series([], dtype=float), make_rate(5, 5)
    assert "p" not in outcomes.compare_groups(empty, same, RATE)
    assert outcomes.compare_groups(same, same, RATE)["p"] == 1
    alike = outcomes.compare_groups(same, same, MARGIN)
    assert np.isnan([alike["p"], alike["low"], alike["detectable"]]).all()
    assert np.isnan(outcomes.find_detectable(1, 50, base=0.1))
