"""The explorer: what its page holds, and what it does in a browser with no network."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from browsing import CONTRASTS, find_violations, watch
from bs4 import BeautifulSoup
from PIL import Image, ImageColor, PngImagePlugin
from playwright.sync_api import Browser, Page
from sample_run import make_manifest

from segmentation.customers import cards
from segmentation.palette import PALETTE
from segmentation.reports import describe_points, drawings, write_explorer
from segmentation.runs import Run

NAMES = (
    "</script><script>alert(1)</script>",
    "<a href='javascript:alert(1)'>click</a><br>%{text} $x^2$ &lt;b&gt;",
    "<img src=x onerror=alert(1)> \u202eright to left\u202c 👩‍👩‍👧 שלום",
    "Secret four",
)
LABELS = (
    "<b>Age</b> %{x} $a$ &amp; <!--",
    "=1+1 </script><script>alert(2)</script>",
    "<i>A label of sixty characters</i> with <br> and <sub>more</sub>",
)
UNITS = ("years", "<u>k$</u>", "")
REGION = "<b>Region</b>"
LEVELS = ("<s>North</s>", "South")
POLICY = (
    r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    r"script-src 'sha256-([\w+/=]{44})' 'sha256-([\w+/=]{44})'; base-uri 'none'; form-action 'none'"
)
FINDING = "Two groups apart & a third <between> them."


def make_customers(sizes: tuple[int, ...], features: int = 3) -> pd.DataFrame:
    """Customers in round groups, far apart on the first and the last feature, with ids."""
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    table = pd.DataFrame({"id": [f"ID-{i:06d}" for i in range(len(cluster))]})
    for i, label in enumerate(LABELS[:features]):
        apart = 0 if i == 1 else 40 * np.cos(cluster + i)
        table[label] = (rng.normal(50, 4, len(cluster)) + apart).round(1)
    table[REGION] = rng.choice(LEVELS, len(cluster))
    table.loc[10:12, REGION] = "few are here"
    return table.assign(cluster=pd.array(cluster, dtype="Int64"), confidence=0.5, status="ok")


def make_run(folder: Path, customers: pd.DataFrame, **told: Any) -> Path:
    """A run's folder with what the explorer reads, and its page; `told` goes into the card."""
    for name in ("figures", "reports"):
        (folder / name).mkdir()
    run, labels = Run(folder), customers.select_dtypes("float").columns.drop("confidence")
    run.save_table(customers, "clustered_data.csv")
    centres = customers.groupby("cluster")[labels].mean().to_dict("records")
    sizes = customers["cluster"].value_counts().sort_index().tolist()
    segments = [
        {"id": i, "name": NAMES[i], "size": size, "colour": PALETTE[i], "centre": centre}
        for i, (size, centre) in enumerate(zip(sizes, centres, strict=True))
    ]
    run.save_json(segments, "segments.json")
    features = {label: {"unit": unit} for label, unit in zip(labels, UNITS, strict=False)}
    card = {"title": "T", "table": "t.csv", "features": features}
    card |= {"descriptors": {REGION: {}}} if REGION in customers else {}
    (folder / "card.yaml").write_text(yaml.safe_dump(card | told, sort_keys=False), "utf-8")
    words = PngImagePlugin.PngInfo()
    words.add_itxt("Description", FINDING)
    picture = folder / "figures/segments_map.png"
    Image.new("RGB", (40, 30), "white").save(picture, pnginfo=words)
    write_explorer(folder, make_manifest(title=NAMES[0]))
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run whose every text wants to be more than text."""
    customers = make_customers((30, 20, 10, 4))
    customers.loc[0, ["cluster", "status"]] = [pd.NA, "dropped"]
    customers.loc[1, LABELS[0]] = np.nan
    return make_run(tmp_path_factory.mktemp("hostile"), customers) / "reports/explore.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with two features and 8,000 customers."""
    customers = make_customers((6_000, 2_000), features=2)
    return make_run(tmp_path_factory.mktemp("large"), customers) / "reports/explore.html"


def read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def read_data(page: BeautifulSoup) -> dict:
    return json.loads(page.find(id="customers").string)


# What the page holds -----------------------------------------------------------------------


