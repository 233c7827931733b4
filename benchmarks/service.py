"""The service beside an empty echo and the usual endpoint, and files beside pandas.

    python benchmarks/service.py [--run outputs/latest] [--seconds 2] [--rounds 5] [--rows 1000000]

Echo and peer are routes of the same app, behind the same middleware and logging, in one server
process; a client process keeps eight connections busy, route after route, round after round.
The peer is what tutorials show: pydantic models in and out, a DataFrame, `predict` and `transform`
of a Pipeline of StandardScaler and KMeans. Files are scored in a process of its own each; the peer
reads, predicts and writes with pandas. Medians are printed with their ratios.
"""

import argparse
import asyncio
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
from comparisons import ANSWERS, Row, compare, read_peak, run_apart, write_table

from segmentation import ROOT
from segmentation.runs import Run
from segmentation.segments.scorer import find_limits
from segmentation.serving import load_model, score_file
from segmentation.serving.service import build_app as build_service

CONNECTIONS, BATCH = 8, 1_000
LEAST = {1: 8, 1_000: 5}
"""How many times the usual endpoint's answers ours are to be, by the rows of a request."""

LATEST = ROOT / "outputs/latest"


# The app with its peers --------------------------------------------------------------------


def build_app(run: Path) -> Any:
    """The service with two routes more: `/echo`, and `/peer` as the usual endpoint."""
    from fastapi import Request, Response
    from pydantic import BaseModel, ConfigDict, Field, create_model

    app = build_service(run)
    model = load_model(run)
    pipeline, scorer = fit_peer(run), model.scorer
    names, columns = [s["name"] for s in model.segments], scorer.columns
    parts = [(scorer.card.features[c], find_limits(scorer.card.features[c])) for c in columns]
    fields: Any = {
        f"x{i}": (Annotated[float, Field(alias=c, ge=low, le=high, allow_inf_nan=False)], ...)
        for i, (c, (_, (low, high))) in enumerate(zip(columns, parts, strict=True))
    }
    customer: Any = create_model(
        "PeerCustomer", __config__=ConfigDict(extra="forbid", strict=True), **fields
    )
    centres, scale = pipeline[-1].cluster_centers_, pipeline[0].transform

    class PeerReason(BaseModel):
        feature: str
        value: float

    class PeerAnswer(BaseModel):
        cluster: int
        segment: str
        distance: float
        second: str
        confidence: float
        status: str
        why: list[PeerReason]

    def score(frame: pd.DataFrame) -> list[PeerAnswer]:
        positions, distances = pipeline.predict(frame), pipeline.transform(frame)
        seconds = np.argsort(distances, axis=1)[:, 1]
        near, far = (distances[np.arange(len(frame)), at] for at in (positions, seconds))
        scaled = scale(frame)
        parts = (scaled - centres[seconds]) ** 2 - (scaled - centres[positions]) ** 2
        confidence, best = 1 - 2 * near / (near + far), np.argsort(-parts, axis=1)[:, :2]
        values = frame.to_numpy()
        return [
            PeerAnswer(
                cluster=int(positions[i]),
                segment=names[positions[i]],
                distance=float(near[i]),
                second=names[seconds[i]],
                confidence=float(confidence[i]),
                status="borderline" if confidence[i] < 0.2 else "ok",
                why=[PeerReason(feature=columns[j], value=float(values[i, j])) for j in best[i]],
            )
            for i in range(len(frame))
        ]

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body(), media_type="application/json")

    @app.post("/peer", response_model=PeerAnswer)
    def peer(row: customer) -> Any:
        return score(pd.DataFrame([row.model_dump(by_alias=True)]))[0]

    @app.post("/peer_batch", response_model=list[PeerAnswer])
    def peer_batch(rows: list[customer]) -> Any:
        return score(pd.DataFrame([row.model_dump(by_alias=True) for row in rows]))

    return app


def fit_peer(run: Path) -> Any:
    """The usual Pipeline on the run's table: StandardScaler and KMeans, the same centres."""
    from sklearn.cluster import KMeans
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scorer = load_model(run).scorer
    table = Run(run).read_table("clustered_data.csv")[scorer.columns].dropna()
    kmeans = KMeans(len(scorer.centres), init=scorer.centres, n_init=1)
    return make_pipeline(StandardScaler(), kmeans).fit(table)


def serve(run: Path, port: int) -> None:
    """Serve as `segmentation serve` does, the log going to nowhere."""
    import uvicorn

    logging.basicConfig(level=logging.INFO, stream=Path(os.devnull).open("w"))  # noqa: SIM115
    app = build_app(run)
    uvicorn.run(app, port=port, log_config=None, access_log=False, server_header=False)


@contextmanager
def running(words: Sequence[object]) -> Iterator[int]:
    """A server in a process of its own, its command ended by a free port; that port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, *map(str, words), str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port, process)
            yield port
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when the server answers; an error if it has ended or takes ten minutes."""
    for _ in range(6_000):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError("the server does not answer")


