"""From run to run: who continues whom, what is called when, and what it takes to compare."""

import dataclasses
import json
import re
import shutil
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import agreement
import months
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelling import build_model
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.pipeline import Pipeline

from segmentation import ROOT, InputError, runs, words
from segmentation.clustering import KMeans
from segmentation.palette import OUTLINES, PALETTE
from segmentation.segments import build_figures, model, profiles, tracking


def make_counts(rows):
    """Shared customers, clusters before (rows) by clusters now."""
    return pd.DataFrame(rows)


def call(rows, by="people"):
    """The transitions of hand-made counts as (word, before, now)."""
    counts = make_counts(rows)
    pairs = tracking.match_people(counts)
    table = tracking.find_transitions(tracking.Matching(by, 1.0, pairs, counts))
    names = table[["transition", "previous_cluster", "cluster"]].astype(object)
    return [tuple(row) for row in names.where(names.notna(), None).to_numpy()]


# Matching ----------------------------------------------------------------------------------


def test_a_survivor_has_half_of_both_sides():
    assert tracking.match_people(make_counts([[50, 50], [0, 30]])) == {0: 0}
    assert tracking.match_people(make_counts([[49, 51], [0, 52]])) == {1: 1}  # 49 of 100
    assert tracking.match_people(make_counts([[0, 30], [40, 10]])) == {0: 1, 1: 0}
    assert tracking.match_people(make_counts([[0, 0], [0, 0]])) == {}


def test_where_halves_tie_most_people_stay_together():
    assert tracking.match_people(make_counts([[50, 50], [50, 50]])) in ({0: 0, 1: 1}, {0: 1, 1: 0})
    assert tracking.match_people(make_counts([[51, 49], [49, 0]])) == {0: 0}


@pytest.mark.parametrize(
    ("rows", "called"),
    [
        ([[9, 1], [0, 10]], [("survived", 0, 0), ("survived", 1, 1)]),
        ([[60, 40]], [("split", 0, 0), ("split", 0, 1)]),
        ([[60], [40]], [("merged", 0, 0), ("merged", 1, 0)]),
        ([[50, 24, 24]], [("survived", 0, 0), ("emerged", None, 1), ("emerged", None, 2)]),
        ([[30, 30, 20, 20]], [("disappeared", 0, None), *[("emerged", None, i) for i in range(4)]]),
        ([[38, 37, 25]], [("split", 0, 0), ("split", 0, 1), ("split", 0, 2)]),
        ([[70, 30], [0, 95]], [("survived", 0, 0), ("survived", 1, 1)]),
        ([[90, 0], [0, 0]], [("survived", 0, 0), ("disappeared", 1, None), ("emerged", None, 1)]),
    ],
    ids=["same", "split", "merged", "crumbled", "scattered", "three", "moved", "gone"],
)
def test_transitions_worked_by_hand(rows, called):
    assert call(rows) == called


def test_by_centres_nothing_splits_or_merges():
    assert call([[60, 40]], by="centres") == [("survived", 0, 0), ("emerged", None, 1)]


COUNTS = st.integers(1, 5).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 40), min_size=k, max_size=k), min_size=1, max_size=5)
)


@given(rows=COUNTS)
@settings(max_examples=60, deadline=None)
def test_every_segment_gets_a_word_and_survivors_share_half(rows):
    counts = make_counts(rows)
    pairs = tracking.match_people(counts)
    assert len(set(pairs.values())) == len(pairs)
    for now, before in pairs.items():
        shared = counts.at[before, now]
        assert shared > 0
        assert 2 * shared >= max(counts.loc[before].sum(), counts[now].sum())
    table = tracking.find_transitions(tracking.Matching("people", 1.0, pairs, counts))
    assert set(table["previous_cluster"].dropna()) == set(counts.index)
    assert set(table["cluster"].dropna()) == set(counts.columns)
    assert not table.duplicated(["previous_cluster", "cluster"]).any()
    gone = table[table["transition"].isin(["disappeared", "emerged"])]
    assert (gone["previous_cluster"].isna() ^ gone["cluster"].isna()).all()
    mirror = tracking.match_people(counts.T)
    strict = {(b, n) for n, b in pairs.items() if 2 * counts.at[b, n] > counts.loc[b].sum()
              and 2 * counts.at[b, n] > counts[n].sum()}  # fmt: skip
    assert strict <= {(b, n) for b, n in mirror.items()}