def test_only_the_two_scripts_of_the_policy_can_run(hostile: Path) -> None:
    page = read(hostile)
    policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    data, *scripts = page.find_all("script")
    assert data["type"] == "application/json"
    assert all(script.attrs == {} for script in scripts)
    hashes = [hashlib.sha256(script.string.encode()).digest() for script in scripts]
    named = re.fullmatch(POLICY, policy)
    assert named
    assert [base64.b64encode(digest).decode() for digest in hashes] == list(named.groups())


def test_texts_stay_texts_and_nothing_leads_elsewhere(hostile: Path) -> None:
    page = read(hostile)
    assert [segment["name"] for segment in read_data(page)["segments"]] == list(NAMES[:3])
    assert [axis["label"] for axis in read_data(page)["axes"]] == list(LABELS)
    assert page.h1
    assert [name.string for name in page.find_all("bdi")] == list(NAMES[:3])
    assert page.find("img", id=None)["alt"] == FINDING
    tags = page.find_all(True)
    assert not [tag for tag in tags if any(name.startswith("on") for name in tag.attrs)]
    addresses = [tag.get("src") or tag.get("href") for tag in tags]
    assert {re.sub(",.*", "", address) for address in addresses if address} == {
        "data:image/png;base64", "index.html", "report.html", "explore.html"
    }  # fmt: skip


def test_it_shows_neither_ids_nor_the_order_of_the_table_nor_small_segments(hostile: Path) -> None:
    page, text = read(hostile), hostile.read_text(encoding="utf-8")
    table = Run(hostile.parents[1]).read_table("clustered_data.csv")
    first = read_data(page)["segments"][1]["rows"]
    own = table.loc[table["cluster"] == 1, list(LABELS)].to_numpy().tolist()
    shown = [row[: len(LABELS)] for row in first]
    assert "ID-0" not in text
    assert sorted(shown) == sorted(own)
    assert shown != own
    assert NAMES[3] not in text
    opening = page.find(class_="opening").get_text(" ", strip=True)
    assert "59 of 63 customers, each a point." in opening
    assert "1 segment with fewer than 5 customers is not shown." in " ".join(opening.split())


def test_a_large_table_is_sampled_in_proportion_and_each_time_the_same(large: Path) -> None:
    page = read(large)
    assert "5,000 of 8,000 customers, drawn at random" in page.find(class_="answer").string
    rows = [len(segment["rows"]) for segment in read_data(page)["segments"]]
    assert sum(rows) == 5_000
    assert rows[0] == pytest.approx(3_750, abs=80)
    before = large.read_bytes()
    write_explorer(large.parents[1], make_manifest(title=NAMES[0]))
    assert large.read_bytes() == before


def test_it_opens_on_the_report_s_map(hostile: Path, large: Path, tmp_path: Path) -> None:
    def find_start(path: Path) -> list[str]:
        sides = read(path).find_all("select", class_="side")
        return [side.find("option", selected=True)["value"] for side in sides]

    assert find_start(hostile) == ["0", "2", "1"]
    assert find_start(large) == ["0", "1", "2"]
    assert read_data(read(large))["axes"][2]["title"] == "Confidence"
    run = make_run(tmp_path, make_customers((30, 20)), map=[LABELS[1], LABELS[0]])
    assert find_start(run / "reports/explore.html") == ["1", "0", "2"]


@pytest.mark.parametrize("told", [{}, {"transform": "log"}, {"outliers": "clip"}])
def test_its_map_is_the_report_s_without_a_map_too(tmp_path: Path, told: dict[str, str]) -> None:
    rng = np.random.default_rng(4)
    values = rng.lognormal(1, 1, (200, 5)) + np.arange(5)
    table = pd.DataFrame(values, columns=[*"abcde"]).assign(
        cluster=pd.array(rng.integers(0, 3, 200), dtype="Int64"), confidence=0.5, status="ok"
    )
    card = {"title": "T", "table": "t.csv", "features": dict.fromkeys("abcde", told)}
    run = make_run(tmp_path, table, **card)
    chosen = drawings.choose_map(table, cards.load_card(run / "card.yaml"))
    start = describe_points(run)["start"]
    assert ["abcde"[start[side]] for side in ("Horizontal", "Vertical")] == chosen


