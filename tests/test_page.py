"""The service's page: what people see and do there, in a browser that reaches only this machine."""

import contextlib
import io
import json
import re
import shlex
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import uvicorn
from browsing import CONTRASTS, PATIENCE, find_violations
from conftest import ROOT
from playwright.sync_api import Browser, Locator, Page, Route, expect
from starlette.types import ASGIApp, Receive, Scope, Send

from segmentation.runs import folder as runs
from segmentation.serving import batch as scoring
from segmentation.serving import service

CSV = ROOT / "data/raw/Mall_Customers.csv"
BAD = (
    "CustomerID,Age,Annual Income (k$),Spending Score (1-100)\n" + "1,20,30,400\n2,300,30,40\n" * 12
)
AGE, INCOME, SPENDING = "Age (years)", "Annual income (k$)", "Spending score (points)"
CUSTOMERS = {
    (20, 30, 80): "The customer is like those that the model was made from.",
    (37, 60, 44): "Borderline: so near to",
}
REFUSED = "Failed to load resource: the server responded with a status of 422"
NAMES = (
    "</script><script>alert(1)</script>",
    "\u202eright to left\u202c שלום <b>bold</b>",
    "\"quotes\" 'single' & &lt;b&gt; `${alert(2)}`",
    "<img src=x onerror=alert(3)> \U0001f469\u200d\U0001f469\u200d\U0001f467",
)
LABELS = (
    "<b>Age</b> \" onfocus=alert(4) x='",
    "<script>alert(5)</script>",
    "{{ 7 * 7 }} שלום <i>i</i>",
)


@contextmanager
def serve(folder: Path, prefix: str = "") -> Iterator[str]:
    """The service on a free port of this process, all of it under a path; its address."""
    app = service.build_app(folder)
    served = hide_prefix(app, prefix) if prefix else app
    server = uvicorn.Server(uvicorn.Config(served, log_config=None))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address(mall_model: Path) -> Iterator[str]:
    with serve(mall_model) as started:
        yield started


@pytest.fixture(scope="module")
def model(mall_model: Path) -> scoring.Model:
    return scoring.load_model(mall_model)


expect.set_options(timeout=PATIENCE)
Look = Callable[..., tuple[Page, list[str]]]


@pytest.fixture
def look(browser: Browser, address: str) -> Iterator[Look]:
    """Open a page that reaches this machine only: the page, and what it does but should not."""
    windows = []

    def open_page(
        path: str = "/",
        *,
        at: str = address,
        width: int = 1280,
        ready: str = "#lead .mark",
        **options: Any,
    ) -> tuple[Page, list[str]]:
        size = {"width": width, "height": 900}
        window = browser.new_context(viewport=size, **options)
        windows.append(window)
        window.set_default_timeout(PATIENCE)
        window.clock.install()
        page, noticed = window.new_page(), []

        def guard(route: Route) -> None:
            if route.request.url.startswith(f"{at}/"):
                return route.continue_()
            noticed.append(f"request {route.request.url}")
            return route.abort()

        window.route("**/*", guard)
        page.on("console", lambda message: noticed.append(message.text))
        page.on("pageerror", lambda error: noticed.append(f"error {error}"))
        page.on("dialog", lambda dialog: (noticed.append("dialog"), dialog.dismiss()))
        page.goto(f"{at}{path}")
        page.locator(ready).first.wait_for()
        return page, noticed

    yield open_page
    for window in windows:
        window.close()


def fill(page: Page, **figures: Any) -> None:
    for name, value in figures.items():
        label = {"age": AGE, "income": INCOME, "spending": SPENDING}[name]
        page.get_by_label(label, exact=True).fill(str(value))


def ask(address: str, customer: dict[str, Any]) -> dict[str, Any]:
    body, kind = json.dumps(customer).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/predict", data=body, headers=kind)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def find_point(page: Page) -> Locator:
    return page.locator("#plot .scored path")


# What it tells -----------------------------------------------------------------------------


