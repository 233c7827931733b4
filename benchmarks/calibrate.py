"""Calibrate the choice of K on simulated tables: how often it is right, how often it is fooled.

    python benchmarks/calibrate.py --tables 40 --base 2 --output outputs/calibration

Draws structureless tables of fifteen kinds and tables with planted groups, lets the calibrated rule
answer and the verdict be given as notebook 03 does, and writes `answers.jsonl` (one record a table;
a stopped run goes on where it was) and `calibration.md` (shares with 95 % Wilson intervals). Rule
and verdict were chosen on `--base 1`; a report takes another base, so that no table is seen twice.
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

from segmentation.clustering import kmeans, null, selection, sensitivity

Table = NDArray[np.float64]
K_MAX = 10
ROWS = (200, 1_000)
FEATURES = (2, 3, 6)
GROUPS = (2, 3, 4, 5, 6, 7, 8)
APART = (6.0, 4.0)
PLANTED_ROWS = (200, 500, 1_000, 2_000)
LEAST_GROUP = 0.08
BUNDLED = Path(__file__).parents[1] / "data" / "raw" / "Mall_Customers.csv"
BUNDLED_SEEDS = 100
DRAWS, SCREEN_DRAWS = 99, 20
SCREEN_Z = 1.0  # where few null draws leave every K below it, the rest are spared
BENT = ("banana", "horseshoe")


@dataclass(frozen=True)
class Job:
    """One table to draw: its kind, rows, features, planted groups (1 for none) and their gap."""

    kind: str
    number: int
    rows: int
    features: int = 3
    groups: int = 1
    apart: float = 0.0


# The tables ----------------------------------------------------------------------------------


def _correlated(rng: np.random.Generator, n: int, p: int, rho: float) -> Table:
    return rng.multivariate_normal(np.zeros(p), np.full((p, p), rho) + (1 - rho) * np.eye(p), n)


def _recency_frequency_spending(rng: np.random.Generator, n: int, p: int) -> Table:
    """One population of buyers, each with a rate of their own; two, three or six raw figures."""
    rate = rng.gamma(1.5, 2, n)
    frequency = 1 + rng.poisson(rate)
    spending = frequency * rng.lognormal(3, 0.6, n)
    told = [rng.exponential(200 / (1 + rate)), spending, frequency]
    told += [rng.exponential(500, n), spending / frequency, rng.poisson(1 + rate / 3)]
    return np.column_stack(told[:p])


def _zero_inflated(rng: np.random.Generator, n: int, p: int) -> Table:
    return rng.lognormal(sigma=0.7, size=(n, p)) * (rng.uniform(size=(n, p)) >= 0.5)


def _rate_answers(levels: int) -> Callable[[np.random.Generator, int, int], Table]:
    """Answers to p questions on a scale of some levels, correlated by .4."""

    def draw_answers(rng: np.random.Generator, n: int, p: int) -> Table:
        latent = (levels + 1) / 2 + _correlated(rng, n, p, 0.4) * levels / 5
        return np.clip(np.round(latent), 1, levels)

    return draw_answers


def _banana(rng: np.random.Generator, n: int, p: int) -> Table:
    rows = rng.normal(size=(n, p))
    rows[:, 0] *= 2
    rows[:, 1] = rows[:, 0] ** 2 / 2 + 0.6 * rows[:, 1]
    return rows


def _horseshoe(rng: np.random.Generator, n: int, p: int) -> Table:
    angle, rows = rng.uniform(0, np.pi, n), rng.normal(size=(n, p))
    rows[:, :2] = 0.6 * rows[:, :2] + 4 * np.column_stack([np.cos(angle), np.sin(angle)])
    return rows


STRUCTURELESS: dict[str, Callable[[np.random.Generator, int, int], Table]] = {
    "Gaussian": lambda rng, n, p: _correlated(rng, n, p, 0.4),
    "uniform": lambda rng, n, p: rng.uniform(size=(n, p)),
    "t, 3 df": lambda rng, n, p: rng.standard_t(3, size=(n, p)),
    "lognormal 0.5": lambda rng, n, p: rng.lognormal(sigma=0.5, size=(n, p)),
    "lognormal 1": lambda rng, n, p: rng.lognormal(sigma=1.0, size=(n, p)),
    "correlated lognormal": lambda rng, n, p: np.exp(0.8 * _correlated(rng, n, p, 0.6)),
    "gamma": lambda rng, n, p: rng.gamma(2, size=(n, p)),
    "exponential": lambda rng, n, p: rng.exponential(size=(n, p)),
    "recency, frequency, spending": _recency_frequency_spending,
    "zero-inflated": _zero_inflated,
    "Poisson": lambda rng, n, p: rng.poisson(3, (n, p)),
    "Likert 5": _rate_answers(5),
    "Likert 7": _rate_answers(7),
    "banana": _banana,
    "horseshoe": _horseshoe,
}


def plant(rng: np.random.Generator, job: Job) -> Table:
    """Draw round groups of sd 1, each `apart` from its nearest; every share at least 8 %."""
    shares = LEAST_GROUP + (1 - LEAST_GROUP * job.groups) * rng.dirichlet(np.full(job.groups, 2.0))
    return _place(rng, job.rows, job.features, shares, job.apart)


def _place(rng: np.random.Generator, n: int, p: int, shares: Table, apart: float) -> Table:
    centres = np.zeros((1, p))
    while len(centres) < len(shares):
        step = rng.normal(size=p)
        new = centres[rng.integers(len(centres))] + apart * step / np.linalg.norm(step)
        if np.linalg.norm(centres - new, axis=1).min() > apart * (1 - 1e-9):
            centres = np.vstack([centres, new])
    ends = np.round(np.cumsum(shares[:-1]) * n)
    group = np.searchsorted(ends, np.arange(n), side="right")
    return centres[group] + rng.normal(size=(n, p))


def draw(job: Job, *, base: int) -> Table:
    """Draw the (rows, features) table of a job."""
    key = f"{job.kind} {job.number} {job.rows} {job.features} {job.groups} {job.apart}"
    rng = kmeans.stream(base, key)
    if job.kind == "5, 20 and 75 %":
        return _place(rng, job.rows, job.features, np.array([0.05, 0.2, 0.75]), job.apart)
    if job.kind == "2 of 8 features":
        rows = rng.normal(size=(job.rows, 8))
        rows[:, :2] = _place(rng, job.rows, 2, np.full(3, 1 / 3), job.apart)
        return rows
    if job.groups > 1:
        return plant(rng, job)
    return np.asarray(STRUCTURELESS[job.kind](rng, job.rows, job.features), dtype=np.float64)


def plan(tables: int, *, rows: Sequence[int] = ROWS) -> list[Job]:
    """List the jobs, one of each kind after the other, so that a part of them is a fair part.

    `tables` of each structureless kind and n, a quarter as many of each planted K and gap, as many
    of the two hard ones, in turn over numbers of features and rows.
    """
    none = [
        Job(kind, i, n, FEATURES[i % 3])
        for kind in STRUCTURELESS
        for n in rows
        for i in range(tables)
    ]
    some = [n for n in PLANTED_ROWS if min(rows) <= n <= 2 * max(rows)]
    planted = [
        Job("planted", i, some[(i + k) % len(some)], FEATURES[i % 3], k, apart)
        for apart in APART
        for k in GROUPS
        for i in range(max(1, tables // 4))
    ]
    hard = [Job("2 of 8 features", i, (300, 1_000)[i % 2], 8, 3, 6.0) for i in range(tables)] + [
        Job("5, 20 and 75 %", i, (300, 1_000)[i % 2], FEATURES[i % 3], 3, 6.0)
        for i in range(tables)
    ]
    return sorted(none + planted + hard, key=lambda job: job.number)


# The answers ---------------------------------------------------------------------------------


def answer(
    table: Table, *, seed: int, k_max: int = K_MAX, screen: bool = False
) -> dict[str, object]:
    """Choose K for one table by the calibrated rule, and judge it, as notebook 03 does.

    k, verdict, reading (the words given), small (whether a smaller group is told) and mended: the
    K after the features that carry nothing are left out, the same K where none are. Only a K in the
    gate is resampled; with `screen`, what few null draws show far from the gate is spared the rest.
    """
    rows = (table - table.mean(axis=0)) / table.std(axis=0)
    ks = range(2, k_max + 1)
    for draws in (SCREEN_DRAWS, DRAWS) if screen else (DRAWS,):
        counts = {"draws": draws, "halvings": 0, "pairs": 0, "seed": seed}
        chance = null.describe_chance(null.null_table(rows, ks, **counts))
        own = null.measure_cuts(rows, ks, halvings=0, pairs=0, seed=seed)
        gate = null.open_gate(own, chance, pd.Series(1.0, index=ks))
        if screen and gate["z"].max() < SCREEN_Z:
            return {"k": 1, "verdict": "none", "reading": "none", "small": False, "mended": 1}
    sweep = selection.sweep_briefly(rows, ks, chance, resamples=50, seed=seed)
    k = selection.answer_calibrated(sweep)[0] or 1
    row = sweep.set_index("k", drop=False).loc[k]
    verdict = selection.judge(row, k=k, asked=False)
    return {
        "k": k,
        "verdict": verdict,
        "reading": selection.read_verdict(verdict, row, sweep, skewed=False),
        "small": selection.find_small_group(sweep, k) is not None,
        "mended": mend(rows, sweep, k, seed=seed),
    }


def mend(rows: Table, sweep: pd.DataFrame, k: int, *, seed: int) -> int:
    """The rule's K without the features that carry nothing, as notebook 03 finds it."""
    at = k if k > 1 else int(sweep.set_index("k")["excess"].idxmax())
    cut = kmeans.fit(rows, at, seed=seed).labels
    weights = sensitivity.weigh_features(pd.DataFrame(rows), cut, seed=seed)
    kept = (weights["carries"] != "nothing").to_numpy()
    if kept.all() or kept.sum() < 2:
        return k
    return sensitivity.answer_rule(rows[:, kept], sweep["k"], seed=seed)


