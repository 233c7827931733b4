"""Calibrate the choice of K on simulated tables: how often it is right, how often it is fooled.

    python benchmarks/calibrate.py --tables 100 --base 2 --output outputs/calibration

Draws structureless tables and tables with planted groups, lets the calibrated rule answer, and
writes `answers.jsonl` (one record a table; a stopped run goes on where it was) and `calibration.md`
(shares with 95 % Wilson intervals). The rule was chosen on `--base 1`; a report takes another base,
so that no table is seen twice.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segmentation.clustering import kmeans, null, selection, stability

Table = NDArray[np.float64]
K_MAX = 10
GROUPS = (2, 3, 4, 5, 6)
FEATURES = (2, 3, 4, 6, 8)
ROWS = (100, 200, 500, 1_000, 200, 500, 1_000, 100, 200, 2_000)
"""Numbers of rows, in turn; groups nearer than 6 sd are planted in up to 1 000 only, for time."""

STRUCTURELESS_ROWS = (200, 1_000)
APART = (6.0, 4.0, 3.0)
BUNDLED = Path(__file__).parents[1] / "data" / "raw" / "Mall_Customers.csv"
BUNDLED_SEEDS = 20
SCREEN_DRAWS = 20
SCREEN_SLACK = 0.025


@dataclass(frozen=True)
class Job:
    """One table to draw: its kind, rows, features, planted groups (1 for none) and their gap."""

    kind: str
    number: int
    rows: int
    features: int = 3
    groups: int = 1
    apart: float = 0.0


@dataclass(frozen=True)
class Answered:
    """The rule's answer for one table, and one row per K ≥ 2 of what it rests on."""

    k: int
    gate: pd.DataFrame


def _correlated(rng: np.random.Generator, n: int) -> Table:
    return rng.multivariate_normal(np.zeros(3), np.full((3, 3), 0.6) + 0.4 * np.eye(3), n)


STRUCTURELESS: dict[str, Callable[[np.random.Generator, int], Table]] = {
    "spherical": lambda rng, n: rng.normal(size=(n, 3)),
    "correlated 0.6": _correlated,
    "uniform square": lambda rng, n: rng.uniform(size=(n, 2)),
    "uniform cube": lambda rng, n: rng.uniform(size=(n, 3)),
    "t, 4 df": lambda rng, n: rng.standard_t(4, size=(n, 3)),
    "lognormal 0.6": lambda rng, n: rng.lognormal(sigma=0.6, size=(n, 3)),
    "lognormal 1": lambda rng, n: rng.lognormal(sigma=1.0, size=(n, 3)),
}
REPORTED_ONLY = ("lognormal 1",)


def plant(rng: np.random.Generator, job: Job) -> Table:
    """Draw round groups of sd 1, each `apart` from its nearest; every share at least 10 %."""
    centres = np.zeros((1, job.features))
    while len(centres) < job.groups:
        step = rng.normal(size=job.features)
        new = centres[rng.integers(len(centres))] + job.apart * step / np.linalg.norm(step)
        if np.linalg.norm(centres - new, axis=1).min() > job.apart * (1 - 1e-9):
            centres = np.vstack([centres, new])
    shares = 0.1 + (1 - 0.1 * job.groups) * rng.dirichlet(np.full(job.groups, 2.0))
    ends = np.round(np.cumsum(shares[:-1]) * job.rows)
    group = np.searchsorted(ends, np.arange(job.rows), side="right")
    return centres[group] + rng.normal(size=(job.rows, job.features))


def draw(job: Job, *, base: int) -> Table:
    """Draw the (rows, features) table of a job."""
    key = f"{job.kind} {job.number} {job.rows} {job.features} {job.groups} {job.apart}"
    rng = kmeans.stream(base, key)
    return plant(rng, job) if job.groups > 1 else STRUCTURELESS[job.kind](rng, job.rows)


def answer(table: Table, *, seed: int, k_max: int = K_MAX) -> Answered:
    """Choose K for one table by the calibrated rule, as notebook 03 does.

    Where 20 null draws already leave every silhouette far from the gate, the rest are spared;
    prediction strength is computed for the K in the gate only.
    """
    rows = (table - table.mean(axis=0)) / table.std(axis=0)
    ks = range(2, k_max + 1)
    fits = {k: kmeans.fit(rows, k, seed=seed, threads=1) for k in ks}
    shares = [np.bincount(fit.labels, minlength=k).min() / len(rows) for k, fit in fits.items()]
    own = null.measure_cuts(rows, ks, halvings=0, pairs=0, seed=seed).assign(draw=-1)
    for draws in (SCREEN_DRAWS, 99):
        counts = {"draws": draws, "halvings": 0, "pairs": 0, "seed": seed, "threads": 1}
        figures = pd.concat([own, null.null_table(rows, ks, **counts)])
        gate = null.open_gate(figures, pd.Series(shares, index=ks)).reset_index()
        if gate["excess"].max() < null.LEAST_EXCESS - SCREEN_SLACK:
            break
    table_ = gate.assign(prediction_strength=np.nan)
    for k in gate.loc[gate["gated"], "k"]:
        strength = stability.prediction_strength(rows, int(k), seed=seed, threads=1).mean()
        table_.loc[table_["k"] == k, "prediction_strength"] = strength
    return Answered(selection.answer_calibrated(table_)[0] or 1, table_)


