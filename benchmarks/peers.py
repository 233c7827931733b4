"""What others use for the same questions: the usual notebook, Spark MLlib, R's fpc and cluster.

    python benchmarks/peers.py [--only notebook yellowbrick spark r] [--rows 1000000] [--rounds 3]

*notebook*: elbow and silhouettes of K = 2 … 10 on the bundled table by scikit-learn; *yellowbrick*:
its two visualizers. Ours computes more: 100 starts instead of ten, K = 1, two further indices, all
silhouettes with their errors. *spark*: K-means|| of MLlib, K = 8, one start, all cores in one
process, which spares it the network; rows cached. Ours one start too. *r*: `prediction.strength`,
`clusterboot` of fpc, `clusGap` of cluster, the same counts of resamples and starts. A peer
that is not here is a row that says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from comparisons import Row, alternate, compare, time_call, write_table
from sklearn.cluster import KMeans
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score
from sklearn.preprocessing import StandardScaler

from segmentation.clustering import kmeans, null, stability
from segmentation.clustering.silhouettes import measure_silhouettes
from segmentation.customers import read_card, read_customers

KS = range(2, 11)
BUNDLED = "data/mall_customers.yaml"
STARTS = 10
NEAR = 1.001
"""Ten starts and a hundred find the same cut, but for so much of the inertia."""


def scale_bundled() -> Any:
    """The bundled table as the distance sees it."""
    card = read_card(BUNDLED)
    table = read_customers(card).table[[*card.features]]
    return StandardScaler().set_output(transform="pandas").fit_transform(table)


def miss(name: str, reason: str) -> list[Row]:
    """The row of a peer that is not here."""
    return [Row(name, None, None, "", None, "", f"not measured: {reason}")]


# The usual notebook ------------------------------------------------------------------------


def sweep(rows: Any) -> Any:
    """Ours: fits and figures of K = 1 … 10."""
    models = {k: kmeans.fit(rows, k, starts=100) for k in range(1, 11)}
    cuts = [model.labels for k, model in models.items() if k > 1]
    values = measure_silhouettes(rows, cuts)
    errors = values.std(axis=1, ddof=1) / np.sqrt(len(rows))
    indices = [
        (calinski_harabasz_score(rows, cut), davies_bouldin_score(rows, cut)) for cut in cuts
    ]
    return models, values.mean(axis=1), errors, indices


def sweep_as_usual(rows: Any) -> list[float]:
    """Elbow and silhouettes as notebooks show them."""
    models = [KMeans(k, n_init=STARTS, random_state=0).fit(rows) for k in KS]
    scores = [silhouette_score(rows, model.labels_) for model in models]
    return [model.inertia_ for model in models] + scores


def measure_notebook(rounds: int, rows: int) -> list[Row]:  # noqa: ARG001
    """The notebook's loop; its best inertias are not lower than ours."""
    table = scale_bundled()
    ours, theirs = sweep(table), sweep_as_usual(table)[: len(KS)]
    inertias = np.array([ours[0][k].inertia for k in KS])
    if not (inertias <= np.array(theirs) * NEAR).all():
        raise RuntimeError("a cut of ours is worse")
    ways = [lambda: time_call(lambda: sweep(table))[0]]
    ways.append(lambda: time_call(lambda: sweep_as_usual(table))[0])
    what = "elbow and silhouettes, 200 rows, K = 2 … 10, ten starts; ours a hundred, and more"
    return [compare("usual notebook", *alternate(ways, rounds), what)]


def measure_yellowbrick(rounds: int, rows: int) -> list[Row]:  # noqa: ARG001
    """Yellowbrick's elbow and a silhouette plot a K, drawn but not written."""
    if not importlib.util.find_spec("yellowbrick"):
        return miss("yellowbrick", "not installed")
    table = scale_bundled()
    ways = [lambda: time_call(lambda: sweep(table))[0]]
    ways.append(lambda: time_call(lambda: visualize(table))[0])
    what = "KElbowVisualizer and SilhouetteVisualizer, 200 rows, K = 2 … 10; ours without figures"
    return [compare("yellowbrick", *alternate(ways, rounds), what)]


