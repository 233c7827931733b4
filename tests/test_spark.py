"""Spark for real: a master and two workers, each a process of its own, on 127.0.0.1 alone."""

import importlib.util
import os
import shutil
import subprocess
import time
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest
from modelling import build_model
from random_models import check_alike, fit_shop
from servers import HERE, answers, end_with_parent, find_port, stop, wait_for

from segmentation import InputError
from segmentation.customers import database as warehouse
from segmentation.customers import hash_table, read_customers
from segmentation.segments import (
    assign_customers,
    build_figures,
    measure_segments,
    profiles,
    queries,
)
from segmentation.segments.model import polish
from segmentation.serving import batch as scoring

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),  # PySpark's own, of pandas 3
    pytest.mark.skipif(not importlib.util.find_spec("pyspark"), reason="needs the extra scale"),
    pytest.mark.skipif(
        not shutil.which("java"), reason="Spark needs Java: openjdk-17-jre-headless"
    ),
]
ROWS = 3000


def start(folder, *words):
    """One of Spark's own processes, in a group of its own; what it says goes to a file."""
    home = Path(importlib.util.find_spec("pyspark").origin).parent
    told = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": HERE, "SPARK_DAEMON_MEMORY": "256m"}
    name = words[0].rsplit(".", 1)[-1]
    with (folder / f"{name} {time.monotonic_ns()}.log").open("wb") as log:
        return subprocess.Popen(
            [home / "bin/spark-class", *words],
            **{"stdout": log, "stderr": log, "env": os.environ | told, "cwd": folder},
            start_new_session=True,
            preexec_fn=end_with_parent,
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The URL of a cluster with two executors and its session's settings."""
    folder, port = tmp_path_factory.mktemp("spark"), find_port()
    deploy, place = "org.apache.spark.deploy", ["--host", HERE, "--webui-port", "0"]
    processes = [start(folder, f"{deploy}.master.Master", *place, "--port", str(port))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_LOCAL_IP", HERE)
        patch.delenv("SPARK_HOME", raising=False)
        try:
            wait_for(lambda: answers(port), "Spark")
            size = ["--cores", "1", "--memory", "1g", "--work-dir", str(folder / "work")]
            worker = [f"{deploy}.worker.Worker", *place, *size, f"spark://{HERE}:{port}"]
            processes += [start(folder, *worker) for _ in range(2)]
            yield f"spark://{HERE}:{port}?{urlencode(list_settings(folder))}"
            from pyspark.sql import SparkSession

            if session := SparkSession.getActiveSession():
                session.stop()
        finally:
            for process in reversed(processes):
                stop(process)


def list_settings(folder):
    return {
        "spark.ui.enabled": "false",
        "spark.driver.host": HERE,
        "spark.driver.bindAddress": HERE,
        "spark.driver.memory": "512m",
        "spark.executor.memory": "512m",
        "spark.executor.cores": "1",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }


@pytest.fixture(scope="module")
def shop(cluster, tmp_path_factory):
    """A model of a shop, how the series clusters its table, and the table in the cluster."""
    folder = tmp_path_factory.mktemp("shop")
    model, _, clustered = fit_shop(folder, ROWS)
    session = warehouse.connect(cluster)._session
    executors = session.sparkContext._jsc.sc().getExecutorMemoryStatus
    wait_for(lambda: executors().size() == 3, "Spark")  # the driver is one of them
    rows = session.read.parquet(str(folder / "shop.parquet")).repartition(4)
    rows.write.saveAsTable("customers")
    return model, clustered


def test_the_cluster_scores_row_by_row_as_the_series_file_and_duckdb_do(cluster, shop, tmp_path):
    model, clustered = shop
    tally = scoring.score_into(cluster, "customers", "scored", model)
    there = warehouse.open_table(cluster, "scored").execute()
    target = tmp_path / "scored.parquet"
    told = scoring.score_file(model.folder / "shop.parquet", target, model)
    lying = warehouse.open_file(model.folder / "shop.parquet")
    base = queries.score_table(lying, model.scorer, model.segments).execute()
    file = pd.read_parquet(target)
    assert list(there.columns) == list(file.columns)
    for table in (there, base, file):
        check_alike(table, clustered)
    assert tally.rows == ROWS
    assert tally.describe(model) == told.describe(model)


def test_the_cluster_counts_and_measures_as_duckdb_does(cluster, shop):
    model, _ = shop
    card = model.scorer.card
    tables = (
        warehouse.open_table(cluster, "customers"),
        warehouse.open_file(model.folder / "shop.parquet"),
    )
    ours, theirs = (queries.score_table(t, model.scorer, model.segments) for t in tables)
    keys = ["cluster", "variable"]
    one, two = (queries.measure_segments(s, card).sort_values(keys) for s in (ours, theirs))
    assert one[[*keys, "size", "customers"]].equals(two[[*keys, "size", "customers"]])
    for figure in ("mean", "sd", "min", "q25", "median", "q75", "max"):
        np.testing.assert_allclose(one[figure], two[figure], rtol=1e-9)
    keys.append("level")
    one, two = (queries.count_levels(s, card).sort_values(keys) for s in (ours, theirs))
    assert one.to_dict("list").items() >= {"customers": list(two["customers"])}.items()
    assert list(one["level"]) == list(two["level"])


def test_a_sample_of_the_cluster_is_polished_and_measured_on_all(cluster, shop, monkeypatch):
    model, clustered = shop
    monkeypatch.setattr("segmentation.customers.table.SAMPLED", 1000)
    card = model.scorer.card.model_copy(update={"backend": cluster, "table": "customers"})
    assert hash_table(card) == hash_table(card)
    drawn = read_customers(card)
    assert (len(drawn.table), drawn.total, drawn.sampled) == (1000, ROWS, True)
    polished, scans = polish(build_model(drawn.table, card, 3), drawn.table, card)
    assert scans["inertia"].is_monotonic_decreasing
    figures = build_figures(polished, drawn.table, card)
    sample = assign_customers(figures, drawn.table, card)
    there, _ = measure_segments(sample, card, figures=figures)
    whole = assign_customers(figures, clustered[[*card.columns]], card)
    here = profiles.measure_features(whole, card)
    keys = ["cluster", "variable"]
    there, here = (table.sort_values(keys, ignore_index=True) for table in (there, here))
    pd.testing.assert_frame_equal(there[list(here)], here, rtol=1e-9, check_dtype=False)
    used = whole.loc[whole["status"] != "dropped", list(card.features)]
    assert [feature.range for feature in figures.features] == [
        (values.min(), values.max()) for _, values in used.items()
    ]


def test_problems_and_taken_names_are_refused(cluster, shop):
    model, _ = shop
    session = warehouse.connect(cluster)._session
    session.sql("CREATE OR REPLACE VIEW odd AS SELECT * EXCEPT (age), -1L AS age FROM customers")
    with pytest.raises(InputError, match="odd, age: 3,000 values are out of range"):
        scoring.score_into(cluster, "odd", "never", model)
    with pytest.raises(InputError, match=r"table custmers is not known; did you mean customers\?"):
        scoring.score_into(cluster, "custmers", "never", model)
    with pytest.raises(InputError, match="table customers is there already"):
        scoring.score_into(cluster, "customers", "customers", model)
    assert not session.catalog.tableExists("never")