def test_the_model_and_its_segments_are_told(look: Look, mall_model: Path) -> None:
    page, noticed = look()
    segments = json.loads((mall_model / "segments.json").read_text("utf-8"))
    expect(page.locator("h1")).to_have_text("200 customers fall into 4 segments")
    expect(page.locator("#verdict")).to_have_text(re.compile("Reproducible groups"))
    assert page.title() == "Mall customers – customer segments"
    cards = page.locator(".card")
    assert cards.locator("h3").all_inner_texts() == [s["name"] for s in segments]
    for card, segment in zip(cards.all(), segments, strict=True):
        size = f"{segment['size']} customers, {segment['share']:.1%}"
        expect(card.locator(".size")).to_have_text(size)
        shown = dict(
            zip(*(card.locator(tag).all_inner_texts() for tag in ("dt", "dd")), strict=True)
        )
        assert shown["Age"] == f"{segment['centre']['Age']:.1f}\u00a0years"
        assert f"in {segment['stability']['found']} of 20 draws" in card.inner_text()
        assert segment["actions"][0] in card.inner_text()
    assert noticed == []


def test_each_customer_is_a_marker_on_the_map(look: Look, mall_model: Path) -> None:
    page, _ = look()
    table = runs.Run(mall_model).read_table("clustered_data.csv")
    groups = page.locator("#plot .points")
    drawn = [groups.nth(i).locator("path").count() for i in range(groups.count())]
    assert drawn == table["cluster"].value_counts().sort_index().tolist()
    page.get_by_label("Horizontal axis").select_option(label=SPENDING)
    expect(page.get_by_label("Vertical axis")).to_have_value("1")
    expect(page.locator("#plot .axis").first).to_have_text(f"{SPENDING} →")
    page.locator("#map summary").click()
    own = table.loc[table["cluster"] == 0, "Annual Income (k$)"]
    told = f"Annual income from {own.min():g} to {own.max():g}\u00a0k$, with {own.median():g}"
    expect(page.locator("#words li").first).to_contain_text(told)


def test_pointing_tells_a_customer_and_a_card_highlights_its_segment(look: Look) -> None:
    page, _ = look()
    page.get_by_role("button", name="Show on the map: Older").click()
    faint = page.locator("#plot .points").evaluate_all(
        "groups => groups.map(group => group.classList.contains('faint'))"
    )
    assert faint == [False, True, True, True]
    expect(page.locator(".legend [aria-pressed=true]")).to_contain_text("Older")
    page.locator("#plot .points path").first.hover(force=True)
    expect(page.locator("#label p")).to_have_text("Older")
    expect(page.locator("#label dt")).to_have_text(["Annual income", "Spending score"])


# One customer ------------------------------------------------------------------------------


def test_a_customer_is_scored_as_one_types(look: Look, address: str, model: scoring.Model) -> None:
    page, noticed = look()
    for figures, sentence in CUSTOMERS.items():
        answer = ask(address, dict(zip(model.scorer.columns, figures, strict=True)))
        fill(page, **dict(zip(("age", "income", "spending"), figures, strict=True)))
        expect(page.locator("#reasons")).to_contain_text(sentence)
        expect(page.locator("#lead bdi")).to_have_text(answer["segment"])
        expect(page.locator("#reasons")).to_contain_text(f"Next comes “{answer['second']}”")
        meter = page.get_by_role("meter", name="Confidence")
        sure = max(answer["confidence"], 0.5)
        expect(meter).to_have_attribute("aria-valuenow", f"{sure:.2f}")
        box, dot = meter.bounding_box(), meter.locator("span").bounding_box()
        assert box
        assert dot
        place = (dot["x"] + dot["width"] / 2 - box["x"]) / box["width"]
        assert place == pytest.approx(2 * sure - 1, abs=0.01)
        labels = [model.scorer.card.features[why["feature"]].label for why in answer["why"]]
        expect(page.locator("#reasons dt")).to_have_text(labels)
        (colour,) = {s["colour"] for s in model.segments if s["id"] == answer["cluster"]}
        expect(find_point(page)).to_have_attribute("fill", colour)
    assert noticed == []


def test_it_starts_with_a_typical_customer_and_no_one_s_row(look: Look) -> None:
    page, _ = look()
    fields = [page.get_by_label(label, exact=True) for label in (AGE, INCOME, SPENDING)]
    table = pd.read_csv(CSV).iloc[:, -3:]
    assert [float(field.input_value()) for field in fields] == table.median().tolist()
    assert not (table == table.median()).all(axis=1).any()