def visualize(table: Any) -> None:
    """The two visualizers of Yellowbrick."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    mpl.cm.get_cmap = plt.get_cmap  # Yellowbrick 1.5 asks for what Matplotlib 3.11 has left out
    from yellowbrick.cluster import KElbowVisualizer, SilhouetteVisualizer

    forced = {"force_model": True}  # newer scikit-learn is not known to it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = KMeans(n_init=STARTS, random_state=0)
        KElbowVisualizer(model, k=(KS[0], KS[-1] + 1), timings=False, **forced).fit(table)
        for k in KS:
            model = KMeans(k, n_init=STARTS, random_state=0)
            SilhouetteVisualizer(model, **forced).fit(table)
        plt.close("all")


# Spark -------------------------------------------------------------------------------------

SPARK_K = 8
SPARK = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "4g",
}


def measure_spark(rounds: int, rows: int) -> list[Row]:
    """Seconds and inertia of MLlib's K-means; the session's start and the caching are not timed."""
    if not importlib.util.find_spec("pyspark"):
        return miss("Spark MLlib", "PySpark is not installed (scale.lock)")
    if not shutil.which("java"):
        return miss("Spark MLlib", "there is no Java (openjdk-17-jre-headless)")
    matrix = draw_integers(rows)
    with TemporaryDirectory(prefix="segmentation-bench-") as folder:
        told = fit_in_spark(matrix, Path(folder), rounds)
    kmeans.fit(matrix[: kmeans.STARTED + 1], 2, starts=1)  # compiles
    ours = [time_call(lambda: kmeans.fit(matrix, SPARK_K, starts=1)) for _ in range(rounds)]
    seconds, theirs = (float(np.median(values)) for values in zip(*told, strict=True))
    what = f"{rows:,} whole-number rows × 3, K = {SPARK_K}, one start"
    return [
        compare("Spark MLlib", float(np.median([took for took, _ in ours])), seconds, what),
        compare("Spark MLlib, inertia", ours[0][1].inertia, theirs, what, unit=""),
    ]


def draw_integers(rows: int) -> Any:
    """Whole-number rows (n, 3) of eight overlapping groups."""
    rng = np.random.default_rng(0)
    middles = rng.integers(20, 180, size=(SPARK_K, 3))
    return np.rint(rng.normal(middles[rng.integers(SPARK_K, size=rows)], 15.0))


def fit_in_spark(matrix: Any, folder: Path, rounds: int) -> list[tuple[float, float]]:
    """Seconds and inertia of each fit, on cached rows, after a first one."""
    import pandas as pd

    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    from pyspark.ml.clustering import KMeans as SparkKMeans
    from pyspark.ml.feature import VectorAssembler
    from pyspark.sql import SparkSession

    source, names = folder / "rows.parquet", ["a", "b", "c"]
    pd.DataFrame(matrix, columns=names).to_parquet(source)
    builder = SparkSession.builder.master("local[*]")
    for name, value in SPARK.items():
        builder = builder.config(name, value)
    session = builder.config("spark.sql.warehouse.dir", str(folder)).getOrCreate()
    try:
        session.sparkContext.setLogLevel("ERROR")
        frame = VectorAssembler(inputCols=names, outputCol="features").transform(
            session.read.parquet(str(source)).repartition(4)
        )
        frame = frame.select("features").cache()
        frame.count()
        model = SparkKMeans(k=SPARK_K, seed=0)
        model.fit(frame.limit(10_000))
        fits = [time_call(lambda: model.fit(frame)) for _ in range(rounds)]
        return [(took, float(fit.summary.trainingCost)) for took, fit in fits]
    finally:
        session.stop()


# R -----------------------------------------------------------------------------------------

HALVINGS, RESAMPLES, REFERENCES = 50, 100, 100
R_K = 4
R_CODE = """
rows <- as.matrix(read.csv(commandArgs(TRUE)[1]))
set.seed(1)
took <- function(code) system.time(capture.output(suppressWarnings(code)))[["elapsed"]]
library(fpc); library(cluster)
strength <- took(s <- prediction.strength(rows, 2, {k_max}, M = {halvings},
  clustermethod = kmeansCBI, runs = {starts}))
boot <- took(b <- clusterboot(rows, B = {resamples}, bootmethod = "boot",
  clustermethod = kmeansCBI, krange = {k}, runs = {starts}, count = FALSE))
