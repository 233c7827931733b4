"""How the tests look at pages: offline windows, and what happens in them."""

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

PATIENCE = 120_000
"""Milliseconds that a page may take for anything: how busy the machine is decides nothing."""

SWITCHES = (
    "--headless --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--disable-quic --no-first-run "
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


def watch(browser: Browser, width: int, scheme: str, **options: Any) -> tuple[Page, list[str]]:
    """A page in an offline window, and the list of all that it asks for, says or opens."""
    window = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, **options
    )
    window.set_default_timeout(PATIENCE)
    page, noticed = window.new_page(), []
    page.on("request", lambda asked: noticed.append(f"request {asked.url[:200]}"))
    page.on("console", lambda message: noticed.append(f"console {message.text}"))
    page.on("pageerror", lambda error: noticed.append(f"error {error}"))
    page.on("dialog", lambda dialog: (noticed.append("dialog"), dialog.dismiss()))
    return page, noticed


def find_violations(page: Page, *, contrast: bool = False) -> list[str]:
    """What axe calls serious or critical on the page, with the first place of each.

    Without `contrast`, which takes it most of its time: `CONTRASTS` looks at every text.
    """
    rules = {"color-contrast": {"enabled": contrast}}
    options = {"rules": rules, "resultTypes": ["violations"]}
    found = Axe().run(page, options=options).response["violations"]
    grave = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    return [f"{fault['id']}: {fault['nodes'][0]['html'][:200]}" for fault in grave]