def test_a_customer_outside_is_told_no_action(look: Look, model: scoring.Model) -> None:
    page, _ = look()
    actions = {action for segment in model.segments for action in segment["actions"]}
    assert any(action in page.locator("#result").inner_text() for action in actions)
    fill(page, age=40, income=900, spending=10)
    expect(page.locator("#lead")).to_have_text("Unlike all segments")
    told = page.locator("#result").inner_text()
    assert "Annual income, 900\u00a0k$, lies beyond the data, 15 to 137\u00a0k$." in told
    assert not any(action in told for action in actions)
    assert page.get_by_role("meter").count() == 0


def test_wrong_figures_are_told_at_their_fields(look: Look) -> None:
    page, noticed = look()
    fill(page, income="many", spending=101)
    fields = [page.get_by_label(label, exact=True) for label in (AGE, INCOME, SPENDING)]
    faults = [
        "",
        "Annual income is not a number. Allowed: a number from 0 to 10000 k$.",
        "Spending score is out of range. Allowed: a number from 1 to 100 points.",
    ]
    for field, fault in zip(fields, faults, strict=True):
        told = (field.get_attribute("aria-describedby") or "").split()[-1]
        expect(page.locator(f"#{told}")).to_have_text(fault)
        expect(field).to_have_attribute("aria-invalid", str(bool(fault)).lower())
    expect(page.locator("#lead")).to_contain_text("No answer yet")
    expect(find_point(page)).to_have_count(0)
    fill(page, income="", spending=100)
    expect(page.locator("#reasons")).to_contain_text("What is empty is taken as typical")
    assert page.get_by_role("alert").all_inner_texts() == [""] * 4
    assert {re.sub(r" \(.*", "", notice) for notice in noticed} == {REFUSED}


# A file ------------------------------------------------------------------------------------


def download(page: Page) -> bytes:
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download scored.csv").click()
    assert waiting.value.suggested_filename == "scored.csv"
    return Path(waiting.value.path()).read_bytes()


def test_a_file_comes_back_scored(look: Look, model: scoring.Model, tmp_path: Path) -> None:
    page, noticed = look()
    page.evaluate(
        "new MutationObserver(() => { document.title += '|' + sent.textContent + progress.hidden })"
        ".observe(sent, { childList: true })"
    )
    page.get_by_label("Choose a CSV").set_input_files(CSV)
    target = tmp_path / "expected.csv"
    tally = scoring.score_file(CSV, target, model)
    assert download(page) == target.read_bytes()
    assert re.fullmatch(
        r".*\|Sending Mall_Customers.csv …false(\|Scoring Mall_Customers.csv …false)?\|200 .*true",
        page.title(),
    )
    known = f"{tally.statuses['outside']} outside what the model knows"
    odd = f"{tally.statuses['borderline']} borderline, {known}."
    expect(page.locator("#sent")).to_have_text(
        f"200 customers of Mall_Customers.csv are scored: {odd}"
    )
    counts = page.locator("#outcome tbody td.num:nth-child(2)").all_inner_texts()
    assert [int(text) for text in counts] == [tally.segments[i] for i in range(4)]
    assert noticed == []


def test_a_dropped_file_keeps_one_segment(look: Look) -> None:
    page, _ = look()
    page.get_by_label("Which customers to keep").select_option(label="Only Older")
    carried = page.evaluate_handle(
        "text => { const carried = new DataTransfer();"
        " carried.items.add(new File([text], 'drop.csv')); return carried }",
        CSV.read_text("utf-8"),
    )
    page.locator("#drop").dispatch_event("drop", {"dataTransfer": carried})
    kept = pd.read_csv(io.BytesIO(download(page)))
    assert set(kept["segment"]) == {"Older"}
    assert len(kept) == 65


def test_the_problems_of_a_file_are_told_by_line(look: Look) -> None:
    page, _ = look()
    upload = page.get_by_label("Choose a CSV")
    upload.set_input_files({"name": "bad.csv", "mimeType": "text/csv", "buffer": BAD.encode()})
    expect(page.locator("#sent")).to_have_text(
        "Nothing was scored: bad.csv has 24 problems, of which these are the first 20."
    )
    rows = page.locator("#outcome tbody tr")
    assert rows.count() == 20
    assert rows.nth(1).locator("td").all_inner_texts() == [
        *("3", "Age", "is out of range", "a number from 0 to 120 years")
    ]
    upload.set_input_files({"name": "a.csv", "mimeType": "text/csv", "buffer": b"Age\n1\n"})
    expect(page.locator("#outcome li")).to_contain_text("a.csv: column Annual Income (k$) is miss")


