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
import platform
import resource
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from segmentation import ROOT, payloads, runs, scoring

CONNECTIONS, BATCH = 8, 1_000
MEBIBYTE = 2**10  # ru_maxrss counts KiB


# The app with its peers --------------------------------------------------------------------


def build_app(run: Path) -> Any:
    """The service with two routes more: `/echo`, and `/peer` as the usual endpoint."""
    from fastapi import Request, Response
    from pydantic import BaseModel, ConfigDict, Field, create_model

    from segmentation import service

    app = service.build_app(run)
    model = scoring.load_model(run)
    pipeline, scorer = fit_peer(run), model.scorer
    names, columns = [s["name"] for s in model.segments], scorer.columns
    parts = [
        (scorer.card.features[c], scoring.find_limits(scorer.card.features[c])) for c in columns
    ]
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

    scorer = scoring.load_model(run).scorer
    table = runs.Run(run).read_table("clustered_data.csv")[scorer.columns].dropna()
    kmeans = KMeans(len(scorer.centres), init=scorer.centres, n_init=1)
    return make_pipeline(StandardScaler(), kmeans).fit(table)


def serve(run: Path, port: int) -> None:
    """Serve as `segmentation serve` does, the log going to nowhere."""
    import uvicorn

    logging.basicConfig(level=logging.INFO, stream=Path(os.devnull).open("w"))  # noqa: SIM115
    app = build_app(run)
    uvicorn.run(app, port=port, log_config=None, access_log=False, server_header=False)


@contextmanager
def running(run: Path) -> Iterator[int]:
    """The app in a process of its own; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "--run", str(run), "--serve", str(port)]
    with subprocess.Popen(command) as process:
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.1)
            yield port
        finally:
            process.terminate()


async def ask(port: int, path: str, body: bytes, seconds: float) -> float:
    """Answers a second over eight connections that are kept busy."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
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


def measure_requests(run: Path, seconds: float, rounds: int) -> list[list[object]]:
    """One row a route: answers a second, and how many times the peer and the echo that is."""
    model = scoring.load_model(run)
    typical = payloads.describe_typical(model.scorer)
    one, many = json.dumps(typical).encode(), json.dumps([typical] * BATCH).encode()
    routes = [("/echo", one), ("/predict", one), ("/peer", one)]
    routes += [("/echo", many), ("/predict", many), ("/peer_batch", many)]
    rates: dict[tuple[str, int], list[float]] = {}
    with running(run) as port:
        for path, body in routes:
            asyncio.run(ask(port, path, body, 0.5))
        for _ in range(rounds):
            for path, body in routes:
                rate = asyncio.run(ask(port, path, body, seconds))
                rates.setdefault((path, len(body)), []).append(rate)
    middle = {key: statistics.median(values) for key, values in rates.items()}
    rows: list[list[object]] = []
    for body, peer, name in ((one, "/peer", "1 row"), (many, "/peer_batch", f"{BATCH} rows")):
        ours, echo = middle["/predict", len(body)], middle["/echo", len(body)]
        usual = middle[peer, len(body)]
        rows.append([name, "echo", f"{echo:,.0f}", "", ""])
        rows.append([name, "ours", f"{ours:,.0f}", f"{ours / usual:.1f}", f"{ours / echo:.0%}"])
        rows.append([name, "usual endpoint", f"{usual:,.0f}", "1.0", f"{usual / echo:.0%}"])
    return rows


# Reading a body ----------------------------------------------------------------------------