def test_centres_are_matched_up_to_half_the_way_to_the_next():
    before = np.array([[0.0, 0], [10, 0], [10, 8]])
    assert tracking.match_centres(before, before[[2, 0, 1]]) == {0: 2, 1: 0, 2: 1}
    assert tracking.match_centres(before, np.array([[5.0, 0]])) == {0: 0}  # 5 of 10
    assert tracking.match_centres(before, np.array([[10, 3.9], [10, 4.1]])) == {0: 1, 1: 2}
    assert tracking.match_centres(before, np.array([[5.1, 0], [-5.1, 0]])) == {}
    near = np.array([[1.0, 0], [-20, 0]])  # a far one does not take the near one's place
    assert tracking.match_centres(np.array([[0.0, 0], [10, 0]]), near) == {0: 0}
    assert tracking.match_centres(np.array([[0.0, 0]]), np.array([[99.0, 0]])) == {0: 0}


# Drift -------------------------------------------------------------------------------------


def test_the_psi_of_two_shares_worked_by_hand():
    psi = tracking.measure_psi(np.array([[50, 60], [50, 140]]))
    assert psi == pytest.approx((0.3 - 0.5) * np.log(0.3 / 0.5) + (0.7 - 0.5) * np.log(0.7 / 0.5))
    empty = tracking.measure_psi(np.array([[50, 100], [50, 0]]))
    assert empty == pytest.approx(0.5 * np.log(2) + (1e-4 - 0.5) * np.log(1e-4 / 0.5))


def test_bins_are_the_deciles_of_then_and_what_is_missing():
    then = pd.DataFrame({"x": range(1, 101)}, dtype=float)
    assert tracking.count_bins(then, then, "x")[:, 0].tolist() == [10] * 10
    now = pd.DataFrame({"x": [1, 10.9, 11, 5_000, np.nan]})
    assert tracking.count_bins(then, now, "x")[:, 1].tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    flat = tracking.count_bins(pd.DataFrame({"x": [5.0] * 8}), pd.DataFrame({"x": [5.0, 6.0]}), "x")
    assert flat.tolist() == [[8, 1], [0, 1]]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_the_psi_is_zero_for_equal_shares_and_never_negative(pairs):
    counts = np.array(pairs, dtype=float) + 1
    assert tracking.measure_psi(counts) >= 0
    assert tracking.measure_psi(counts[:, [0, 0]] * [1, 3]) == pytest.approx(0)
    assert tracking.measure_psi(counts) == pytest.approx(tracking.measure_psi(counts[:, ::-1]))


def make_pair(rng, n, *, recurring):
    """Two tables of one population (as snapshots), of whom so many customers are in both."""
    card = months.CARD.model_copy(update={"descriptors": {}})
    names, stay = list(card.features), np.arange(n) < recurring
    then, now = rng.lognormal(0, 0.7, (2, n, 3)).round(2)
    now[stay] = then[stay] * rng.lognormal(0, 0.1, (recurring, 3))
    ids = np.arange(n), np.where(stay, np.arange(n), n + np.arange(n))
    tables = [
        pd.DataFrame(values, columns=names, index=pd.Index(own, name="id"))
        for values, own in zip((then, now), ids, strict=True)
    ]
    return card, [tracking.Snapshot("run", table, [], None, 0) for table in tables]


@pytest.mark.parametrize(
    ("n", "recurring"), [pytest.param(50, 0, marks=pytest.mark.long), (100, 50)]
)
def test_nothing_drifts_where_nothing_moves(n, recurring):
    drifted, high, covered = 0, 0, []
    for seed in range(40):
        card, pair = make_pair(np.random.default_rng([7, n, seed]), n, recurring=recurring)
        drift = tracking.measure_drift(*pair, card)
        drifted += (drift["reading"] == "drifted").any()
        high += (drift["psi"] >= 0.2).any()
        covered += [*((drift["shift_low"] <= 0) & (drift["shift_high"] >= 0))]
    assert drifted <= 5  # 2 expected of 40
    assert high >= 15
    assert np.mean(covered) > 0.9