gap <- took(g <- clusGap(rows, kmeans, {k_max}, B = {references}, d.power = 2,
  nstart = {starts}, iter.max = 100, verbose = FALSE))
cat(sprintf("[[%f,%f,%f],[%f,%f,%f]]", strength, boot, gap,
  s$mean.pred[{k}], min(b$bootmean), g$Tab[{k}, "gap"]))
"""


def measure_r(rounds: int, rows: int) -> list[Row]:  # noqa: ARG001
    """Prediction strength, Jaccards and gap of the bundled table, each beside R's."""
    missing = find_missing_in_r()
    if missing:
        return miss("R", missing)
    table = scale_bundled()
    null.warm_up()
    ours = [run_ours_like_r(table) for _ in range(rounds)]
    with TemporaryDirectory(prefix="segmentation-bench-") as folder:
        source = Path(folder) / "rows.csv"
        table.to_csv(source, index=False)
        theirs = [run_in_r(source) for _ in range(rounds)]
    names = ("fpc::prediction.strength", "fpc::clusterboot", "cluster::clusGap")
    counts = (f"{HALVINGS} halvings, K = 2 … {KS[-1]}", f"{RESAMPLES} resamples, K = {R_K}")
    counts += (f"{REFERENCES} references, K = 1 … {KS[-1]}",)
    seconds = [np.median([run[0] for run in runs], axis=0) for runs in (ours, theirs)]
    return [
        compare(
            name, float(seconds[0][i]), float(seconds[1][i]),
            f"200 rows, {counts[i]}, {STARTS} starts; at K = {R_K} ours "
            f"{ours[0][1][i]:.2f}, R's {theirs[0][1][i]:.2f}",
        )
        for i, name in enumerate(names)
    ]  # fmt: skip


def find_missing_in_r() -> str:
    """What of R is not here, in words; empty where all is."""
    if not shutil.which("Rscript"):
        return "there is no Rscript (r-base-core, r-cran-fpc, r-cran-cluster)"
    code = "cat(all(sapply(c('fpc', 'cluster'), requireNamespace, quietly = TRUE)))"
    done = subprocess.run(["Rscript", "-e", code], capture_output=True, text=True)
    return "" if done.stdout.strip() == "TRUE" else "R lacks fpc or cluster (r-cran-fpc)"


def run_ours_like_r(table: Any) -> tuple[list[float], list[float]]:
    """Seconds of the three, and their figures at K = 4."""
    rows = np.asarray(table, float)
    calls: list[Callable[[], Any]] = [
        lambda: {k: stability.prediction_strength(rows, k, halvings=HALVINGS, starts=STARTS).mean()
                 for k in KS},
        lambda: stability.jaccard_bootstrap(
            rows, kmeans.fit(rows, R_K, starts=STARTS).labels, resamples=RESAMPLES, starts=STARTS),
        lambda: stability.gap_statistic(rows, k_max=KS[-1], references=REFERENCES, starts=STARTS),
    ]  # fmt: skip
    (one, strengths), (two, jaccards), (three, gap) = (time_call(call) for call in calls)
    at_k = float(gap.set_index("k")["gap"][R_K])
    return [one, two, three], [float(strengths[R_K]), float(jaccards.mean(axis=0).min()), at_k]


def run_in_r(source: Path) -> tuple[list[float], list[float]]:
    """The same of R."""
    counts = {"k": R_K, "k_max": KS[-1], "starts": STARTS, "halvings": HALVINGS}
    code = R_CODE.format(**counts, resamples=RESAMPLES, references=REFERENCES)
    command = ["Rscript", "-e", code, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, figures = json.loads(done.stdout.splitlines()[-1])
    return seconds, figures


PARTS: dict[str, Callable[[int, int], list[Row]]] = {
    "notebook": measure_notebook,
    "yellowbrick": measure_yellowbrick,
    "spark": measure_spark,
    "r": measure_r,
}


def measure(rows: int = 1_000_000, *, rounds: int = 3, only: Any = tuple(PARTS)) -> list[Row]:
    """The rows of the peers wanted."""
    return [row for part in only for row in PARTS[part](rounds, rows)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rows", type=int, default=1_000_000, help="of Spark's table")
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    options = parser.parse_args()
    print(write_table(measure(options.rows, rounds=options.rounds, only=options.only)))


if __name__ == "__main__":
    main()
