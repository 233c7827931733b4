"""The pages in a browser with no network: nothing is asked for, nothing runs, all of it fits."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from browsing import CONTRASTS, find_violations, watch
from PIL import Image
from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def pages(pages: list[Path], published: Path) -> list[Path]:
    """The pages of the small run and those of the real series; the explorer has its own tests."""
    real = sorted((published / "reports").glob("*.html"))
    return [*pages, *(path for path in real if path.name != "explore.html")]


LONG = [pytest.param(look, marks=pytest.mark.long) for look in ("1280 dark", "390 light")]


@pytest.fixture(params=["1280 light", "390 dark", *LONG])
def view(browser: Browser, request: pytest.FixtureRequest) -> Iterator[tuple[Page, list[str]]]:
    """A page in an offline window, and the list of everything that it does but should not."""
    width, scheme = request.param.split()
    page, noticed = watch(browser, int(width), scheme)
    yield page, noticed
    page.context.close()


def test_pages_ask_for_nothing_and_say_nothing(
    view: tuple[Page, list[str]], pages: list[Path]
) -> None:
    page, noticed = view
    for path in pages:
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
    expected = {f"request {path.as_uri()}" for path in pages}
    assert [
        n for n in noticed if n not in expected and not n.startswith("request data:image/")
    ] == []


def test_pages_fit_the_window_also_with_the_code_unfolded(
    view: tuple[Page, list[str]], pages: list[Path]
) -> None:
    page, _ = view
    for path in pages:
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= window, path.name


def test_every_picture_is_drawn(view: tuple[Page, list[str]], pages: list[Path]) -> None:
    page, _ = view
    for path in pages:
        page.goto(path.as_uri())
        broken = "[...document.images].filter(image => !image.naturalWidth).length"
        assert page.evaluate(broken) == 0, path.name


def test_every_text_has_contrast(view: tuple[Page, list[str]], pages: list[Path]) -> None:
    page, _ = view
    for path in pages:
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        assert page.evaluate(CONTRASTS) == [], path.name


def test_the_policy_holds_even_where_markup_slipped_in(
    view: tuple[Page, list[str]], pages: list[Path], tmp_path: Path
) -> None:
    page, noticed = view
    slipped = "<script>alert(1)</script><img src=x alt='' onerror=alert(1)><img src='//a.example/'>"
    path = tmp_path / "slipped.html"
    path.write_text(pages[0].read_text(encoding="utf-8").replace("</main>", f"{slipped}</main>"))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    assert "dialog" not in noticed
    assert sum("Content Security Policy" in notice for notice in noticed) >= 3
    assert not [notice for notice in noticed if notice.startswith("request http")]


def test_axe_finds_nothing_serious(view: tuple[Page, list[str]], pages: list[Path]) -> None:
    page, _ = view
    for path in pages:
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        assert find_violations(page) == [], path.name


def test_the_report_is_the_same_without_scripts(browser: Browser, published: Path) -> None:
    path = published / "reports/report.html"
    seen = []
    for scripts in (True, False):
        page, _ = watch(browser, 390, "light", java_script_enabled=scripts)
        page.goto(path.as_uri())
        seen.append(Image.open(BytesIO(page.screenshot(full_page=True))).convert("L"))
        page.context.close()
    assert seen[0].size == seen[1].size
    assert np.abs(np.subtract(*(np.asarray(each, dtype=float) for each in seen))).mean() < 0.1
