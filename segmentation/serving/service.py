"""The scoring service: one row, now; a page for people, an API for programs, metrics for both."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fastapi_offline
import msgspec
import numpy as np
import yaml
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segmentation import InputError, __version__, words
from segmentation.palette import OUTLINES, PALETTE, find_look
from segmentation.reports import explorer
from segmentation.reports import pages as reports
from segmentation.runs import folder as runs
from segmentation.segments.scorer import STATUSES
from segmentation.serving import batch as scoring
from segmentation.serving import payloads
from segmentation.serving.batch import Model, Refusal

LARGEST_BODY, LARGEST_FILE = 4_000_000, 100_000_000
"""Bytes of a JSON body and of a file that are taken; a larger one is answered with 413."""

WORTH_A_THREAD = 500_000
"""Bytes of a JSON body from which on others should not wait until it is answered."""

FILES_AT_ONCE = 2
LOOKS_EVERY = 0.5  # seconds between two looks for a newly published run
WEB = Path(__file__).parent / "web"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DOCS_CSP = CSP.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
RUN = "X-Segmentation-Run"
REQUEST_ID = re.compile(rb"[\w.-]{1,64}")
METHODS = {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"}
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
GRACE = 10
"""Seconds that a stopping service gives to what is being answered."""

OFFLINE = Path(fastapi_offline.__file__).parent / "static"
ASSETS = {
    **dict.fromkeys(("page.js", "customer.js", "file.js", "map.js", "elements.js"), WEB),
    **dict.fromkeys(("page.css", "docs.js", "icon.svg"), WEB),
    **{"style.css": reports.TEMPLATES},
    **dict.fromkeys(("swagger-ui-bundle.js", "swagger-ui.css"), OFFLINE),
}
"""What the pages load, and the folder where it is."""

KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

log = logging.getLogger("segmentation.service")


class Unavailable(Exception):
    """There is no model to answer with."""


class TooLarge(Exception):
    """A body has more bytes than are taken."""


class Shelf:
    """Holds the model of the newest published run; a new one replaces it in one step.

    What is being answered keeps the model that it began with. A run that cannot be verified
    replaces nothing: the last good model stays, and `reason` says why.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.reason = run, ""
        self.loaded: tuple[Model, payloads.Reader] | None = None
        self._seen: tuple[Path, int] | None = None
        self.look()

    def look(self) -> None:
        """Load the run's model where it is not the one that was seen last."""
        try:
            seen = self.run.resolve(), (self.run / "run.json").stat().st_mtime_ns
        except OSError:
            seen = None
        if seen is not None and seen == self._seen:
            return
        self._seen = seen
        try:
            model = scoring.load_model(self.run)
            reader = payloads.Reader(model.scorer)
            _try(model, reader)  # compiles, once
            self.loaded, self.reason = (model, reader), ""
            log.info("run %s: model loaded", model.run_id)
        except InputError as error:
            if str(error) != self.reason:
                log.error("%s", error)
            self.reason = str(error)

    def take(self) -> tuple[Model, payloads.Reader]:
        """The model and its reader."""
        if self.loaded is None:
            raise Unavailable(self.reason)
        return self.loaded


# Routes ------------------------------------------------------------------------------------

router = APIRouter()


def _shelf(request: Request) -> Shelf:
    return request.app.state.shelf


@router.post("/predict")
@router.post("/predict_cluster")
async def predict(request: Request) -> Response:
    """The segment of one customer (an object) or of up to 10 000 (a list), in the same order."""
    model, reader = _shelf(request).take()
    body = b"".join([chunk async for chunk in _read(request, LARGEST_BODY)])
    if len(body) > WORTH_A_THREAD:
        content, counts = await run_in_threadpool(_answer, model, reader, body)
    else:
        content, counts = _answer(model, reader, body)
    request.app.state.metrics.count_customers(counts)
    return Response(content, headers={RUN: model.run_id}, media_type="application/json")


