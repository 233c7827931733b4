"""A campaign of the web shop, from June's report to July's: `make campaign`.

June's table is segmented, a letter goes to half of each segment's subscribers, July's table is
made (the letter moves one segment), and July's run reads it back.
"""

import csv
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).parents[2]
JUNE = ROOT / "data/webshop_customers.yaml"
LETTER, HOLD_BACK = "july", "50%"


def call(*words: str) -> None:
    """Run a command of the package."""
    subprocess.run([sys.executable, "-m", "segmentation", *words], cwd=ROOT, check=True)


def write_july(folder: Path) -> Path:
    """July's table and card, after the letter to those of `send` in the lists of a folder."""
    shop = runpy.run_path(str(ROOT / "data/raw/make_examples.py"))
    june, truth = shop["make_customers"](np.random.default_rng(20260630))
    rows = [row for path in folder.glob("*.csv") for row in csv.DictReader(path.open("r"))]
    written = {row["customer_id"] for row in rows if row["group"] == "send"}
    july = shop["make_july"](np.random.default_rng(20260732), june, truth, written)
    shop["write_table"](july, folder.parent / "july.csv")
    card = yaml.safe_load(JUNE.read_text("utf-8"))
    card |= {"table": "july.csv", "as_of": "2026-07-31", "campaigns": {LETTER: "ordered_july"}}
    card["outcomes"]["ordered_july"] = {"label": "Ordered in July", "kind": "yes/no"}
    path = folder.parent / "july.yaml"
    path.write_text(yaml.safe_dump(card, allow_unicode=True, sort_keys=False), "utf-8")
    return path


def main(output: Path, *options: str) -> None:
    """June's run, the lists, July's table, July's run; all in one output folder."""
    shop = output / "webshop"
    call("run", str(JUNE), "--output-dir", str(output), *options)
    latest = ["--run", str(output / "latest")]
    call("audience", LETTER, "--hold-back", HOLD_BACK, "-o", str(shop / "lists"), *latest)
    call("run", str(write_july(shop / "lists")), "--output-dir", str(output), *options)


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "outputs").resolve(), *sys.argv[2:])