def plan(tables: int, *, rows: Sequence[int] = ROWS) -> list[Job]:
    """List the jobs, one of each kind after the other, so that a part of them is a fair part.

    `tables` of each structureless kind and n; of each planted K half as many at 6 sd and
    a fifth at 4 and at 3 sd, in turn over `rows` and numbers of features.
    """
    none = [
        Job(kind, i, n, 2 if kind == "uniform square" else 3)
        for kind in STRUCTURELESS
        for n in STRUCTURELESS_ROWS
        if n in rows
        for i in range(tables)
    ]
    planted = [
        Job("planted", i, few[i % len(few)], FEATURES[(i // len(few) + i) % 5], k, apart)
        for apart in APART
        for few in [rows if apart == max(APART) else [n for n in rows if n < max(ROWS)]]
        for k in GROUPS
        for i in range(max(1, tables // (2 if apart == max(APART) else 5)))
    ]
    return sorted(none + planted, key=lambda job: job.number)


def simulate(jobs: Sequence[Job], *, base: int, workers: int = -1) -> Iterator[dict[str, object]]:
    """Let the rule answer every job: one record a table as it comes, with its answer `k`."""

    def run(job: Job) -> dict[str, object]:
        choice = answer(draw(job, base=base), seed=job.number)
        gated = choice.gate[choice.gate["gated"]]
        figures = gated[["k", "excess", "prediction_strength"]].round(4).to_dict("records")
        return {**asdict(job), "k": choice.k, "gated": figures}

    parallel = joblib.Parallel(n_jobs=workers, batch_size=1, return_as="generator_unordered")
    yield from parallel(joblib.delayed(run)(job) for job in jobs)


def bundled() -> pd.DataFrame:
    """Answer the bundled table with 20 seeds: one row a seed and set of features."""
    customers = pd.read_csv(BUNDLED).iloc[:, 2:].to_numpy(dtype=float)
    sets = {"age, income, spending": customers, "income, spending": customers[:, 1:]}
    run = joblib.delayed(answer)
    keys = [(name, seed) for name in sets for seed in range(BUNDLED_SEEDS)]
    found = joblib.Parallel(n_jobs=-1)(run(sets[name], seed=seed) for name, seed in keys)
    return pd.DataFrame(keys, columns=["features", "seed"]).assign(k=[one.k for one in found])


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    share, spread = successes / trials, z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return middle - half, middle + half


def share_right(answers: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Count, for each group of tables, how often the rule was right, with its interval."""
    right = answers.assign(right=answers["k"] == answers["groups"]).groupby(by)
    counts = right.agg(right=("right", "sum"), tables=("right", "size"), mean_k=("k", "mean"))
    pairs = zip(counts["right"], counts["tables"], strict=True)
    intervals = [wilson(int(hits), int(tables)) for hits, tables in pairs]
    shares = counts["right"] / counts["tables"]
    texts = [f"{low:.3f}–{high:.3f}" for low, high in intervals]
    return counts.assign(share=shares.map("{:.3f}".format), interval=texts).reset_index()


def report(answers: pd.DataFrame, own: pd.DataFrame) -> str:
    """Write the figures as markdown."""
    none, planted = answers[answers["groups"] == 1], answers[answers["groups"] > 1]
    judged, far = none[~none["kind"].isin(REPORTED_ONLY)], planted[planted["apart"] == max(APART)]
    parts = {
        "Structureless: answered *none*": share_right(none, ["kind", "rows"]),
        "Structureless, pooled without lognormal 1": share_right(judged, ["groups"]),
        "Planted: the right K": share_right(planted, ["apart", "groups"]),
        "Planted, pooled": share_right(planted, ["apart"]),
        "Planted at 6 sd, by rows": share_right(far, ["rows"]),
        "Planted at 6 sd, by features": share_right(far, ["features"]),
        "The bundled table": own.groupby("features")["k"].value_counts().reset_index(name="seeds"),
    }
    return "\n".join(f"## {title}\n\n{_markdown(table)}\n" for title, table in parts.items())


def _markdown(table: pd.DataFrame) -> str:
    whole = {"apart": "{:g}", "mean_k": "{:.2f}"}
    shown = table.assign(**{c: table[c].map(f.format) for c, f in whole.items() if c in table})
    return str(shown.astype(str).to_markdown(index=False, disable_numparse=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulation and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=100, help="tables of each kind")
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="n to draw")
    parser.add_argument("--base", type=int, default=2, help="base of the seeds; 1 was for tuning")
    parser.add_argument("--output", type=Path, default=Path("outputs/calibration"))
    chosen = parser.parse_args(arguments)
    chosen.output.mkdir(parents=True, exist_ok=True)
    stream = chosen.output / "answers.jsonl"
    jobs = plan(chosen.tables, rows=chosen.rows)
    continue_stream(stream, jobs, base=chosen.base)
    told = report(read_stream(stream, jobs), bundled())
    (chosen.output / "calibration.md").write_text(told)
    print(told)


def continue_stream(stream: Path, jobs: Sequence[Job], *, base: int) -> None:
    """Answer the jobs that the stream does not hold yet, a line each as it comes."""
    done = {_key(record) for record in _read_lines(stream)}
    left = [job for job in jobs if _key(asdict(job)) not in done]
    with stream.open("a") as file:
        for record in simulate(left, base=base):
            print(json.dumps(record), file=file, flush=True)


def read_stream(stream: Path, jobs: Sequence[Job]) -> pd.DataFrame:
    """The records of the jobs, in the jobs' order."""
    records = {_key(record): record for record in _read_lines(stream)}
    keys = [_key(asdict(job)) for job in jobs]
    return pd.DataFrame([records[key] for key in keys if key in records])


def _read_lines(stream: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.open()] if stream.is_file() else []


def _key(record: dict[str, object]) -> tuple[object, ...]:
    return tuple(record[name] for name in Job.__dataclass_fields__)


if __name__ == "__main__":
    main()