def _answer(model: Model, reader: payloads.Reader, body: bytes) -> tuple[bytes, dict[str, int]]:
    """The answer to a body, and how many customers have which status."""
    inquiry = reader.read(body)
    scores = model.scorer.score(inquiry.values, inquiry.codes)
    answers = payloads.answer(inquiry, scores, model)
    counts = np.bincount(scores.status, minlength=len(STATUSES)).tolist()
    content = msgspec.json.encode(answers if inquiry.many else answers[0])
    return content, dict(zip(STATUSES, counts, strict=True))


def _try(model: Model, reader: payloads.Reader) -> tuple[bytes, dict[str, int]]:
    """The answer to a typical customer."""
    return _answer(model, reader, msgspec.json.encode(payloads.describe_typical(model.scorer)))


@router.post("/predict_file")
async def predict_file(request: Request, segment: str = "") -> Response:
    """The CSV with segment columns; as the body itself, or as a file of a form.

    `segment` keeps the customers of one segment, by its name or id.
    """
    model, _ = _shelf(request).take()
    folder = TemporaryDirectory(prefix="segmentation-")
    try:
        source, target = Path(folder.name) / "customers.csv", Path(folder.name) / "scored.csv"
        await _save_upload(request, source)
        async with request.app.state.files:
            score = partial(scoring.score_file, source, target, model, segment=segment)
            tally = await run_in_threadpool(score)
    except BaseException:
        folder.cleanup()
        raise
    request.app.state.metrics.count_customers(tally.statuses)
    return FileResponse(
        target,
        filename="scored.csv",
        media_type="text/csv; charset=utf-8",
        headers={RUN: model.run_id, **_count(tally, len(model.segments))},
        background=BackgroundTask(folder.cleanup),
    )


def _count(tally: scoring.Tally, segments: int) -> dict[str, str]:
    """A tally as headers: the customers, how many of which segment (in order) and status."""
    counts = {"segments": [tally.segments[i] for i in range(segments)], "statuses": tally.statuses}
    told = msgspec.json.encode(counts).decode()
    return {"X-Segmentation-Rows": str(tally.rows), "X-Segmentation-Tally": told}


async def _save_upload(request: Request, target: Path) -> None:
    """Write the body, or the first file of a form, to a file; never under the client's name."""
    chunks = _read(request, LARGEST_FILE)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        try:
            form = await MultiPartParser(request.headers, chunks, max_files=1).parse()
        except (MultiPartException, KeyError):
            raise InputError("the form cannot be read; send one file in it.") from None
        uploads = [part for part in form.values() if isinstance(part, UploadFile)]
        if not uploads:
            raise InputError("the form has no file; send one as `file`.")
        with target.open("wb") as file:
            while chunk := await uploads[0].read(1 << 20):
                file.write(chunk)
        return
    with target.open("wb") as file:
        async for chunk in chunks:
            file.write(chunk)


async def _read(request: Request, limit: int) -> AsyncGenerator[bytes]:
    """The chunks of a body, as long as they are within the limit."""
    told, taken = request.headers.get("content-length", ""), 0
    if told.isdigit() and int(told) > limit:
        raise TooLarge(limit)
    async for chunk in request.stream():
        taken += len(chunk)
        if taken > limit:
            raise TooLarge(limit)
        yield chunk


@router.get("/clusters")
async def list_clusters(request: Request) -> Response:
    """Every segment: name, size, share, centre and profile in raw units, stability, actions."""
    model, _ = _shelf(request).take()
    return _reply(model, model.describe_segments())


@router.get("/clusters/{cluster}")
async def show_cluster(request: Request, cluster: int) -> Response:
    """One segment by its id."""
    model, _ = _shelf(request).take()
    for segment in model.describe_segments():
        if segment["id"] == cluster:
            return _reply(model, segment)
    raise HTTPException(404, "no segment has this id; GET /clusters lists them")


