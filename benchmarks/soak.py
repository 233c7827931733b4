"""A hundred clients for a minute, while the model is replaced and a harmed run is published.

    python benchmarks/soak.py [--run outputs/latest] [--seconds 60] [--clients 100] [--swaps 2]

Copies of a run are published one after the other, the segments of each named after it; amid them
one whose files are not what it wrote, which must be refused until the next good one comes. Every
reply must be 200, name its run in the header, and hold no other run's segment; the exit code is 1
else.
"""

import argparse
import asyncio
import json
import shutil
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from comparisons import ANSWERS, Row, compare
from service import LATEST, running

from segmentation.runs import Archive, Run
from segmentation.serving import load_model

BODIES = (1, 50)
"""Customers in a request: every client asks in turn for one and for a batch."""

HARMED, PATIENCE = "harmed", 600
"""The run that nobody may answer from, and for how many seconds a run is waited for: so many that
how busy the machine is decides nothing."""


def publish(source: Path, outputs: Path, name: str) -> None:
    """Publish a copy of a run whose segments are named after it; harm the one that is to be."""
    copy = Run(shutil.copytree(source.resolve(), outputs / "running" / name))
    segments = copy.read_json("segments.json")
    copy.save_json([s | {"name": f"{name} {s['name']}"} for s in segments], "segments.json")
    copy.seal(copy.manifest.model_copy(update={"run_id": name}))
    if name == HARMED:
        copy.save_json(segments, "segments.json")
    Archive(outputs).publish(copy)


async def ask(port: int, bodies: list[bytes], over: asyncio.Event, seen: Counter[str]) -> None:
    """One client: asks until it is over, and counts the runs that answered and the faults.

    It keeps its connection, and opens another where that was closed before it asked again.
    """
    line, turn = None, 0
    while not over.is_set():
        body, rows = bodies[turn % len(bodies)], BODIES[turn % len(bodies)]
        kept = line is not None
        reader, writer = line = line or await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            writer.write(head.encode() + body)
            told = (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            line = None
            seen["FAULT no answer"] += not kept
            continue
        pairs = [each.lower().split(": ", 1) for each in told.split("\r\n")[1:-2]]
        status, headers = told.split("\r\n")[0], dict(pairs)
        reply = json.loads(await reader.readexactly(int(headers["content-length"])))
        run = headers.get("x-segmentation-run", "")
        answers = reply if isinstance(reply, list) else [reply]
        own = " 200 " in status and len(answers) == rows and run != HARMED
        own = own and all(answer["segment"].startswith(f"{run} ") for answer in answers)
        seen[run if own else f"FAULT {status} {run}"] += 1
        turn += 1
    if line:
        line[1].close()


def name_runs(swaps: int) -> list[str]:
    """The runs in the order in which they are published; the harmed one amid them."""
    runs = [f"run{n}" for n in range(swaps + 1)]
    return [*runs[: swaps // 2 + 1], HARMED, *runs[swaps // 2 + 1 :]]


async def soak(
    port: int, source: Path, outputs: Path, seconds: float, clients: int, swaps: int
) -> Counter[str]:
    """All clients at once, and in equal parts of the time a new run, once the last was seen."""
    typical = load_model(source).describe_typical()
    bodies = [json.dumps(typical if n == 1 else [typical] * n).encode() for n in BODIES]
    over, seen, runs = asyncio.Event(), Counter[str](), name_runs(swaps)
    asking = [asyncio.create_task(ask(port, bodies, over, seen)) for _ in range(clients)]
    for name in runs:
        if name != runs[0]:
            await asyncio.to_thread(publish, source, outputs, name)
        await asyncio.sleep(seconds / len(runs))
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if seen[name] or await asyncio.to_thread(find_refused, port) == name == HARMED:
                break
            await asyncio.sleep(0.05)
        else:
            seen[f"FAULT {name} was not noticed"] += 1
    over.set()
    await asyncio.gather(*asking)
    return +seen


def find_refused(port: int) -> str | None:
    """Which run the service says that it refused."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as reply:
        return json.load(reply)["refused_run"]


def count_replies(source: Path, seconds: float, clients: int, swaps: int = 2) -> Counter[str]:
    """Serve the run, replace it, and count the replies of each run and the faults."""
    with TemporaryDirectory(prefix="segmentation-bench-") as name:
        outputs = Path(name)
        publish(source, outputs, name_runs(swaps)[0])
        words = ["-m", "segmentation", "serve", "--run", outputs / "latest", "--port"]
        with running(words) as port:
            return asyncio.run(soak(port, source, outputs, seconds, clients, swaps))


def find_faults(seen: Counter[str]) -> int:
    """How many replies were not a run's own, and how many runs were not noticed."""
    return sum(count for run, count in seen.items() if run.startswith("FAULT"))


def measure(
    run: Path = LATEST, seconds: float = 20, clients: int = 100, *, rounds: int = 1
) -> list[Row]:
    """One row: replies a second while the model is replaced, none of them at fault."""
    seen = sum((count_replies(run, seconds, clients) for _ in range(rounds)), Counter[str]())
    if faults := find_faults(seen):
        raise RuntimeError(f"{faults:,} replies at fault")
    rate = seen.total() / seconds / rounds
    what = f"{clients} clients, {seconds:g} s, two new models, a harmed one amid; no reply at fault"
    return [compare("soak", rate, None, what, unit=ANSWERS)]


def main() -> int:
    """Soak and print how many replies each run gave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=LATEST)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--swaps", type=int, default=2, help="how often the model is replaced")
    options = parser.parse_args()
    seen = count_replies(options.run, options.seconds, options.clients, options.swaps)
    for run, count in sorted(seen.items()):
        print(f"{count:>9,} replies of {run}")
    print(f"{seen.total():>9,} in all, {seen.total() / options.seconds:,.0f} a second")
    return int(find_faults(seen) > 0)


if __name__ == "__main__":
    sys.exit(main())
