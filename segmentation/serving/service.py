"""The scoring service: one row, now; a page for people, an API for programs, metrics for both."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from pydantic import BaseModel
from pydantic_core import from_json, to_json
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segmentation import ROOT, InputError, __version__, words
from segmentation.palette import OUTLINES, find_look
from segmentation.reports import describe_points, stylesheet
from segmentation.runs import Run
from segmentation.segments import campaigns
from segmentation.serving.apart import LONGEST, Ended, score_apart
from segmentation.serving.batch import Unwritable
from segmentation.serving.model import KEYS, MEND, Model, Problem, Refusal, load_model
from segmentation.serving.payloads import MOST_ROWS, REF, Answer, Reader

LARGEST_BODY, LARGEST_FILE = 4_000_000, 100_000_000
"""Bytes of a JSON body and of a file that are taken; a larger one is answered with 413."""

PATIENCE, SLOWEST = 20, 10_000
"""Seconds for a body, and bytes for each of which there is a second more; then 408."""

DRAINED, DRAINING = 200_000_000, 10
"""Bytes of a body, and seconds, that are still read where the answer needs no more of it: most
clients read an answer only when all is sent, and lose it where the connection is cut before."""

WORTH_A_THREAD = 500_000
"""Bytes of a JSON body from which on others should not wait until it is answered."""

FILES_AT_ONCE, BATCHES_AT_ONCE = 2, 2
"""What takes longer waits for its turn, so that the rest is answered beside it."""

LOOKS_EVERY, RETRIES_EVERY = 0.5, 5.0
"""Seconds between two looks for a newly published run, between two tries of one refused."""

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""The names of this machine: a page elsewhere whose name leads here is refused by its Host."""

WEB = Path(__file__).parent / "web"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
RUN = b"x-segmentation-run"
STOPPED = "the service was stopped meanwhile; ask again in a moment."
DESCRIPTION = (
    "Which segment a customer belongs to, how sure that is, and why. Columns go by their raw "
    "names, their labels or the card's aliases, in any order. Every answer of the model names its "
    "run in the header X-Segmentation-Run. There is no login: keep the service behind a proxy."
)
HOST = re.compile(r"\*|(\*\.)?[\w.-]+|\[[^]]+\]")
REQUEST_ID = re.compile(rb"[\w.-]{1,64}")
METHODS = {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"}
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
REQUESTS = Counter("segmentation_requests", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram(
    "segmentation_request_seconds", "Seconds to the answer", ["route"], buckets=BUCKETS
)
CUSTOMERS = Counter("segmentation_customers", "Customers scored", ["status"])

log = logging.getLogger("segmentation.service")


class Unavailable(Exception):
    """There is no model to answer with."""


class Shelf:
    """Holds the model of the newest published run; a new one replaces it in one step.

    What is being answered keeps the model that it began with. A run that cannot be loaded
    replaces nothing and is tried again: the last good model stays, and `reason` says why.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.reason, self.refused = run, "", ""
        self.loaded: Reader | None = None
        self._seen: tuple[str, int] | None = None
        self._again = 0.0
        self.look()

    def look(self) -> None:
        """Load the run's model where it is not the one that is held; never an error."""
        self.looked, now = datetime.now(UTC), time.monotonic()
        folder, seen = os.path.realpath(self.run), None  # unlike resolve, it bears a loop of links
        with suppress(OSError):
            seen = folder, (self.run / "run.json").stat().st_mtime_ns
        if seen == self._seen and now < self._again:
            return
        self._seen, self._again = seen, now + RETRIES_EVERY
        name = Path(folder).name
        try:
            reader = Reader(load_model(self.run))
            reader.answer(to_json(reader.model.describe_typical()))  # whether it can
            gc.freeze()  # libraries and model stay: a thousand answers need not walk through them
            self.loaded, self.reason, self.refused, self._again = reader, "", "", float("inf")
            log.info("run %s: model loaded", name)
        except Exception as error:  # whatever a file holds, the last good model stays
            kind = type(error).__name__
            odd = f"run {name} cannot be read: {kind}; {MEND}"
            reason = str(error) if isinstance(error, InputError) else odd
            if reason != self.reason:
                log.error("%s", reason)
            self.reason, self.refused = reason, name


# What is answered, for the documentation ---------------------------------------------------


class Excuse(BaseModel):
    """What is wrong: in words, or the first twenty problems, each with its row (from 0) or line,
    its field, what is wrong and what is allowed, and the count of all."""

    detail: str | list[dict[str, Any]]


WRONG = {
    404: "There is nothing of this name",
    408: "The body came too slowly",
    413: "The body is too large, or the file takes too long",
    422: "What is wrong in which row",
    503: "There is no model",
    507: "There is no room for the file",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"X-Segmentation-Run": {"schema": {"type": "string"}}}},
    **{status: {"model": Excuse, "description": told} for status, told in WRONG.items()},
}
ROW = {"$ref": REF.format(model="Customer")}
MANY = {"type": "array", "minItems": 1, "maxItems": MOST_ROWS, "items": ROW}
ROWS = {"application/json": {"schema": {"oneOf": [ROW, MANY]}}}
FILE = {"type": "string", "format": "binary"}
Encoding = Literal[
    "", "utf-8", "cp1250", "cp1251", "cp1252", "cp1255", "cp1256", "latin-1", "mac-roman",
    "shift_jis", "cp932", "gb18030", "big5", "euc-kr",
]  # fmt: skip
FORM = {"type": "object", "required": ["file"], "properties": {"file": FILE}}
FILES = {
    "text/csv": {"schema": {"type": "string"}},
    "multipart/form-data": {"schema": FORM, "encoding": {"file": {"contentType": "text/csv"}}},
}
CAMPAIGN = {
    "name": "campaign",
    "in": "query",
    "schema": {"type": "string", "default": ""},
    "description": "A campaign that was drawn; each answer then has the customer's `group`",
}
ANSWERED: dict[str, Any] = {
    "openapi_extra": {
        "parameters": [CAMPAIGN],
        "requestBody": {"required": True, "content": ROWS},
    },
    "response_model": Answer | list[Answer],
}
SCORED: dict[str, Any] = {
    "openapi_extra": {"requestBody": {"required": True, "content": FILES}},
    "response_class": FileResponse,
}