def test_descriptors_are_told_but_not_the_levels_of_few(hostile: Path) -> None:
    data = read_data(read(hostile))
    (region,) = data["descriptors"]
    assert region["label"] == REGION
    assert sorted(region["levels"]) == sorted(LEVELS)
    codes = [row[-1] for segment in data["segments"] for row in segment["rows"]]
    assert codes.count(-1) == 3
    assert "few are here" not in hostile.read_text("utf-8")
    assert data["colours"][-3:] == [*PALETTE[:3]]
    plain = describe_points(hostile.parents[1])
    assert plain["descriptors"] == []
    assert {len(row) for segment in plain["segments"] for row in segment["rows"]} == {3}


# What it does in a browser -----------------------------------------------------------------


Look = Callable[..., tuple[Page, list[str]]]


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Open a page in an offline window: the page, and what it does but should not."""
    windows = []

    def open_page(path: Path, width: int = 1280, **options: Any) -> tuple[Page, list[str]]:
        scheme = options.pop("color_scheme", "light")
        page, noticed = watch(browser, width, scheme, **options)
        windows.append(page.context)
        page.goto(path.as_uri())
        return page, noticed

    yield open_page
    for window in windows:
        window.close()


def wait_for(page: Page, find: Callable[[], Any]) -> Any:
    """What `find` finds, once it finds something."""
    until = time.monotonic() + 120
    while not (found := find()):
        assert time.monotonic() < until, "nothing was found"
        page.wait_for_timeout(50)
    return found


def find_colour(page: Page, colour: str) -> list[list[int]]:
    """The places (x, y) in the window where the drawing has this colour."""
    plot = page.locator("#plot")
    pixels = np.asarray(Image.open(BytesIO(plot.screenshot())).convert("RGB")).astype(int)
    box = plot.bounding_box()
    assert box
    near = np.abs(pixels - ImageColor.getrgb(colour)).max(axis=2) < 8
    return [[int(x + box["x"]), int(y + box["y"])] for y, x in np.argwhere(near)]


def count_points(page: Page) -> list[int]:
    """Points drawn in two dimensions, segment by segment."""
    groups = "groups => groups.map(group => group.querySelectorAll('path').length)"
    return page.locator("#plot .scatterlayer .points").evaluate_all(groups)


def find_fill(page: Page, what: str) -> str:
    """The colour that the first of these in the drawing is filled with."""
    fill = "node => getComputedStyle(node).fill"
    return page.locator(f"#plot {what}").first.evaluate(fill)


def find_surprises(noticed: list[str], path: Path) -> list[str]:
    """What a page did but should not have; what a graphics driver says is not the page's."""
    expected = (f"request {path.as_uri()}", "request data:image/png", "console [.WebGL-")
    return [notice for notice in noticed if not notice.startswith(expected)]


def test_points_are_drawn_and_segments_hidden_in_both_views(look: Look, hostile: Path) -> None:
    page, noticed = look(hostile)
    page.locator("#picture").wait_for(state="hidden")
    assert count_points(page) == [28, 20, 10]
    assert page.locator("#told").inner_text() == (
        "Showing 58 customers; 1 customer without a value on an axis left out."
    )
    boxes = page.get_by_role("checkbox")
    boxes.nth(1).uncheck()
    assert sum(count_points(page)) == 38
    page.get_by_role("button", name="3-D").click()
    wait_for(page, lambda: find_colour(page, PALETTE[0]))
    assert find_colour(page, PALETTE[2])
    assert not find_colour(page, PALETTE[1])
    boxes.nth(1).check()
    wait_for(page, lambda: find_colour(page, PALETTE[1]))
    for i in range(3):
        boxes.nth(i).uncheck()
    wait_for(page, lambda: not any(find_colour(page, colour) for colour in PALETTE[:3]))
    boxes.nth(2).check()
    wait_for(page, lambda: find_colour(page, PALETTE[2]))
    page.get_by_role("button", name="2-D").click()
    wait_for(page, lambda: sum(count_points(page)) == 10)
    assert find_surprises(noticed, hostile) == []


