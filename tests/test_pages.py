"""The pages in a browser with no network: nothing is asked for, nothing runs, all of it fits."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
CONTRASTS = """() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => parts(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if ((parts(colour)[3] ?? 1) > 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const low = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(node.outerHTML.slice(0, 80));
  }
  return low;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no browser: install the package `chromium` to look at the pages")
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=SWITCHES.split())
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(pages: list[Path], published: Path) -> list[Path]:
    """The pages of the small run and those of the real series."""
    return [*pages, *sorted((published / "reports").glob("*.html"))]


@pytest.fixture(params=["1280 light", "1280 dark", "390 light", "390 dark"])
def view(browser: Browser, request: pytest.FixtureRequest) -> Iterator[tuple[Page, list[str]]]:
    """A page in an offline window, and the list of everything that it does but should not."""
    width, scheme = request.param.split()
    window = browser.new_context(
        viewport={"width": int(width), "height": 900}, color_scheme=scheme, offline=True
    )
    page, noticed = window.new_page(), []
    page.on("request", lambda asked: noticed.append(f"request {asked.url[:200]}"))
    page.on("console", lambda message: noticed.append(f"console {message.text}"))
    page.on("pageerror", lambda error: noticed.append(f"error {error}"))
    page.on("dialog", lambda dialog: (noticed.append("dialog"), dialog.dismiss()))
    yield page, noticed
    window.close()


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