# Routes ------------------------------------------------------------------------------------

router = APIRouter(responses=RESPONSES)


@router.post("/predict", operation_id="predict", **ANSWERED)
@router.post("/predict_cluster", operation_id="predict_cluster", **ANSWERED)
async def predict(request: Request) -> Response:
    """The segment of one customer (an object) or of up to 10 000 (a list), in the same order."""
    reader = _take(request)
    campaign = _find_campaign(request, reader.model)
    body = b"".join([chunk async for chunk in _read(request, LARGEST_BODY)])
    if len(body) > WORTH_A_THREAD:
        async with request.app.state.batches:
            content, counts = await run_in_threadpool(reader.answer, body, campaign)
    else:
        content, counts = reader.answer(body, campaign)
    _count(counts)
    return Response(content, media_type="application/json")


def _find_campaign(request: Request, model: Model) -> campaigns.Campaign | None:
    """The record of the campaign that is asked about, None where none is; it lies by the run."""
    if not request.scope["query_string"] or not (name := request.query_params.get("campaign")):
        return None
    outputs = model.folder.parent
    if name not in (known := campaigns.list_campaigns(outputs)):
        told = f"no campaign has this name; drawn are {words.join(known) or 'none'}."
        raise HTTPException(404, told)
    try:
        _ = model.kept_card  # read here, where it is told what is wrong with it
        return campaigns.read_campaign(outputs, name)
    except InputError as error:
        raise Unavailable(str(error)) from None