def test_who_is_in_both_tables_is_compared_with_themselves():
    rng = np.random.default_rng(3)
    card, (before, now) = make_pair(rng, 200, recurring=200)
    raised = now.customers.assign(income=before.customers["income"] + 0.05)
    widths, shifts = {}, {}
    for name, index in {"known": raised.index, "strangers": raised.index + 1000}.items():
        after = tracking.Snapshot("run", raised.set_axis(index).rename_axis("id"), [], None, 0)
        row = tracking.measure_drift(before, after, card).set_index("variable").loc["Income"]
        widths[name], shifts[name] = row["shift_high"] - row["shift_low"], row["shift"]
    assert widths["known"] < 0.01 < 0.1 < widths["strangers"]
    assert shifts["known"] == pytest.approx(0.05) == shifts["strangers"]
    then, today = rng.normal(5, 2, 30), rng.normal(6, 1, 40)
    apart = tracking.measure_shift(pd.Series(then), pd.Series(today))
    welch = stats.ttest_ind(today, then, equal_var=False).confidence_interval(0.95)
    assert (apart["shift_low"], apart["shift_high"]) == pytest.approx(tuple(welch))
    ids = pd.RangeIndex(30, name="id")
    same = tracking.measure_shift(pd.Series(then, ids), pd.Series(today[:30], ids))
    paired = stats.ttest_rel(today[:30], then).confidence_interval(0.95)
    assert (same["shift_low"], same["shift_high"]) == pytest.approx(tuple(paired))


def test_a_shift_is_told_by_its_interval():
    row = {"variable": "Spending score", "unit": "points"}

    def tell(shift, low, high):
        facts = {"shift": shift, "shift_low": low, "shift_high": high}
        return words.say("shift", row | facts)

    assert tell(4.1, 1.2, 7.0) == "Spending score rose by 4 points (1 to 7)."
    assert tell(-40.2, -70, -10) == "Spending score fell by 40 points (10 to 70)."
    told = "Spending score has not clearly moved (between 0.2 lower and 0.5 higher)."
    assert tell(0.1, -0.24, 0.51) == told
    assert "too few" in words.say("shift", row | {"shift": 1.0, "shift_low": np.nan})


# A year ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def year():
    return months.take_year(months.make_months())


def test_ids_and_names_stay_with_their_people_for_a_year(year):
    assert months.measure_constancy(year) > 0.95
    assert months.list_events(year) == {5: ["split"], 9: ["disappeared"]}


@pytest.mark.long
@pytest.mark.parametrize(("apart", "least"), [(4, 0.9), (3, 0.7)])
def test_nearer_groups_keep_most_of_it(apart, least):
    assert months.measure_constancy(months.take_year(months.make_months(apart=apart))) > least


def test_no_id_comes_back_and_nobody_shares_a_look(year):
    known, gone = {}, set()
    for now in year.values():
        ids = {segment["id"] for segment in now.segments}
        gone |= set(known) - ids
        assert not ids & gone
        for segment in now.segments:
            look = segment["name"], segment["colour"]
            assert known.setdefault(segment["id"], look) == look
        assert len({s["colour"] for s in now.segments}) == len({s["name"] for s in now.segments})
        assert len({s["name"] for s in now.segments}) == len(now.segments)
    assert len(known) == year[12].highest_id + 1 == 6


def test_the_migration_counts_everyone_once(year):
    for month in range(2, 13):
        before, now = year[month - 1], year[month]
        table = tracking.list_migration(before, now)
        left = table[table["cluster"].isna()]["customers"].sum()
        came = table[table["previous_cluster"].isna()]["customers"].sum()
        assert table["customers"].sum() == len(now.customers) + left
        assert table["customers"].sum() == len(before.customers) + came
        assert left == len(before.customers.index.difference(now.customers.index))
        shares = table.groupby("previous_cluster")["share_of_previous"].sum()
        assert shares.to_numpy() == pytest.approx(1)


