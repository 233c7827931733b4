"""The report in a browser: does the first screen decide, on a desk and on a phone, and printed?"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browsing import CONTRASTS, find_violations, watch

ROOT = Path(__file__).parents[1]
DESK, PHONE = (1280, 800), (390, 844)
FEW = {"k_max": 2}


def write_groups(place, *, groups, features, seed):
    """A table of round groups in features of their own names, with a card drafted from it."""
    rng = np.random.default_rng(seed)
    names = ["yearly_spend", "visits", "age", "days_since_last_visit", "income", "items_per_visit"]
    names += ["returns", "tenure", "clicks", "discount"]
    centres = rng.normal(60, 22, (groups, features))
    values = np.vstack([rng.normal(centre, 4, (40, features)) for centre in centres])
    table = pd.DataFrame(values.clip(1).round(1), columns=names[:features])
    table.insert(0, "customer_id", range(1, len(table) + 1))
    table["region"] = rng.choice(["North", "South", "East"], len(table))
    table.to_csv(place, index=False)
    return place


def shorten(card, rows, place):
    """A card of the project with the first lines of its table: the 03 of all would take minutes."""
    source = ROOT / "data/raw" / f"{card}.csv"
    lines = source.read_bytes().splitlines(keepends=True)[: rows + 1]
    (place / source.name).write_bytes(b"".join(lines))
    text = (ROOT / "data" / f"{card}.yaml").read_text("utf-8")
    (place / f"{card}.yaml").write_text(text.replace(f"raw/{source.name}", source.name), "utf-8")
    return place / f"{card}.yaml"


SHOPS = [pytest.param(name, marks=pytest.mark.long) for name in ("webshop", "orders")]
"""Their reports lie between those of seven segments and of ten features."""


GROUPS = [pytest.param(name, marks=pytest.mark.long) for name in ("seven", "ten")]


@pytest.fixture(params=["mall", *SHOPS, *GROUPS])
def report(request, play_once, recorded, tmp_path_factory):
    """The report of a table: the bundled one, web shop and orders (some of their lines), seven
    groups, ten features."""
    made, name = tmp_path_factory.getbasetemp(), request.param
    if name == "mall":
        folder = recorded
    elif name == "webshop":
        folder = play_once("webshop 5", shorten("webshop_customers", 400, made), k=5, **FEW)
    elif name == "orders":
        folder = play_once("orders 4", shorten("webshop_orders", 2_000, made), k=4, **FEW)
    else:
        size = {"seven": (7, 5), "ten": (4, 10)}[name]
        card = write_groups(made / f"{name}.csv", groups=size[0], features=size[1], seed=5)
        folder = play_once(f"groups {name}", card, k=size[0], **FEW)
    return folder / "reports/report.html"


def find_bottoms(page):
    """Where each thing that a first screen has to show ends, by what it is."""
    return page.evaluate(
        """() => {
          const told = {};
          for (const [name, places] of Object.entries({
            headline: 'h1', checks: '.checks', name: 'article h2', size: 'article .size',
            action: 'article .action', shares: '.money'
          })) told[name] = [...document.querySelectorAll(places)]
            .map(node => node.getBoundingClientRect()).map(box => box.height && box.bottom);
          return told;
        }"""
    )


def test_the_first_screen_shows_what_to_do_with_each_segment(report, browser):
    page, noticed = watch(browser, DESK[0], "light")
    page.set_viewport_size({"width": DESK[0], "height": DESK[1]})
    page.goto(report.as_uri())
    bottoms = find_bottoms(page)
    segments = len(page.query_selector_all("article"))
    for name in ("name", "size", "action"):
        assert len(bottoms[name]) == segments
    assert [b for ends in bottoms.values() for b in ends if not 0 < b <= DESK[1]] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= DESK[0]
    page.context.close()
    assert noticed == [f"request {report.as_uri()}"[:208]] or all("file:" in n for n in noticed)


def test_on_a_phone_four_segments_take_three_screens(report, browser):
    page, _ = watch(browser, PHONE[0], "dark")
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    page.goto(report.as_uri())
    ends = [b for ends in find_bottoms(page).values() for b in ends]
    segments = len(page.query_selector_all("article"))
    features = len(page.query_selector_all("article:first-of-type dl > div"))
    assert min(ends) > 0
    if segments <= 4 and features <= 7:
        assert max(ends) <= 3 * PHONE[1]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_is_wrong_with_the_page(report, browser, scheme):
    page, _ = watch(browser, DESK[0], scheme)
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert find_violations(page) == []
    assert page.evaluate(CONTRASTS) == []
    page.context.close()


def test_five_segments_of_five_features_print_on_four_pages(report, browser):
    page, _ = watch(browser, DESK[0], "light")
    page.goto(report.as_uri())
    pages = len(re.findall(rb"/Type\s*/Page\b(?!s)", page.pdf(format="A4")))
    page.context.close()
    assert pages <= (5 if report.parent.parent.name == "groups seven" else 4)