@router.post("/predict_file", **SCORED)
async def predict_file(
    request: Request, segment: str = "", encoding: Encoding = "", sheet: str = ""
) -> Response:
    """The CSV (or Excel file) with segment columns; the body itself, or a file of a form.

    `segment` keeps the customers of one segment, by its name or id; `encoding` and `sheet` say how
    the file is to be read, where it is not UTF-8 or has several sheets. The headers tell how many
    customers there were, and how many of which segment and status.
    """
    model = _take(request).model
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="segmentation-")))
            source, target = folder / "customers.csv", folder / "scored.csv"
            await _save_upload(request, source)
            with source.open("rb") as file:
                if file.read(4) == b"PK\x03\x04":
                    source = source.rename(source.with_suffix(".xlsx"))
            sheet = sheet if source.suffix == ".xlsx" else ""
            async with request.app.state.files:
                how = {"segment": segment, "encoding": encoding, "sheet": sheet}
                tally = await score_apart(source, target, model, **how)
            clean = BackgroundTask(stack.pop_all().close)
    except (OSError, Unwritable):
        told = "there is no room to score a file; make some where TMPDIR is"
        raise HTTPException(507, told) from None
    except Ended:
        told = f"the file takes over {LONGEST} s or too much memory; `segmentation score` it"
        raise HTTPException(413, told) from None
    _count(tally.statuses)
    segments = [tally.segments[segment["id"]] for segment in model.segments]
    told = to_json({"segments": segments, "statuses": tally.statuses}).decode()
    headers = {"X-Segmentation-Rows": str(tally.rows), "X-Segmentation-Tally": told}
    kind = "text/csv; charset=utf-8"
    return FileResponse(target, 200, headers, kind, clean, filename="scored.csv")


async def _save_upload(request: Request, target: Path) -> None:
    """Write the body, or the first file of a form, to a file; never under the client's name."""
    chunks = _read(request, LARGEST_FILE)
    with target.open("wb") as file:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            async for chunk in chunks:
                file.write(chunk)
            return
        try:
            form = await MultiPartParser(request.headers, chunks, max_files=1).parse()
        except (MultiPartException, LookupError, ValueError):
            raise InputError("the form cannot be read; send one file in it.") from None
        uploads = [part for part in form.values() if isinstance(part, UploadFile)]
        if not uploads:
            raise InputError("the form has no file; send one as `file`.")
        await run_in_threadpool(shutil.copyfileobj, uploads[0].file, file)


async def _read(request: Request, limit: int) -> AsyncGenerator[bytes]:
    """The chunks of a body, as long as they are within the limit."""
    what = f"the body has more than {limit / 1e6:g} MB; send less, or `segmentation score` a file"
    told, taken = request.headers.get("content-length", ""), 0
    if told.isdigit() and int(told) > limit:
        raise HTTPException(413, what)
    async for chunk in request.stream():
        taken += len(chunk)
        if taken > limit:
            raise HTTPException(413, what)
        yield chunk


@router.get("/clusters")
async def list_clusters(request: Request) -> list[dict[str, Any]]:
    """Every segment: name, size, share, centre and profile in raw units, stability, actions."""
    return _take(request).model.describe_segments()


@router.get("/clusters/{cluster}")
async def show_cluster(request: Request, cluster: int) -> dict[str, Any]:
    """One segment by its id; centre and profile are withheld of fewer than five customers."""
    segments = {segment["id"]: segment for segment in _take(request).model.describe_segments()}
    if cluster not in segments:
        raise HTTPException(404, "no segment has this id; GET /clusters lists them")
    return segments[cluster]


@router.get("/model")
async def show_model(request: Request) -> dict[str, Any]:
    """Which run answers, what it was trained on, which features it takes in which ranges."""
    return _take(request).model.about


@router.get("/health")
async def show_health(request: Request) -> dict[str, Any]:
    """200 when a verified model is loaded, else 503 with the reason and the mend."""
    model, state = _take(request).model, request.app.state
    return {
        "status": "ok",
        "run_id": model.about["run_id"],
        "newer_run_refused": state.shelf.reason or None,
        "refused_run": state.shelf.refused or None,
        "watching": state.watcher is not None and not state.watcher.done(),
        "looked_at": state.shelf.looked,
    }