def test_the_split_is_told_with_its_part(year):
    table = tracking.list_changes(year[4], year[5])
    (part,) = [s["name"] for s in year[5].segments if s["id"] == 5]
    told = tracking.describe_transitions(table)
    whole = table.loc[table["transition"] == "split", "previous_segment"].iloc[0]
    assert told == [f"“{part}” split off from “{whole}”."]


def advise(before, now, card=months.CARD):
    table = tracking.list_changes(before, now)
    drift = tracking.measure_drift(before, now, card)
    return tracking.summarize_changes(before, now, table, drift)


def test_the_advice_follows_the_months(year):
    told = {month: advise(year[month - 1], year[month])["advice"] for month in range(2, 13)}
    assert told[5] == told[9] == "re-segment"
    assert [told[month] for month in (2, 3, 4, 6, 7, 12)] == ["keep"] * 6


def run_start(before, table, *, k, verdict):
    """The cell of notebook 04 that may start from the last centres: the model before and after."""
    notebook = json.loads((ROOT / "notebooks/04_modeling.ipynb").read_text("utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    (source,) = [source for source in sources if source.startswith("before, told")]
    shown, fresh = [], build_model(table, months.CARD, k)
    study = SimpleNamespace(previous=before, show=shown.append, read=lambda _: {"verdict": verdict})
    names = {"study": study, "model": fresh, "k": k, "card": months.CARD, "used": table}
    exec(source, names | {"KMeans": KMeans, "Pipeline": Pipeline}, values := {})
    return fresh, values.get("model", fresh), shown[0]


def test_a_cut_that_is_not_natural_starts_from_the_last_one():
    tables = months.make_months(apart=0, months=2, seed=5)  # one cloud
    before = months.take_month(tables[1], None, k=4)
    fresh, model, told = run_start(before, tables[2], k=4, verdict="constructive")
    assert "last run" in told
    assert model[1].inertia_ <= 1.05 * fresh[1].inertia_
    last = fresh[0].transform(before.scorer.figures.list_centres()).to_numpy()
    gaps = [cdist(each[1].cluster_centers_, last).min(axis=1).max() for each in (model, fresh)]
    assert gaps[0] < gaps[1]
    natural = dataclasses.replace(before, verdict="natural")
    for other, k, verdict in (
        (None, 4, "constructive"), (before, 4, "natural"), (before, 3, "reproducible"),
        (natural, 4, "constructive"),
    ):  # fmt: skip
        fresh, model, told = run_start(other, tables[2], k=k, verdict=verdict)
        assert model is fresh
        assert "fresh fit" in told


def test_changed_roles_are_told(year):
    def play(snapshot, roles):
        told = [
            s | {"roles": [roles.get(s["id"], "core")], "actions": [roles.get(s["id"], "Wait.")]}
            for s in snapshot.segments
        ]
        return dataclasses.replace(snapshot, segments=told)

    before, now = play(year[2], {0: "loyal"}), play(year[3], {0: "growth", 5: "new"})
    changed = advise(before, now)["roles"]
    name = next(s["name"] for s in now.segments if s["id"] == 0)
    assert [(r["segment"], r["previous_role"], r["role"]) for r in changed] == [
        (name, "loyal", "growth")
    ]
    assert changed[0]["sentence"] == f"“{name}” was loyal and is growth now: growth"
    assert advise(before, play(year[3], {0: "loyal"}))["roles"] == []
    assert advise(year[2], year[3])["roles"] == []  # a run of a version without roles


def test_a_drifted_feature_asks_for_a_refit():
    first = months.make_months(months=1)[1]
    dearer = first.assign(income=first["income"] * 1.5)
    before = months.take_month(first, None, k=5)
    now = months.take_month(dearer, before, k=5)
    summary = advise(before, now)
    assert (summary["advice"], summary["variable"], summary["drifted"]) == ("refit", "income", 1)
    assert tracking.list_changes(before, now)["transition"].tolist() == ["survived"] * 5
    drift = tracking.measure_drift(before, now, months.CARD).set_index("variable")
    assert drift["reading"].to_dict() == {
        **{"Income": "drifted", "Visits": "stable", "Basket": "stable", "Region": "stable"}
    }
    fit = tracking.measure_fit(before, now).set_index("customers_of")
    assert fit.loc["then", "outside"] < 0.03
    assert fit.loc["now", "outside"] > 0.05
    assert fit.loc["now", "distance"] > fit.loc["then", "distance"]


# Traps -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two():
    """Two quiet months: the tables."""
    tables = months.make_months(months=2, seed=4)
    return tables[1], tables[2]


def list_looks(snapshot):
    return {(s["id"], s["name"], s["colour"]) for s in snapshot.segments}


@pytest.mark.parametrize("renamed", ["id", "row"])
def test_without_recurring_ids_segments_are_matched_by_their_centres(two, renamed):
    first, second = (table.copy() for table in two)
    card = months.CARD.model_copy(update={"id": renamed})
    for table, prefix in ((first, ""), (second, "new")):
        table["id"] = [f"{prefix}{i}" for i in range(len(table))]
    first, second = (table.rename(columns={"id": renamed}) for table in (first, second))
    if renamed == "row":  # numbers of rows are nobody
        second["row"] = [f"{i}" for i in range(len(second))]
    before = months.take_month(first, None, k=5, card=card)
    now = months.take_month(second.assign(income=second["income"] * 1.05), before, k=5, card=card)
    matching = tracking.match_segments(now.customers, before)
    assert (matching.by, matching.recurring) == ("centres", 0)
    assert list_looks(now) == list_looks(before)
    assert tracking.list_migration(before, now).empty


def test_one_segment_hands_its_name_only_to_one(two):
    one = months.take_month(two[0], None, k=1)
    assert list_looks(months.take_month(two[1], one, k=1)) == {(0, "All customers", PALETTE[0])}
    many = months.take_month(two[1], one, k=5)
    assert {s["id"] for s in many.segments} == {1, 2, 3, 4, 5}
    assert "All customers" not in {s["name"] for s in many.segments}
    again = months.take_month(two[0], many, k=1)
    assert [(s["id"], s["name"]) for s in again.segments] == [(6, "All customers")]
    assert advise(one, many)["advice"] == advise(many, again)["advice"] == "re-segment"
    assert advise(one, months.take_month(two[1], one, k=1))["advice"] == "keep"


def test_a_new_feature_and_new_levels_can_be_compared(two):
    before = months.take_month(two[0], None, k=5)
    wider = {**months.CARD.features, "age": months.CARD.features["visits"]}
    wider["age"] = wider["age"].model_copy(update={"label": "Age", "unit": "years"})
    card = months.CARD.model_copy(update={"features": wider})
    rng = np.random.default_rng(1)
    table = two[1].assign(age=rng.normal(40, 5, len(two[1])), region="East")
    now = months.take_month(table, before, k=5, card=card)
    assert len(list_looks(now) & list_looks(before)) == 5
    drift = tracking.measure_drift(before, now, card).set_index("variable")
    assert list(drift.index) == ["Income", "Visits", "Basket", "Region"]
    assert drift.loc["Region", "reading"] == "drifted"


def test_dropped_and_missing_rows_are_no_obstacle(two):
    policies = {"income": {"missing": "drop"}, "visits": {"missing": "median"}}
    wanted = {n: f.model_copy(update=policies.get(n, {})) for n, f in months.CARD.features.items()}
    card = months.CARD.model_copy(update={"features": wanted})
    first, second = two[0].copy(), two[1].copy()
    first.loc[first.index[:5], "income"] = np.nan
    second.loc[second.index[:9], "income"] = np.nan
    second.loc[second.index[-9:], "visits"] = np.nan
    before = months.take_month(first, None, k=5, card=card)
    now = months.take_month(second, before, k=5, card=card)
    assert len(before.customers) == len(first) - 5
    assert list_looks(now) == list_looks(before)
    assert tracking.measure_fit(before, now)["customers"].tolist() == [
        len(before.customers),
        len(now.customers),
    ]


def test_a_new_segment_takes_no_name_and_no_colour_that_was_in_use(two):
    before = months.take_month(two[0], None, k=3)
    now = months.take_month(two[1], before, k=8)
    kept = {s["id"] for s in before.segments}
    new = [s for s in now.segments if s["id"] not in kept]
    assert new
    assert not {s["name"] for s in new} & {s["name"] for s in before.segments}
    assert not {s["colour"] for s in new} & {s["colour"] for s in before.segments}
    assert len({s["colour"] for s in now.segments}) == 8


def test_more_segments_than_colours_share_them_evenly(two):
    before = months.take_month(two[0], None, k=2)
    now = months.take_month(two[1], before, k=13)
    counts = pd.Series([s["colour"] for s in now.segments]).value_counts()
    assert len(counts) == len(PALETTE)
    assert counts.max() == 2


def test_a_kept_name_that_no_longer_holds_is_told():
    kinds = {"Age": "age", "Income": "income", "Net, total": ""}
    effects = pd.Series({"Age": -1.0, "Income": 0.1, "Net, total": -0.9})
    find = profiles.find_outgrown
    assert find("Younger, low net, total", effects, kinds) == []
    assert find("Younger, low income (2)", effects, kinds) == ["low income"]
    assert find("Much younger", effects, kinds) == ["much younger"]
    assert find("Near the average", effects, kinds) == ["near the average"]
    segment = {"name": "Younger", "size": 50, "outgrown": ["younger"], "stability": {"jaccard": 1}}
    (told,) = profiles.list_warnings([segment], months.CARD)
    assert told == "“Younger” kept its name from the last run, but “younger” no longer holds."


def test_a_name_of_the_card_goes_before_a_kept_one(two):
    before = months.take_month(two[0], None, k=5)
    given = {"name": "Big spenders", "when": {"Income": "high", "Basket": "not high"}}
    named = months.CARD.model_validate(months.CARD.model_dump() | {"segments": [given]})
    now = months.take_month(two[1], before, k=5, card=named)
    (big,) = [s for s in now.segments if s["name"] == "Big spenders"]
    assert big["id"] in {s["id"] for s in before.segments}
    later = months.take_month(two[0], now, k=5)  # the card no longer gives it: it is kept
    assert {s["id"] for s in later.segments if s["name"] == "Big spenders"} == {big["id"]}


# The previous run --------------------------------------------------------------------------


def describe_run(run_id, day):
    """The manifest of a published run of a day, as far as others are compared with it."""
    manifest = {"run_id": run_id, "title": "Months", "status": "published", "as_of": day}
    return manifest | {"started": f"{day}T00:00:00+00:00", "input": {"sha256": f"of {day}"}}


def write_run(folder, table, *, day):
    """A published run of a month, as far as others are compared with it."""
    folder.mkdir(parents=True)
    run = runs.Run(folder)
    snapshot = months.take_month(table, None, k=5)
    fitted = build_model(table, months.CARD, 5)
    figures = build_figures(fitted, table, months.CARD)
    model.save_model(folder / "artifacts", fitted, figures, snapshot.segments)
    run.save_table(snapshot.customers.reset_index(), "clustered_data.csv")
    run.save_json(snapshot.segments, "segments.json")
    seal(folder, describe_run(folder.name, day))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory, two):
    """An output folder with runs of January and February, which each test copies."""
    folder, table = tmp_path_factory.mktemp("written"), two[0].drop(columns="truth")
    january = write_run(folder / "2026-01", table, day="2026-01-31")
    shutil.copytree(january, folder / "2026-02")
    seal(folder / "2026-02", describe_run("2026-02", "2026-02-28"))
    return folder


@pytest.fixture
def place(tmp_path, written, two):
    """The folder of a new run beside the two, and the card of a table of March."""
    shutil.copytree(written, tmp_path / "out")
    two[1].to_csv(tmp_path / "months.csv", index=False)
    card = months.CARD.model_copy(update={"path": tmp_path / "card.yaml"})
    return tmp_path / "out/running/new", card


def seal(folder, manifest):
    """Write a manifest as a finished run's, with the digests of what is compared."""
    files = [{"path": n, "sha256": runs.hash_file(folder / n)} for n in tracking.COMPARED]
    (folder / "run.json").write_text(json.dumps(manifest | {"files": files}), "utf-8")


def find(place, **options):
    found = tracking.find_previous(*place, **options)
    return found and found.run_id


def change_manifest(place, run_id, **values):
    path = place[0].parents[1] / run_id / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


def test_the_previous_run_is_the_newest_of_the_card_on_another_table(place):
    assert find(place) == "2026-02"
    assert find(place, against="none") is None
    digest = runs.hash_file(place[1].source)
    change_manifest(place, "2026-02", input={"sha256": digest})
    assert find(place) == "2026-01"
    change_manifest(place, "2026-01", title="Others")
    assert find(place) is None


@pytest.mark.parametrize("values", [{"status": "failed"}, {"title": "x"}, {"files": []}])
def test_other_runs_are_passed_over(place, values):
    change_manifest(place, "2026-02", **values)
    assert find(place) == "2026-01"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"status": "published", "run_id": "x"}', "{"])