# Programs ----------------------------------------------------------------------------------


def test_the_examples_run(look: Look, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page, noticed = look(permissions=["clipboard-read", "clipboard-write"])
    monkeypatch.setenv("no_proxy", "*")
    texts = {}
    for language in ("curl", "Python", "JavaScript"):
        page.get_by_role("button", name=f"Copy the {language} example").click()
        expect(page.get_by_text("Copied.").nth(len(texts))).to_be_visible()
        texts[language] = page.evaluate("navigator.clipboard.readText()")
    command = shlex.split(texts["curl"].replace("\\\n", ""))
    assert command[:2] == ["curl", f"{address}/predict"]
    answer = ask(address, json.loads(command[-1]))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(texts["Python"], {})
    assert printed.getvalue().strip() == str(answer)
    page.evaluate(
        "async () => {" + texts["JavaScript"].replace("console.log", "window.got = ") + "}"
    )
    assert page.evaluate("window.got") == answer
    assert noticed == []


def hide_prefix(app: ASGIApp, prefix: str) -> ASGIApp:
    """The app as behind a proxy that gives it a path of its own and does not say so."""

    async def pass_on(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix(prefix)
            scope = scope | {"path": path if path != scope["path"] else "/nothing"}
        await app(scope, receive, send)

    return pass_on


@pytest.mark.parametrize("prefix", ["", "/some/path"])
def test_the_documentation_can_be_tried_out(look: Look, mall_model: Path, prefix: str) -> None:
    with serve(mall_model, prefix) as at:
        try_documentation(*look(f"{prefix}/docs", at=at, ready=".opblock"))


def try_documentation(page: Page, noticed: list[str]) -> None:
    page.locator(".opblock-summary-control").first.click()
    page.get_by_role("button", name="Execute").first.click()
    reply = page.locator(".live-responses-table").first
    expect(reply).to_contain_text('"segment": "Younger, low annual income"')
    assert noticed == []


# Everyone ----------------------------------------------------------------------------------


def test_keys_alone_lead_from_the_top_to_an_answer_and_a_card(look: Look) -> None:
    page, _ = look()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    seen: list[str] = []
    while not seen or seen[-1] != "field-0":
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outline) == "solid", seen
        assert len(seen) < 20
        if seen == ["light"]:
            page.keyboard.press("Enter")
    assert seen == ["light"] * 4 + ["field-0"]
    expect(page.locator(".card").first.get_by_role("button")).to_have_attribute(
        "aria-pressed", "true"
    )
    for value in ("20", "30", "80"):
        page.keyboard.press("Control+A")
        page.keyboard.type(value)
        page.keyboard.press("Tab")
    expect(page.get_by_role("status").filter(has_text="Younger, low")).to_contain_text("clear")
    page.locator("#plot").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#told")).to_contain_text("Older: Annual income 18\u00a0k$")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(360, "dark"), pytest.param(1280, "light", marks=pytest.mark.long)],
)
def test_everyone_can_use_it(look: Look, width: int, scheme: str) -> None:
    page, _ = look(width=width, color_scheme=scheme, reduced_motion="reduce")

    def check() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRASTS) == []
        assert find_violations(page) == []

    upload = page.get_by_label("Choose a CSV")
    upload.set_input_files(CSV)
    page.locator("#outcome table").wait_for()
    page.get_by_role("button", name="Show on the map: Older").click()
    check()
    if width > 360:
        return
    fill(page, age=300, income=900)
    upload.set_input_files({"name": "bad.csv", "mimeType": "text/csv", "buffer": BAD.encode()})
    expect(page.locator("#outcome tbody tr")).to_have_count(20)
    expect(page.locator("#lead")).to_contain_text("No answer yet")
    check()


# What may go wrong -------------------------------------------------------------------------