@router.get("/metrics", include_in_schema=False)
async def show_metrics() -> Response:
    """Counts and durations for Prometheus."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _take(request: Request) -> Reader:
    """The model that answers; the reply names it."""
    shelf = request.app.state.shelf
    if shelf.loaded is None:
        raise Unavailable(shelf.reason)
    request.state.run = shelf.loaded.model.about["run_id"]
    return shelf.loaded


def _count(statuses: Mapping[str, int]) -> None:
    for status, count in statuses.items():
        CUSTOMERS.labels(status).inc(count)


# Pages -------------------------------------------------------------------------------------


@router.get("/", include_in_schema=False)
async def show_page() -> Response:
    """The page for people; all that it shows it asks of the API."""
    return FileResponse(WEB / "page.html")


@router.get("/docs", include_in_schema=False)
async def show_docs() -> Response:
    """The API's documentation, to be tried out."""
    policy = CSP.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
    return FileResponse(WEB / "docs.html", headers={"Content-Security-Policy": policy})


@router.get("/static/style.css", include_in_schema=False)
async def send_style() -> Response:
    """The design of reports and pages."""
    return Response(str(stylesheet()), media_type="text/css")


@router.get("/map", include_in_schema=False)
async def show_map(request: Request) -> dict[str, Any]:
    """What the page draws: customers, without ids and without segments under five; the verdict."""
    model = _take(request).model
    try:
        return await run_in_threadpool(_describe_map, model)
    except (ValueError, LookupError, OSError) as error:
        reason = str(error) if isinstance(error, InputError) else f"the map is unsound; {MEND}"
        raise Unavailable(reason) from None


@lru_cache(2)
def _describe_map(model: Model) -> dict[str, Any]:
    for name in ("card.yaml", "tables/clustered_data.csv", "tables/selection.json"):
        model.check_file(name)
    verdict = words.find_verdict(Run(model.folder).read_json("selection.json"))
    outlines = [OUTLINES[find_look(segment["colour"])] for segment in model.segments]
    return describe_points(model.folder) | {"verdict": verdict, "outlines": outlines}


# What is wrong -----------------------------------------------------------------------------


async def _refuse(_: Request, error: Exception) -> Response:
    """422: each problem with its row (or line), its field, what is wrong and what is allowed."""
    if isinstance(error, RequestValidationError):
        told = [Problem(None, str(e["loc"][-1]), e["msg"], "") for e in error.errors()]
        error = Refusal(*told)
    elif not isinstance(error, Refusal):
        error = Refusal(*(Problem(None, None, line, "") for line in str(error).splitlines()))
    content = {"detail": error.details, "count": error.count}
    return Response(to_json(content), 422, media_type="application/json")


async def _excuse(_: Request, error: Exception) -> Response:
    """503: why there is no model, and the mend."""
    reason = str(error)
    what, __, mend = reason.rstrip(".").rpartition("; ")
    told = {"status": "unavailable", "reason": what or reason, "mend": mend, "detail": reason}
    return Response(to_json(told), 503, {"Retry-After": "5"}, "application/json")


async def _forget(_: Request, __: Exception) -> Response:
    """400: the client went away in the midst of its request; nobody reads this but the log."""
    return Response(status_code=400)


# Watching ----------------------------------------------------------------------------------


class Body:
    """The body of a request as it comes in: bounded in time, and read to its end."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        self.length = int(length) if length.isdigit() else 0
        self.more = self.length > 0 or b"transfer-encoding" in headers
        self.waits = b"expect" in headers  # it is not sent before it is asked for
        self.receive, self.taken, self.since = receive, 0, time.monotonic()

    async def take(self) -> Message:
        """The next message; 408 where the body came too slowly until now."""
        if not self.more:
            return await self.receive()
        left = self.since + PATIENCE + self.taken / SLOWEST - time.monotonic()
        try:
            async with asyncio.timeout(left):
                message = await self.receive()
        except TimeoutError:
            self.more = False
            raise HTTPException(408, "the body came too slowly", {"Connection": "close"}) from None
        self.taken += len(message.get("body", b""))
        self.more = message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read what is left before an answer that does without it, unless that is very much."""
        if self.length > DRAINED or (self.waits and not self.taken):
            return
        with suppress(TimeoutError, HTTPException):
            async with asyncio.timeout(DRAINING):
                while self.more and self.taken < DRAINED:
                    await self.take()