@router.get("/model")
async def show_model(request: Request) -> Response:
    """Which run answers, what it was trained on, which features it takes in which ranges."""
    model, _ = _shelf(request).take()
    return _reply(model, model.describe())


@router.get("/health")
async def show_health(request: Request) -> Response:
    """200 when a verified model is loaded, else 503 with the reason and the mend."""
    shelf = _shelf(request)
    if shelf.loaded is None:
        return _tell_unavailable(shelf.reason)
    model, _ = shelf.loaded
    told = {"status": "ok", "run_id": model.run_id, "newer_run_refused": shelf.reason or None}
    return _reply(model, told)


def _tell_unavailable(reason: str) -> Response:
    what, _, mend = reason.rstrip(".").rpartition("; ")
    told = {"status": "unavailable", "reason": what or reason, "mend": mend, "detail": reason}
    return Response(msgspec.json.encode(told), 503, {"Retry-After": "5"}, "application/json")


def _reply(model: Model, content: Any) -> Response:
    body = msgspec.json.encode(content)
    return Response(body, headers={RUN: model.run_id}, media_type="application/json")


@router.get("/metrics")
async def show_metrics(request: Request) -> Response:
    """Counts and durations for Prometheus."""
    registry = request.app.state.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


# Pages -------------------------------------------------------------------------------------


@router.get("/")
async def show_page() -> Response:
    """The page for people; all that it shows it asks of the API."""
    return _send_page("page.html", CSP)


@router.get("/docs")
async def show_docs() -> Response:
    """The API's documentation, to be tried out."""
    return _send_page("docs.html", DOCS_CSP)


def _send_page(name: str, policy: str) -> Response:
    headers = {"Content-Security-Policy": policy}
    return Response((WEB / name).read_bytes(), headers=headers, media_type="text/html")


@router.get("/map")
async def show_map(request: Request) -> Response:
    """What the page draws: customers, without ids and without segments under five; the verdict."""
    model, _ = _shelf(request).take()
    return _reply(model, await run_in_threadpool(_describe_map, model))


@lru_cache(2)
def _describe_map(model: Model) -> dict[str, Any]:
    for name in ("tables/clustered_data.csv", "tables/k_selection.csv"):
        runs.check_file(model.folder, model.manifest, name, mend=scoring.MEND)
    choices = runs.Run(model.folder).read_table("k_selection.csv").set_index("k", drop=False)
    verdict = words.find_verdict(model.manifest["verdict"], choices.loc[model.manifest["k"]])
    outlines = [OUTLINES[find_look(segment["colour"])] for segment in model.segments]
    return explorer.describe_points(model.folder) | {"verdict": verdict, "outlines": outlines}


@router.get("/static/{name}")
async def send_asset(name: str) -> Response:
    """A script or style of the pages; there are just these."""
    if name not in ASSETS:
        raise HTTPException(404, "no such file")
    content = await run_in_threadpool(_read_asset, name)
    return Response(content, media_type=KINDS[Path(name).suffix])


@lru_cache
def _read_asset(name: str) -> bytes:
    content = (ASSETS[name] / name).read_bytes()
    colours = "".join(f"--segment-{i}:{c};" for i, c in enumerate(PALETTE)).encode()
    return b":root{" + colours + b"}\n" + content if name == "style.css" else content


# What is wrong -----------------------------------------------------------------------------


def _refuse(_: Request, error: Exception) -> Response:
    """422: each problem with its row (or line), its field, what is wrong and what is allowed."""
    if isinstance(error, Refusal):
        told = {"detail": error.details, "count": error.count}
    elif isinstance(error, RequestValidationError):
        parts = [(str(e["loc"][-1]), e["msg"]) for e in error.errors()]
        told = {"detail": [_detail(field, text, "") for field, text in parts], "count": len(parts)}
    else:
        lines = str(error).splitlines()
        told = {"detail": [_detail(None, line, "") for line in lines[:20]], "count": len(lines)}
    return Response(msgspec.json.encode(told), 422, media_type="application/json")


