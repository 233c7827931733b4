"""A small calibration: fooled by nothing, right where the groups are far apart."""

import numpy as np
import pandas as pd
import pytest
from conftest import load_benchmark

calibrate = load_benchmark("calibrate")


def test_plants_what_it_says():
    job = calibrate.Job("planted", 0, 50_000, features=3, groups=4, apart=6.0)
    rng = np.random.default_rng(0)
    table = calibrate.plant(rng, job)
    assert table.shape == (50_000, 3)
    labels = calibrate.kmeans.fit(table[::25], 4).labels
    centres = np.stack([table[::25][labels == j].mean(axis=0) for j in range(4)])
    apart = np.linalg.norm(centres[:, None] - centres, axis=2) + 99 * np.eye(4)
    np.testing.assert_allclose(apart.min(axis=1), 6, atol=0.3)
    assert np.bincount(labels).min() >= 0.09 * len(labels)


def test_tables_of_another_base_are_others():
    job = calibrate.Job("Gaussian", 0, 50)
    one, again, other = (calibrate.draw(job, base=base) for base in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_wilson_interval():
    low, high = calibrate.wilson(90, 100)
    assert (round(low, 4), round(high, 4)) == (0.8256, 0.9448)
    assert calibrate.wilson(20, 20)[1] == pytest.approx(1)


@pytest.mark.long
def test_more_rows_never_mean_fewer_segments():
    jobs = [calibrate.Job("planted", 1, n, 3, 4, 6.0) for n in (100, 200, 500, 1_000, 2_000)]
    answers = {answer["rows"]: answer["k"] for answer in calibrate.simulate(jobs, base=4)}
    found = [answers[rows] for rows in sorted(answers)]
    assert found == sorted(found)
    assert found[-1] == 4


@pytest.mark.parametrize("kind", calibrate.STRUCTURELESS)
@pytest.mark.parametrize("features", calibrate.FEATURES)
def test_structureless_tables_are_what_was_asked_for(kind, features):
    table = calibrate.draw(calibrate.Job(kind, 1, 60, features), base=1)
    assert table.shape == (60, features)
    assert np.isfinite(table).all()
    assert (table.std(axis=0) > 0).all()


def test_the_plan_leaves_no_kind_out():
    jobs = calibrate.plan(40)
    none = pd.DataFrame([job for job in jobs if job.groups == 1])
    assert set(none["kind"]) == set(calibrate.STRUCTURELESS)
    assert (none.groupby(["kind", "rows"]).size() >= 40).all()
    assert none.groupby(["kind", "rows"])["features"].nunique().eq(3).all()


@pytest.mark.long
def test_the_bundled_table_gives_the_same_answer_with_every_seed():
    found = calibrate.bundled(seeds=20).groupby("features")[["k", "verdict"]].value_counts()
    answers = {features: (k, verdict) for features, k, verdict in found.index}
    assert sorted(found) == [4, 20]
    assert answers == {
        "age, income, spending": (4, "reproducible"),
        "income, spending": (5, "natural"),
    }


@pytest.mark.long
def test_small_calibration():
    answers = pd.DataFrame(calibrate.simulate(calibrate.plan(6, rows=[200]), base=3))
    none = answers[(answers["groups"] == 1) & ~answers["kind"].isin(calibrate.BENT)]
    assert (none["k"] == 1).mean() >= 0.95
    far = answers[(answers["apart"] == 6) & (answers["kind"] == "planted")]
    assert (far["k"] == far["groups"]).mean() >= 0.8
    assert "pooled" in calibrate.report(answers, calibrate.bundled(seeds=5))