def test_a_strange_manifest_is_passed_over(place, text):
    (place[0].parents[1] / "2026-02/run.json").write_text(text, "utf-8")
    assert find(place) == "2026-01"


def test_a_run_of_a_later_date_is_no_previous_one(place):
    folder, card = place
    assert find((folder, card.model_copy(update={"as_of": date(2026, 1, 31)}))) == "2026-01"
    assert find((folder, card.model_copy(update={"as_of": date(2025, 12, 31)}))) is None


def test_other_columns_in_the_distance_are_another_card(place):
    folder, card = place
    fewer = {n: f for n, f in card.features.items() if n != "visits"}
    narrow = card.model_copy(update={"features": fewer})
    assert find((folder, narrow)) is None
    with pytest.raises(InputError, match="2026-02 was cut by visits, unknown to the card; compare"):
        find((folder, narrow), against="2026-02")
    wide = card.model_copy(update={"features": {**card.features, "more": card.features["visits"]}})
    assert find((folder, wide)) is None
    assert find((folder, wide), against="2026-02") == "2026-02"


def test_a_run_can_be_named_by_id_or_path(place, tmp_path):
    assert find(place, against="2026-01") == "2026-01"
    (tmp_path / "out/latest").symlink_to("2026-02")
    assert find(place, against="latest") == "2026-02"
    elsewhere = shutil.move(tmp_path / "out/2026-01", tmp_path / "kept")
    assert find(place, against=str(elsewhere)) == "kept"
    for against in ("2026-03", "latest/tables", "..", "x y"):
        with pytest.raises(InputError, match="is no published run; give an id"):
            find(place, against=against)


