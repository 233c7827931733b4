"""Makes the example report and the pictures of it anew: `make example`."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PICTURES = {"report.html": "report.png", "explore.html": "explorer.png"}


def main() -> None:
    """Run the bundled table, keep its report, and take pictures of report and explorer."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, ROOT / "run_all.py", "--quiet", "--run-id", "example"]
        subprocess.run([*command, "--output-dir", place], check=True)
        reports = Path(place) / "example" / "reports"
        shutil.copy(reports / "report.html", HERE)
        for name, picture in PICTURES.items():
            take_picture(reports / name, ROOT / "docs/pictures" / picture)


def take_picture(page: Path, picture: Path) -> None:
    """The first screen of a page on a desk."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": 1280, "height": 800})
        window.goto(page.as_uri())
        window.wait_for_load_state("networkidle")
        window.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()
