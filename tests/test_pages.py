"""The pages in a browser with no network: nothing is asked for, nothing runs, all of it fits."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import CONTRASTS, find_violations, watch
from PIL import Image
from playwright.sync_api import Browser, Page


@pytest.fixture(
    scope="module", params=["hostile", pytest.param("published", marks=pytest.mark.long)]
)
def real(request: pytest.FixtureRequest) -> Path:
    """A run of the real series: of a table that means harm, or of the bundled one."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def pages(pages: list[Path], real: Path) -> list[Path]:
    """The pages of the small run and those of the real series; the explorer has its own tests."""
    written = sorted((real / "reports").glob("*.html"))
    return [*pages, *(path for path in written if path.name != "explore.html")]


LONG = ("1280 light", "1280 dark", "390 light")
LOOKS = ["390 dark", *(pytest.param(look, marks=pytest.mark.long) for look in LONG)]


@pytest.fixture(params=LOOKS, scope="module")
def view(browser: Browser, request: pytest.FixtureRequest) -> Iterator[tuple[Page, list[str]]]:
    """A page in an offline window, and the list of everything that it does but should not."""
    width, scheme = request.param.split()
    page, noticed = watch(browser, int(width), scheme)
    yield page, noticed
    page.context.close()


@pytest.fixture(scope="module")
def seen(view: tuple[Page, list[str]], pages: list[Path]) -> dict[str, dict[str, Any]]:
    """What each page is like in a window, opened once and for the most with its code unfolded."""
    page, noticed = view
    return {str(path): look_at(page, noticed, path) for path in pages}


def look_at(page: Page, noticed: list[str], path: Path) -> dict[str, Any]:
    noticed.clear()
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    own = f"request {path.as_uri()}"
    did = [n for n in noticed if n != own and not n.startswith("request data:image/")]
    told: dict[str, Any] = {"did": did}
    told["broken"] = page.evaluate("[...document.images].filter(i => !i.naturalWidth).length")
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    told["width"] = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return told | {"faint": page.evaluate(CONTRASTS), "violations": find_violations(page)}


def list_found(seen: dict[str, dict[str, Any]], what: str) -> dict[str, Any]:
    return {name: told[what] for name, told in seen.items() if told[what]}


def test_pages_ask_for_nothing_and_say_nothing(seen: dict[str, dict[str, Any]]) -> None:
    assert list_found(seen, "did") == {}


def test_pages_fit_the_window_also_with_the_code_unfolded(seen: dict[str, dict[str, Any]]) -> None:
    assert {name: told["width"] for name, told in seen.items() if told["width"] > 0} == {}


def test_every_picture_is_drawn(seen: dict[str, dict[str, Any]]) -> None:
    assert list_found(seen, "broken") == {}


def test_every_text_has_contrast(seen: dict[str, dict[str, Any]]) -> None:
    assert list_found(seen, "faint") == {}


def test_axe_finds_nothing_serious(seen: dict[str, dict[str, Any]]) -> None:
    assert list_found(seen, "violations") == {}


@pytest.mark.usefixtures("seen")  # which looks first: this one's notices are not the pages'
def test_the_policy_holds_even_where_markup_slipped_in(
    view: tuple[Page, list[str]], pages: list[Path], tmp_path: Path
) -> None:
    page, noticed = view
    noticed.clear()
    slipped = "<script>alert(1)</script><img src=x alt='' onerror=alert(1)><img src='//a.example/'>"
    path = tmp_path / "slipped.html"
    path.write_text(pages[0].read_text(encoding="utf-8").replace("</main>", f"{slipped}</main>"))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    assert "dialog" not in noticed
    assert sum("Content Security Policy" in notice for notice in noticed) >= 3
    assert not [notice for notice in noticed if notice.startswith("request http")]


def test_the_report_is_the_same_without_scripts(browser: Browser, real: Path) -> None:
    path = real / "reports/report.html"
    seen = []
    for scripts in (True, False):
        page, _ = watch(browser, 390, "light", java_script_enabled=scripts)
        page.goto(path.as_uri())
        seen.append(Image.open(BytesIO(page.screenshot(full_page=True))).convert("L"))
        page.context.close()
    assert seen[0].size == seen[1].size
    assert np.abs(np.subtract(*(np.asarray(each, dtype=float) for each in seen))).mean() < 0.1