def test_texts_of_the_data_are_shown_as_they_are(look: Look, hostile: Path) -> None:
    page, noticed = look(hostile)
    label = page.locator("#label")
    page.locator("#picture").wait_for(state="hidden")
    assert page.locator("#plot .xtitle").text_content() == f"{LABELS[0]} (years)"
    assert page.locator("#plot .ytitle").text_content() == f"{LABELS[2][:43]}…"
    data = read_data(read(hostile))
    *row, code = data["segments"][1]["rows"][0]
    level = data["descriptors"][0]["levels"][code]
    figures = [f"{value:g} {unit}".strip() for value, unit in zip(row, UNITS, strict=True)]
    point = page.locator("#plot .points").nth(1).locator("path").first.bounding_box()
    assert point
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    label.wait_for()
    assert label.locator("p").text_content() == NAMES[1]
    assert label.locator("dt").all_text_contents() == [*LABELS, REGION]
    assert label.locator("dd").all_text_contents() == [*figures, level]
    names = page.locator("#plot .annotation-text").all_text_contents()
    assert "".join(names[1].split()).startswith("".join(NAMES[1].split())[:25])
    page.get_by_role("button", name="3-D").click()
    assert label.is_hidden()
    places = wait_for(page, lambda: find_colour(page, PALETTE[2]))
    page.mouse.move(*places[len(places) // 2])
    label.wait_for()
    assert label.locator("p").text_content() == NAMES[2]
    assert find_surprises(noticed, hostile) == []


def test_one_segment_or_level_is_shown_alone_and_axes_swap(look: Look, hostile: Path) -> None:
    page, _ = look(hostile)
    page.locator("#picture").wait_for(state="hidden")
    only = page.get_by_role("button", name=f"Only {NAMES[1]}", exact=True)
    only.click()
    assert count_points(page) == [20]
    assert page.locator("#plot .annotation-text").count() == 1
    data = read_data(read(hostile))
    codes = [row[-1] for row in data["segments"][1]["rows"]]
    page.locator("#only").select_option("[0, 1]")
    assert sum(count_points(page)) == codes.count(1)
    only.click()
    page.locator("#only").select_option("[]")
    assert sum(count_points(page)) == 58
    page.get_by_label("Colour by").select_option(label=REGION)
    drawn = {ImageColor.getrgb(colour) for colour in data["colours"][:2]}
    assert ImageColor.getrgb(find_fill(page, ".points path")) in drawn
    assert page.locator("#levels li").all_text_contents() == [
        *data["descriptors"][0]["levels"], "another, or not known"
    ]  # fmt: skip
    page.get_by_label("Horizontal axis").select_option("2")  # which was the vertical one
    assert page.get_by_label("Vertical axis").input_value() == "0"
    assert page.locator("#plot .ytitle").text_content() == f"{LABELS[0]} (years)"


def test_the_chart_is_in_the_first_window_and_dark_in_the_dark(look: Look, hostile: Path) -> None:
    page, _ = look(hostile, color_scheme="dark")
    page.locator("#picture").wait_for(state="hidden")
    for text in (".xtitle", ".xtick text", ".annotation-text"):
        assert min(ImageColor.getrgb(find_fill(page, text))) > 200, text
    assert not find_colour(page, "white")
    page.set_viewport_size({"width": 1280, "height": 800})
    box = page.locator(".stage").bounding_box()
    assert box
    assert box["y"] + box["height"] <= 800


@pytest.mark.parametrize("blocked", [False, True])
def test_without_scripts_the_picture_stands_in(
    look: Look, hostile: Path, tmp_path: Path, blocked: bool
) -> None:
    path = tmp_path / "explore.html"
    text = hostile.read_text(encoding="utf-8")
    path.write_text(text.replace("sha256-", "sha384-") if blocked else text, encoding="utf-8")
    page, noticed = look(path, java_script_enabled=blocked)
    page.wait_for_load_state()
    assert page.get_by_role("img", name=FINDING).is_visible()
    assert page.get_by_text("The interactive view needs scripts.").is_visible()
    assert page.locator("#explorer").is_hidden()
    assert "dialog" not in noticed


@pytest.mark.parametrize(
    ("view", "width", "scheme"),
    [
        pytest.param("3-D", 1280, "light", marks=pytest.mark.long),
        pytest.param("3-D", 390, "dark", marks=pytest.mark.long),
        ("2-D", 390, "dark"),
    ],
)
def test_everyone_can_use_it(look: Look, hostile: Path, view: str, width: int, scheme: str) -> None:
    page, _ = look(hostile, width, color_scheme=scheme)
    page.locator("#picture").wait_for(state="hidden")
    page.get_by_role("button", name=view).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRASTS) == []
    assert find_violations(page) == []