@pytest.mark.parametrize("name", tracking.COMPARED)
def test_a_changed_run_is_refused(place, name):
    path = place[0].parents[1] / "2026-02" / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(InputError, match=f"{name} is not the file that the run wrote; compare"):
        find(place)
    path.unlink()
    with pytest.raises(InputError, match="is not the file that the run wrote"):
        find(place, against="2026-02")
    assert find(place, against="2026-01") == "2026-01"


def test_a_run_of_an_earlier_version_is_passed_over_but_refused_by_name(place):
    folder = place[0].parents[1] / "2026-02"
    path = folder / "artifacts/segmenter.json"
    figures = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({k: v for k, v in figures.items() if k != "card"}), "utf-8")
    seal(folder, json.loads((folder / "run.json").read_text("utf-8")))
    assert find(place) == "2026-01"
    with pytest.raises(InputError, match="2026-02 was written by another version; compare"):
        find(place, against="2026-02")


def test_what_is_read_is_what_was_written(place, two):
    found = tracking.find_previous(*place)
    fresh = months.take_month(two[0], None, k=5)
    pd.testing.assert_frame_equal(
        found.customers.drop(columns="second"),
        fresh.customers.drop(columns=["second", "truth"]),
        check_dtype=False,
    )
    assert (found.segments, found.highest_id, found.day) == (fresh.segments, 4, "2026-02-28")


