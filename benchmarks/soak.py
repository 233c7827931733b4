"""A hundred clients for a minute, while the model is replaced twice.

    python benchmarks/soak.py [--run outputs/latest] [--seconds 60] [--clients 100]

Copies of a run are published one after the other, the segments of each named after it. Every reply
must be 200, name its run in the header, and hold no other run's segment; the exit code is 1 else.
"""

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from comparisons import ANSWERS, Row, compare
from service import LATEST, running

from segmentation.runs import Archive, Run
from segmentation.serving import load_model

BODIES = (1, 50)
"""Customers in a request: every client asks in turn for one and for a batch."""

RUNS, PATIENCE = ("first", "second", "third"), 60
"""The runs that are published in turn, and for how many seconds a run is waited for."""


def publish(source: Path, outputs: Path, name: str) -> None:
    """Publish a copy of a run whose segments are named after it."""
    copy = Run(shutil.copytree(source.resolve(), outputs / "running" / name))
    segments = copy.read_json("segments.json")
    copy.save_json([s | {"name": f"{name} {s['name']}"} for s in segments], "segments.json")
    copy.seal(copy.manifest.model_copy(update={"run_id": name}))
    Archive(outputs).publish(copy)


async def ask(port: int, bodies: list[bytes], over: asyncio.Event, seen: Counter[str]) -> None:
    """One client on one connection: asks until it is over, counts runs and faults."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    turn = 0
    while not over.is_set():
        body = bodies[turn % len(bodies)]
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        headers = dict(
            line.lower().split(": ", 1) if ": " in line else ("status", line)
            for line in (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        )
        reply = json.loads(await reader.readexactly(int(headers["content-length"])))
        run = headers.get("x-segmentation-run", "")
        answers = reply if isinstance(reply, list) else [reply]
        whole = " 200 " in headers["status"] and len(answers) == BODIES[turn % len(BODIES)]
        own = whole and all(answer["segment"].startswith(f"{run} ") for answer in answers)
        seen[run if own else f"FAULT {headers['status']} {run}"] += 1
        turn += 1
    writer.close()


async def soak(
    port: int, source: Path, outputs: Path, seconds: float, clients: int
) -> Counter[str]:
    """All clients at once, and a new run after each third of the time, once the last was seen."""
    typical = load_model(source).describe_typical()
    bodies = [json.dumps(typical if n == 1 else [typical] * n).encode() for n in BODIES]
    over, seen = asyncio.Event(), Counter[str]()
    asking = [asyncio.create_task(ask(port, bodies, over, seen)) for _ in range(clients)]
    for name in RUNS:
        if name != RUNS[0]:
            await asyncio.to_thread(publish, source, outputs, name)
        await asyncio.sleep(seconds / len(RUNS))
        until = time.monotonic() + PATIENCE
        while not seen[name] and time.monotonic() < until:
            await asyncio.sleep(0.05)
    over.set()
    await asyncio.gather(*asking)
    return seen


def count_replies(source: Path, seconds: float, clients: int) -> Counter[str]:
    """Serve the run, replace it twice, and count the replies of each run and the faults."""
    with TemporaryDirectory(prefix="segmentation-bench-") as name:
        outputs = Path(name)
        publish(source, outputs, RUNS[0])
        words = ["-m", "segmentation", "serve", "--run", outputs / "latest", "--port"]
        with running(words) as port:
            return asyncio.run(soak(port, source, outputs, seconds, clients))


def find_faults(seen: Counter[str]) -> int:
    """How many replies were not a run's own, and how many runs gave none."""
    faults = sum(count for run, count in seen.items() if run.startswith("FAULT"))
    return faults + len({*RUNS} - set(seen))


def measure(
    run: Path = LATEST, seconds: float = 20, clients: int = 100, *, rounds: int = 1
) -> list[Row]:
    """One row: replies a second while the model is replaced twice, none of them at fault."""
    seen = sum((count_replies(run, seconds, clients) for _ in range(rounds)), Counter[str]())
    if faults := find_faults(seen):
        raise RuntimeError(f"{faults:,} replies at fault")
    rate = seen.total() / seconds / rounds
    what = f"{clients} clients, {seconds:g} s, the model replaced twice; no reply at fault"
    return [compare("soak", rate, None, what, unit=ANSWERS)]


def main() -> int:
    """Soak and print how many replies each run gave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=LATEST)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=100)
    options = parser.parse_args()
    seen = count_replies(options.run, options.seconds, options.clients)
    for run, count in sorted(seen.items()):
        print(f"{count:>9,} replies of {run}")
    print(f"{seen.total():>9,} in all, {seen.total() / options.seconds:,.0f} a second")
    return int(find_faults(seen) > 0)


if __name__ == "__main__":
    sys.exit(main())
