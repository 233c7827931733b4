"""A table that means harm goes through the whole series: every page and every CSV stays inert."""

import base64
import csv
import hashlib
import re

from agreement import Run, check_report, parse
from browsing import watch
from bs4 import BeautifulSoup
from hostile import LEVELS, SCRIPT

FORMULA = re.compile(r"[=+\-@\t\r](?![\d.,e+-]*$)")


def list_pages(run):
    return sorted((run / "reports").glob("*.html"))


def test_no_page_holds_anything_that_could_run_or_load(hostile):
    for path in list_pages(hostile):
        soup = BeautifulSoup(path.read_text("utf-8"), "html.parser")
        policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
        for script in soup.find_all("script"):
            if script.get("type") == "application/json":
                continue
            digest = base64.b64encode(hashlib.sha256(script.string.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
            assert path.name == "explore.html"
        for tag in soup.find_all(True):
            assert not [name for name in tag.attrs if name.startswith("on")]
            assert not re.match(r"\s*(javascript|https?|//)", str(tag.get("href", "")))
            assert re.match(r"data:image/|$", str(tag.get("src", "")))


def test_nobody_s_id_or_address_is_in_the_shared_pages(hostile):
    for name in ("report.html", "explore.html", "index.html"):
        page = (hostile / "reports" / name).read_text("utf-8")
        assert "id7<" not in page
        assert "id7&lt;" not in page
    for path in list_pages(hostile):
        assert "person7@mail" not in path.read_text("utf-8")


def test_no_csv_holds_a_formula(hostile):
    paths = sorted(hostile.rglob("*.csv"))
    assert len(paths) >= 6
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert [cell for cell in cells if FORMULA.match(cell)] == [], path.name


def test_the_figures_still_agree_and_the_texts_are_shown_as_they_are(hostile):
    run = Run(hostile)
    soup = parse((hostile / "reports/report.html").read_text("utf-8"))
    assert check_report(soup, run) == []
    text = soup.get_text(" ")
    assert f"=EVIL() {SCRIPT}" in text
    assert LEVELS[1] in text
    assert "{{ 7 * 7 }}" in text


def test_no_text_turns_the_direction_of_ours(hostile):
    for path in [*list_pages(hostile), hostile / "summary.txt", hostile / "segments.json"]:
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", path.read_text("utf-8")), path.name


def test_nothing_happens_in_a_browser(hostile, browser):
    for path in list_pages(hostile)[-3:]:  # what is sent; `test_pages.py` opens the others too
        page, noticed = watch(browser, 1280, "light")
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        kept = [n for n in noticed if path.as_uri() not in n and "request data:image/" not in n]
        assert kept == []
        page.context.close()