def _detail(field: str | None, message: str, allowed: str) -> dict[str, Any]:
    return {"row": None, "field": field, "message": message, "allowed": allowed}


def _refuse_size(_: Request, error: Exception) -> Response:
    limit = error.args[0]
    told = f"the body has more than {limit / 1e6:g} MB; send less, or `segmentation score` a file"
    return Response(msgspec.json.encode({"detail": told}), 413, media_type="application/json")


def _excuse(_: Request, error: Exception) -> Response:
    return _tell_unavailable(str(error))


HANDLERS: dict[type[Exception], Any] = {
    **dict.fromkeys((Refusal, InputError, RequestValidationError), _refuse),
    TooLarge: _refuse_size,
    Unavailable: _excuse,
}


# Watching ----------------------------------------------------------------------------------


class Metrics:
    """What Prometheus may ask: requests, their durations, customers by status; nobody's data."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        options: Any = {"registry": self.registry, "namespace": "segmentation"}
        self._requests = Counter("requests", "Requests answered", labels, **options)
        self._seconds = Histogram(
            "request_seconds", "Seconds to the answer", ("route",), buckets=BUCKETS, **options
        )
        self._customers = Counter("customers", "Customers scored", ("status",), **options)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request and its duration."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def count_customers(self, statuses: Mapping[str, int]) -> None:
        """Count customers that were scored."""
        for status, count in statuses.items():
            if count:
                self._customers.labels(status).inc(count)


class Watch:
    """Gives every request an id, safe headers, a line in the log and its place in the metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        name = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        started, status = time.perf_counter(), 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {key for key, _ in message["headers"]}
                message["headers"] += [pair for pair in HEADERS if pair[0] not in own]
                message["headers"].append((b"x-request-id", name))
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.count_request(method, route, status, seconds)
            log.info("%s %s %d %.1f ms %s", method, route, status, 1e3 * seconds, name.decode())


# The app -----------------------------------------------------------------------------------


def build_app(run: Path) -> FastAPI:
    """The service on a run's folder, or on the link `latest`, which it follows."""
    app = FastAPI(
        title="Customer segments",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=_watch_runs,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.shelf, app.state.metrics = Shelf(run), Metrics()
    app.state.files = asyncio.Semaphore(FILES_AT_ONCE)
    app.include_router(router)
    app.add_middleware(Watch, metrics=app.state.metrics)
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.openapi = lambda: describe_api(app.state.shelf)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _watch_runs(app: FastAPI) -> AsyncIterator[None]:
    """Look for a newly published run twice a second as long as the service is up."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(LOOKS_EVERY)
            await run_in_threadpool(app.state.shelf.look)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def describe_api(shelf: Shelf) -> dict[str, Any]:
    """OpenAPI 3.1 for the model that is loaded: its columns, their ranges, examples that run."""
    api: dict[str, Any] = yaml.safe_load((WEB / "openapi.yaml").read_text("utf-8"))
    api["info"]["version"] = __version__
    schemas, paths = api["components"]["schemas"], api["paths"]
    schemas["Customer"] = {"type": "object"}
    if shelf.loaded:
        model, reader = shelf.loaded
        schemas["Customer"] = payloads.describe_row(model.scorer)
        schemas["Answer"]["example"] = msgspec.json.decode(_try(model, reader)[0])
        known = [str(segment[key]) for segment in model.segments for key in scoring.KEYS]
        paths["/predict_file"]["post"]["parameters"][0]["schema"]["enum"] = ["", *known]
    return api


def serve(run: Path, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until a signal stops it; what is being answered is finished first.

    Raises
    ------
    InputError
        The address cannot be had.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            text = getattr(error, "strerror", "") or str(error)
            raise InputError(f"{host}:{port}: {text}; name another by --host or --port.") from None
        config = uvicorn.Config(
            build_app(run),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        log.info("http://%s:%d/", host, listener.getsockname()[1])
        uvicorn.Server(config).run([listener])