def measure_reading(run: Path) -> list[list[object]]:
    """One row a size: microseconds to decode and check by msgspec and by pydantic."""
    from pydantic import ConfigDict, Field, TypeAdapter, create_model

    scorer = scoring.load_model(run).scorer
    reader, typical = payloads.Reader(scorer), payloads.describe_typical(scorer)
    fields: Any = {
        f"x{i}": (Annotated[float | None, Field(alias=name, ge=low, le=high)], None)
        for i, name in enumerate(scorer.columns)
        for low, high in [scoring.find_limits(scorer.card.features[name])]
    }
    row: Any = create_model("Row", __config__=ConfigDict(extra="forbid", strict=True), **fields)
    adapter: Any = TypeAdapter(row | list[row])
    rows: list[list[object]] = []
    for count in (1, BATCH):
        body = json.dumps(typical if count == 1 else [typical] * count).encode()
        ours = time_call(lambda body=body: reader._decode(body))
        peer = time_call(lambda body=body: adapter.validate_json(body))
        rows.append([count, f"{1e6 * ours:.1f}", f"{1e6 * peer:.1f}", f"{peer / ours:.1f}"])
    return rows


def time_call(call: Any) -> float:
    """Seconds of a call, the median of seven lots of 200."""
    lots = []
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(200):
            call()
        lots.append((time.perf_counter() - started) / 200)
    return statistics.median(lots)


# Files -------------------------------------------------------------------------------------


def write_customers(run: Path, folder: Path, rows: int) -> None:
    """As many customers as wished, drawn between the training rows' bounds, as CSV and Parquet."""
    scorer, rng = scoring.load_model(run).scorer, np.random.default_rng(0)
    table = pd.DataFrame({scorer.card.id: np.arange(rows)})
    for name in scorer.card.descriptors:
        table[name] = rng.choice(["Female", "Male"], rows)
    for name, (low, high) in zip(scorer.columns, scorer.spans, strict=True):
        table[name] = rng.integers(int(np.ceil(low)), int(high) + 1, rows)
    table.to_parquet(folder / "customers.parquet", index=False)
    table.to_csv(folder / "customers.csv", index=False)


def score_once(way: str, source: Path, target: Path, run: Path) -> None:
    """Score a file once and print seconds and peak memory; imports and the model come before."""
    model = scoring.load_model(run)
    model.scorer.score(model.scorer.typical[None, :])
    if way == "pandas":
        pipeline = fit_peer(run)
        names = np.array([segment["name"] for segment in model.segments])
    started = time.perf_counter()
    if way == "ours":
        scoring.score_file(source, target, model)
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
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE
    print(json.dumps([seconds, peak]))


def measure_files(run: Path, rows: int, rounds: int) -> list[list[object]]:
    """One row a kind of file and a way: rows a second, peak memory, ratio."""
    told: list[list[object]] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_customers(run, folder, rows)
        for ending in ("csv", "parquet"):
            source, target = folder / f"customers.{ending}", folder / f"scored.{ending}"
            figures: dict[str, list[list[float]]] = {"ours": [], "pandas": []}
            for _ in range(rounds):
                for way, found in figures.items():
                    command = [sys.executable, __file__, "--run", run, "--score", way]
                    done = subprocess.run(
                        [*map(str, command), str(source), str(target)],
                        capture_output=True,
                        text=True,
                        check=True,
                    )
                    found.append(json.loads(done.stdout))
            middle = {way: np.median(found, axis=0) for way, found in figures.items()}
            for way, (seconds, peak) in middle.items():
                ratio = middle["pandas"][0] / seconds
                told.append([ending, way, f"{rows / seconds:,.0f}", f"{peak:,.0f}", f"{ratio:.1f}"])
    return told


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "outputs/latest")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--score", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.run, options.serve)
        return
    if options.score:
        way, source, target = options.score
        score_once(way, Path(source), Path(target), options.run)
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}\n")
    requests = measure_requests(options.run, options.seconds, options.rounds)
    print(tabulate(requests, ["body", "route", "answers a second", "of usual", "of echo"]), "\n")
    reading = measure_reading(options.run)
    print(tabulate(reading, ["rows", "msgspec µs", "pydantic µs", "ratio"]), "\n")
    files = measure_files(options.run, options.rows, options.rounds)
    print(tabulate(files, ["file", "way", "rows a second", "peak MiB", "of pandas"]))


if __name__ == "__main__":
    main()