# The notebooks and the report ---------------------------------------------------------------


@pytest.fixture
def shuffled(tmp_path):
    """The bundled table in another order, with its card."""
    root = Path(__file__).parents[1]
    shutil.copytree(root / "data", tmp_path / "data")
    table = tmp_path / "data/raw/Mall_Customers.csv"
    pd.read_csv(table, dtype=str).sample(frac=1, random_state=3).to_csv(table, index=False)
    return tmp_path / "data/mall_customers.yaml"


def read_run(folder):
    return agreement.Run(folder), agreement.parse((folder / "reports/report.html").read_text())


@pytest.mark.long
def test_the_same_customers_in_another_order_are_the_same_segments(play_once, recorded, shuffled):
    first = agreement.Run(recorded)
    run, page = read_run(
        play_once(
            "mall shuffled", shuffled, k=4, seed=7, like=first.folder, against=str(first.folder)
        )
    )
    one, two = (r.tables["clustered_data.csv"].set_index("CustomerID") for r in (first, run))
    same = one[["cluster", "segment"]] == two[["cluster", "segment"]].reindex(one.index)
    assert same.all(axis=1).sum() >= 198
    looks = [{s["id"]: (s["name"], s["colour"]) for s in r.segments} for r in (first, run)]
    assert looks[0] == looks[1]
    assert run.tables["changes.csv"]["transition"].tolist() == ["survived"] * 4
    assert run.changes["advice"] == "keep"
    assert agreement.check_report(page, run) == []
    told = " ".join(page.find(class_="since").get_text(" ").split())
    assert "“Older” kept its share: 65 customers (32%)." in told
    assert "0 came, 0 left, 0 of 200 changed segment." in told
    assert told.endswith(
        "The segments are the ones you know; go on with them. then; grey came now; grey left"
    )
    assert not re.search("PSI|ARI|points", told)