def simulate(jobs: Sequence[Job], *, base: int, workers: int = -1) -> Iterator[dict[str, object]]:
    """Let the rule answer every job: one record a table as it comes."""

    def run(job: Job) -> dict[str, object]:
        table, one = draw(job, base=base), job.groups == 1
        return {**asdict(job), **answer(table, seed=job.number, screen=one)}

    parallel = joblib.Parallel(n_jobs=workers, batch_size=1, return_as="generator_unordered")
    yield from parallel(joblib.delayed(run)(job) for job in jobs)


def bundled(seeds: int = BUNDLED_SEEDS) -> pd.DataFrame:
    """Answer the bundled table with many seeds, a fifth of them for two features: a row each."""
    customers = pd.read_csv(BUNDLED).iloc[:, 2:].to_numpy(dtype=float)
    sets = {"age, income, spending": customers, "income, spending": customers[:, 1:]}
    run = joblib.delayed(answer)
    keys = [
        (name, seed) for name, n in zip(sets, (seeds, seeds // 5), strict=True) for seed in range(n)
    ]
    found = joblib.Parallel(n_jobs=-1)(run(sets[name], seed=seed) for name, seed in keys)
    return pd.DataFrame(keys, columns=["features", "seed"]).join(pd.DataFrame(found))


# The report ----------------------------------------------------------------------------------


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    share, spread = successes / trials, z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return middle - half, middle + half


def count_shares(answers: pd.DataFrame, by: list[str], **events: pd.Series) -> pd.DataFrame:
    """For each group of tables how many there are, and each event's share with its interval."""
    groups = answers.assign(**events).groupby(by, sort=False)
    counted = groups.size().rename("tables").to_frame()
    for event in events:
        pairs = zip(groups[event].sum(), counted["tables"], strict=True)
        ends = [(hits / n, *wilson(int(hits), int(n))) for hits, n in pairs]
        counted[event.replace("_", " ")] = [f"{s:.3f} ({a:.3f}–{b:.3f})" for s, a, b in ends]
    return counted.reset_index()


def report(answers: pd.DataFrame, own: pd.DataFrame) -> str:
    """Write the figures as markdown."""
    none, planted = answers[answers["groups"] == 1], answers[answers["kind"] == "planted"]
    hard = answers[(answers["groups"] > 1) & (answers["kind"] != "planted")]
    bent = none["kind"].isin(BENT).map({True: "bent (banana, horseshoe)", False: "all others"})

    def fooled(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
        events = {"natural": rows["verdict"] == "natural", "more_than_one": rows["k"] > 1}
        return count_shares(rows, by, **events)

    def right(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
        same = rows["k"] == rows["groups"]
        return count_shares(rows, by, right=same, natural=rows["verdict"] == "natural")

    same = hard["k"] == 3
    events = {"right": same, "right_or_small_told": same | hard["small"]}
    events["difference_told"] = (hard[["k", "mended"]] > 1).any(axis=1)
    events["difference_told"] |= hard["reading"] == "small difference"
    events["right_after_the_mend"] = hard["mended"] == 3
    parts = {
        "Structureless, all fifteen kinds pooled": fooled(none, ["groups"]).drop(columns="groups"),
        "Structureless, bent and others": fooled(none.assign(shape=bent), ["shape"]),
        "Structureless, by kind and rows": fooled(none, ["kind", "rows"]),
        "Planted, by gap (sd)": right(planted, ["apart"]),
        "Planted, by gap and rows": right(planted, ["apart", "rows"]),
        "Planted, by gap and groups": right(planted, ["apart", "groups"]),
        "Hard ones": count_shares(hard, ["kind"], **events),
        "The bundled table": own.groupby("features")[["k", "verdict"]]
        .value_counts()
        .reset_index(name="seeds"),
    }
    return "\n".join(f"### {title}\n\n{_markdown(table)}\n" for title, table in parts.items())


def _markdown(table: pd.DataFrame) -> str:
    return str(table.astype(str).to_markdown(index=False, disable_numparse=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulation and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=40, help="tables of each kind and n")
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