class Watch:
    """Gives every request an id, safe headers, a line in the log and its place in the metrics."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        name = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        started, status, body = time.perf_counter(), 0, Body(scope, receive)

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                if body.more:
                    await body.drain()
                status = message["status"]
                own = {key for key, _ in message["headers"]}
                message["headers"] += [pair for pair in HEADERS if pair[0] not in own]
                message["headers"].append((b"x-request-id", name))
                if run := scope["state"].get("run"):
                    message["headers"].append((RUN, quote(run, safe=" ").encode()))
            await send(message)

        try:
            await self.app(scope, body.take, watch)
        except asyncio.CancelledError:  # the server is stopped, and waits no longer
            if status:
                raise
            body.more = False
            excuse = await _excuse(Request(scope), Unavailable(STOPPED))
            await excuse(scope, body.take, watch)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in METHODS else "other"
            status = status or 500
            REQUESTS.labels(method, route, status).inc()
            SECONDS.labels(route).observe(seconds)
            log.info("%s %s %d %.1f ms %s", method, route, status, 1e3 * seconds, name.decode())


# The app -----------------------------------------------------------------------------------


class Service(FastAPI):
    """The app; its OpenAPI is of the model that is loaded."""

    def openapi(self) -> dict[str, Any]:
        """What FastAPI finds in the routes, with the loaded model's row and examples that run."""
        self.openapi_schema = None
        api, reader = super().openapi(), self.state.shelf.loaded
        schemas = api["components"]["schemas"]
        schemas["Customer"] = reader.schema if reader else {"type": "object"}
        if reader:
            example = reader.answer(to_json(reader.model.describe_typical()))[0]
            schemas["Answer"]["example"] = from_json(example)
            known = [str(segment[key]) for segment in reader.model.segments for key in KEYS]
            choice = api["paths"]["/predict_file"]["post"]["parameters"][0]
            choice["schema"]["enum"] = ["", *known]
        return api


def create_app() -> FastAPI:
    """The service for an ASGI server of one's own; the environment says which run, which hosts.

    `SEGMENTATION_RUN` is the run's folder (default: outputs/latest), `SEGMENTATION_ALLOWED_HOST`
    names that clients may call it by besides localhost, with spaces between.
    """
    run = os.environ.get("SEGMENTATION_RUN") or ROOT / "outputs/latest"
    return build_app(Path(run), os.environ.get("SEGMENTATION_ALLOWED_HOST", "").split())


def build_app(run: Path, hosts: Iterable[str] = ()) -> FastAPI:
    """The service on a run's folder, or on the link `latest`, which it follows.

    It answers to the names of this machine and to `hosts`; `*.example.com` is any name below, `*`
    any at all.
    """
    app = Service(
        title="Customer segments",
        description=DESCRIPTION,
        version=__version__,
        servers=[{"url": "."}],  # beside openapi.json, whatever path a proxy puts before it
        root_path_in_servers=False,
        docs_url=None,
        redoc_url=None,
        lifespan=_watch_runs,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={
            InputError: _refuse,
            RequestValidationError: _refuse,
            Unavailable: _excuse,
            ClientDisconnect: _forget,
        },
    )
    app.state.shelf, app.state.watcher = Shelf(run), None
    app.state.files = asyncio.Semaphore(FILES_AT_ONCE)
    app.state.batches = asyncio.Semaphore(BATCHES_AT_ONCE)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=WEB, packages=[("fastapi_offline", "static")]))
    allowed = [*LOOPBACK, *hosts]
    if odd := [name for name in allowed if not HOST.fullmatch(name)]:
        raise InputError(f"{odd[0]} is no host; give a name without a port, *.example.com or *.")
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False)
    app.add_middleware(Watch)
    return app


@asynccontextmanager
async def _watch_runs(app: FastAPI) -> AsyncIterator[None]:
    """Look for a newly published run twice a second as long as the service is up."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(LOOKS_EVERY)
            with suppress(RuntimeError):  # no thread to be had: then at the next look
                await run_in_threadpool(app.state.shelf.look)

    app.state.watcher = asyncio.create_task(watch())
    yield
    app.state.watcher.cancel()