def test_without_a_model_it_waits_for_one(look: Look, mall_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "latest"
    with serve(folder) as at:
        page, noticed = look(at=at, ready=".banner")
        notice = page.locator("#notice")
        expect(notice).to_contain_text("There is no model to answer with.")
        expect(notice).to_contain_text("Run `segmentation run` first.")
        assert page.locator("#ready").is_hidden()
        assert find_violations(page, contrast=True) == []
        folder.symlink_to(mall_model)
        expect(page.locator("#lead .mark")).to_be_visible()
        expect(notice).to_be_empty()
        assert all("status of 503" in text for text in noticed)


def test_a_newer_run_that_is_refused_is_told(look: Look, mall_model: Path, tmp_path: Path) -> None:
    newer = shutil.copytree(mall_model, tmp_path / "newer")
    with (newer / "segments.json").open("a") as file:
        file.write(" ")
    link = tmp_path / "latest"
    link.symlink_to(mall_model)
    with serve(link) as at:
        link.unlink()
        link.symlink_to(newer)
        while not json.load(urllib.request.urlopen(f"{at}/health"))["newer_run_refused"]:
            time.sleep(0.1)
        page, noticed = look(at=at)
        expect(page.locator("#notice")).to_contain_text(
            "A newer run is not used: newer/segments.json is not the file that the run wrote"
        )
        assert noticed == []


def test_a_newer_model_is_offered(look: Look, mall_model: Path, tmp_path: Path) -> None:
    newer = shutil.copytree(mall_model, tmp_path / "newer")
    run = runs.Run(newer)
    run.seal(run.manifest.model_copy(update={"run_id": "the-next"}))
    link = tmp_path / "latest"
    link.symlink_to(mall_model)
    with serve(link) as at:
        page, noticed = look(at=at)
        link.unlink()
        link.symlink_to(newer)
        while json.load(urllib.request.urlopen(f"{at}/health"))["run_id"] != "the-next":
            time.sleep(0.1)
        page.clock.fast_forward(30_000)
        expect(page.locator("#notice")).to_contain_text("answers now, that of run the-next.")
        page.get_by_role("button", name="Show it").click()
        expect(page.locator("#origin code")).to_have_text("the-next")
        expect(page.locator("#notice")).to_be_empty()
        assert noticed == []


@pytest.fixture
def hostile(mall_model: Path, tmp_path: Path) -> Path:
    """A model whose every text wants to be more than text; one segment has three customers."""
    folder = shutil.copytree(mall_model, tmp_path / "hostile")
    segments = json.loads((folder / "segments.json").read_text("utf-8"))
    for segment, name in zip(segments, NAMES, strict=True):
        segment |= {"name": name, "actions": [name], "roles": [name]}
    segments[3] |= {"size": 3}
    figures = json.loads((folder / "artifacts/segmenter.json").read_text("utf-8"))
    for feature, label in zip(figures["features"], LABELS, strict=True):
        feature |= {"label": label, "unit": f"{label}."}
        figures["card"]["features"][feature["column"]] |= {"label": label, "unit": f"{label}."}
    (folder / "segments.json").write_text(json.dumps(segments), "utf-8")
    (folder / "artifacts/segmenter.json").write_text(json.dumps(figures), "utf-8")
    run = runs.Run(folder)
    run.seal(run.manifest.model_copy(update={"title": NAMES[0]}))
    return folder


def test_texts_of_a_hostile_model_stay_texts(look: Look, hostile: Path) -> None:
    with serve(hostile) as at:
        page, noticed = look(at=at, width=360)
        assert page.locator("#title").text_content() == NAMES[0]
        assert page.locator(".card h3").all_text_contents() == list(NAMES)
        expect(page.locator(".card").last).to_contain_text("Fewer than five customers")
        labels = [f"{label} ({label}.)" for label in LABELS]
        assert page.locator(".field label").all_text_contents() == labels
        page.locator("#field-0").fill("<img src=x onerror=alert(6)>")
        expect(page.locator("#field-0-fault")).to_contain_text(f"{LABELS[0]} is not a number.")
        page.locator("#field-0").fill("900")
        expect(page.locator("#field-0-fault")).to_contain_text("is out of range")
        page.get_by_label("Choose a CSV").set_input_files(CSV)
        page.locator("#outcome table").wait_for()
        page.locator("#plot").press("ArrowRight")
        assert page.locator("#label dt").all_text_contents() == [*LABELS[1:]]
        assert page.locator("body :is(img, b, i, [onfocus], [onerror])").count() == 0
        assert page.evaluate("document.scripts.length") == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert {re.sub(r" \(.*", "", notice) for notice in noticed} == {REFUSED}