@pytest.mark.parametrize(
    ("k", "ids", "called"),
    [
        pytest.param(1, [4], ["disappeared"] * 4 + ["emerged"], marks=pytest.mark.long),
        (3, [0, 1, 2], ["merged"] * 2 + ["survived"] * 2),
        pytest.param(
            *(6, [0, 1, 2, 3, 4, 5], ["split"] * 4 + ["survived"] * 2), marks=pytest.mark.long
        ),
    ],
)
def test_a_report_of_changed_segments_agrees_with_its_tables(play_once, recorded, k, ids, called):
    before = agreement.Run(recorded)
    like = play_once(f"mall {k}", k=k)
    played = play_once(f"mall 4 to {k}", k=k, like=like, against=str(before.folder))
    run, page = read_run(played)
    assert sorted(s["id"] for s in run.segments) == ids
    assert sorted(run.tables["changes.csv"]["transition"]) == called
    assert agreement.check_report(page, run) == []
    assert agreement.check_summary((run.folder / "summary.txt").read_text("utf-8"), run) == []
    shown = {str(segment["id"]): segment for segment in run.segments}
    for column in page.find_all("article"):
        segment = shown.pop(column["data-segment"])
        assert column.path["d"] == OUTLINES[PALETTE.index(segment["colour"])]
        assert column.path["fill"] == segment["colour"]
    assert shown == {}
    strip = page.find(class_="since")
    assert "Work with the new segments." in strip.get_text()
    missed, nodes = [], [n for n in agreement.list_nodes(page) if n.find_parent(class_="since")]
    assert nodes
    for node in nodes:
        for figure, text in agreement.list_mutations(str(node)):
            other = agreement.NavigableString(text)
            node.replace_with(other)
            missed += [] if agreement.check_node(other, run) else [figure]
            other.replace_with(node)
    assert missed == []


def test_a_first_run_has_nothing_to_compare_with(recorded):
    run, page = read_run(recorded)
    assert run.changes == {"previous": None}
    for name, columns in (("changes", tracking.CHANGES), ("migration", tracking.MIGRATION)):
        table = pd.read_csv(run.folder / f"tables/{name}.csv")
        assert (len(table), list(table.columns)) == (0, columns)
    assert page.find(class_="since") is None
    assert "Compared with" not in page.get_text()


def test_small_segments_are_withheld():
    row = {"segment": "X", "share": 0.01, "size": 4, "previous_segment": "Y"}
    row |= {"previous_size": 3, "previous_share": 0.012}
    row |= {"previous_cluster": 1, "cluster": 2}
    table = pd.DataFrame([row | {"transition": "emerged"}, row | {"transition": "disappeared"}])
    assert tracking.describe_transitions(table) == [
        "New: “X”, fewer than 5 customers.",
        "Gone: “Y”, fewer than 5 customers before.",
    ]