async def ask(port: int, path: str, body: bytes, seconds: float) -> float:
    """Answers a second over eight connections that are kept busy."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    until, count = time.perf_counter() + seconds, 0

    async def keep_asking() -> None:
        nonlocal count
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        while time.perf_counter() < until:
            writer.write(request)
            headers = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert headers.startswith(b"http/1.1 200"), headers
            length = int(headers.partition(b"content-length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)
            count += 1
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(keep_asking() for _ in range(CONNECTIONS)))
    return count / (time.perf_counter() - started)


def measure_requests(run: Path, seconds: float, rounds: int) -> list[Row]:
    """Answers a second beside the usual endpoint and beside an empty echo."""
    model = load_model(run)
    typical = model.describe_typical()
    one, many = json.dumps(typical).encode(), json.dumps([typical] * BATCH).encode()
    routes = [("/echo", one), ("/predict", one), ("/peer", one)]
    routes += [("/echo", many), ("/predict", many), ("/peer_batch", many)]
    rates: dict[tuple[str, int], list[float]] = {}
    with running([__file__, "--run", run, "--serve"]) as port:
        for path, body in routes:
            asyncio.run(ask(port, path, body, min(0.5, seconds)))
        for _ in range(rounds):
            for path, body in routes:
                rate = asyncio.run(ask(port, path, body, seconds))
                rates.setdefault((path, len(body)), []).append(rate)
    middle = {key: statistics.median(values) for key, values in rates.items()}
    rows = []
    for body, peer, size in ((one, "/peer", 1), (many, "/peer_batch", BATCH)):
        name = f"{size:,} rows" if size > 1 else "1 row"
        ours, echo, usual = (middle[path, len(body)] for path in ("/predict", "/echo", peer))
        what = f"{CONNECTIONS} connections, requests of {name}; "
        usual_what, echo_what = f"{what}FastAPI, pydantic, DataFrame, Pipeline", f"{what}empty echo"
        least = LEAST.get(size)
        rows += [
            compare(f"service, {name}", ours, usual, usual_what, unit=ANSWERS, least=least),
            compare(f"service beside echo, {name}", ours, echo, echo_what, unit=ANSWERS),
        ]
    return rows


# Files -------------------------------------------------------------------------------------


def write_customers(run: Path, folder: Path, rows: int) -> None:
    """As many customers as wished, drawn between the training rows' bounds, as CSV and Parquet."""
    scorer, rng = load_model(run).scorer, np.random.default_rng(0)
    table = pd.DataFrame({scorer.card.id: np.arange(rows)})
    for name in scorer.card.descriptors:
        table[name] = rng.choice(["Female", "Male"], rows)
    for name, (low, high) in zip(scorer.columns, scorer.spans, strict=True):
        table[name] = rng.integers(int(np.ceil(low)), int(high) + 1, rows)
    table.to_parquet(folder / "customers.parquet", index=False)
    table.to_csv(folder / "customers.csv", index=False)


def score_once(way: str, source: Path, target: Path, run: Path) -> None:
    """Score a file once and print seconds and peak memory; imports and the model come before."""
    model = load_model(run)
    model.scorer.score(model.scorer.typical[None, :])
    if way == "pandas":
        pipeline = fit_peer(run)
        names = np.array([segment["name"] for segment in model.segments])
    started = time.perf_counter()
    if way == "ours":
        score_file(source, target, model)
    else:
        plain = source.suffix == ".csv"
        table = pd.read_csv(source) if plain else pd.read_parquet(source)
        distances = pipeline.transform(table[model.scorer.columns])
        order = np.argsort(distances, axis=1)
        table["cluster"], table["segment"] = order[:, 0], names[order[:, 0]]
        near, far = (np.take_along_axis(distances, order[:, [i]], 1)[:, 0] for i in (0, 1))
        table["distance"], table["second"] = near, names[order[:, 1]]
        table["confidence"] = 1 - 2 * near / (near + far)
        table["status"] = np.where(table["confidence"] < 0.2, "borderline", "ok")
        table.to_csv(target, index=False) if plain else table.to_parquet(target, index=False)
    print(json.dumps([time.perf_counter() - started, read_peak()]))


def measure_files(run: Path, rows: int, rounds: int) -> list[Row]:
    """Seconds and peak memory of each kind of file, beside pandas."""
    told = []
    with TemporaryDirectory(prefix="segmentation-bench-") as name:
        folder = Path(name)
        write_customers(run, folder, rows)
        for ending, kind in (("csv", "CSV"), ("parquet", "Parquet")):
            files = folder / f"customers.{ending}", folder / f"scored.{ending}"
            found: dict[str, list[list[float]]] = {"ours": [], "pandas": []}
            for _ in range(rounds):
                for way, runs_ in found.items():
                    runs_.append(run_apart(__file__, "--run", run, "--score", way, *files))
            (ours, peak), (peer, high) = (np.median(runs_, axis=0) for runs_ in found.values())
            what = f"{rows:,} customers scored, {kind} to {kind}; pandas + Pipeline"
            told.append(compare(f"file, {kind}", ours, peer, what))
            told.append(compare(f"file, {kind}, memory", peak, high, what, unit="MiB"))
    return told


def measure(
    rows: int = 1_000_000, run: Path = LATEST, seconds: float = 2, *, rounds: int = 3
) -> list[Row]:
    """Rows of requests and of files."""
    return [
        *measure_requests(run, seconds, rounds),
        *measure_files(run, rows, rounds),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=LATEST)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--score", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.run, options.serve)
    elif options.score:
        way, source, target = options.score
        score_once(way, Path(source), Path(target), options.run)
    else:
        found = measure(options.rows, options.run, options.seconds, rounds=options.rounds)
        print(write_table(found))


if __name__ == "__main__":
    main()
