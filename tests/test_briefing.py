"""The stakeholders' report: its numbers are the tables', it is inert, and it keeps secrets."""

import re
from itertools import pairwise

import agreement
import numpy as np
import pandas as pd
import pytest
from agreement import NavigableString, Run, parse

from segmentation import words
from segmentation.customers.card import load_card
from segmentation.reports import report
from segmentation.runs import Manifest

LONG = [pytest.param(k, marks=pytest.mark.long) for k in (1, 5, 6, "long")]
CUTS = [3, 4, *LONG]
SAMPLES = {"hotel": {}, "telecom": {"k": 9, "k_max": 2}, "long": {}, "noise": {}}


HOTEL = pytest.param("hotel", marks=pytest.mark.long)  # two segments, as the table with gaps has


@pytest.fixture(params=[*CUTS, HOTEL, "telecom", "noise"])
def run(request, play_once, sample_cards):
    """The bundled table at five K, and four tables with cards of their own."""
    name = request.param
    if name in SAMPLES:
        return Run(play_once(name, sample_cards[name], **SAMPLES[name]))
    if name == 4:
        return Run(request.getfixturevalue("recorded"))
    return Run(play_once(f"mall {name}", k=name))


def read_report(run):
    return (run.folder / "reports/report.html").read_text("utf-8")


def test_every_number_is_the_tables(run):
    summary = (run.folder / "summary.txt").read_text("utf-8")
    assert agreement.check_summary(summary, run) == []
    assert agreement.check_report(parse(read_report(run)), run) == []


def test_any_altered_number_of_the_summary_is_noticed(run):
    summary = (run.folder / "summary.txt").read_text("utf-8")
    changed = list(agreement.list_mutations(summary))
    assert len(changed) > 20
    shown = changed if run.folder.name == "mall" else changed[:: len(changed) // 20]
    assert [figure for figure, text in shown if not agreement.check_summary(text, run)] == []


def test_any_altered_number_of_the_report_is_noticed(run):
    soup, missed, tried = parse(read_report(run)), [], 0
    nodes = agreement.list_nodes(soup)
    for node in nodes if len(nodes) < 300 else nodes[::10]:
        for figure, text in agreement.list_mutations(str(node)):
            changed = NavigableString(text)
            node.replace_with(changed)
            missed += [] if agreement.check_node(changed, run) else [figure]
            changed.replace_with(node)
            tried += 1
    assert missed == []
    assert tried > 20


def test_the_page_is_one_small_inert_file_that_reads_without_pictures(run):
    page = read_report(run)
    soup = parse(page)
    assert len(page.encode()) < 3_000_000
    assert soup.find_all(["script", "iframe", "object", "form", "link"]) == []
    for link in soup.find_all("a"):  # to places of the page alone
        assert soup.find(id=link["href"].removeprefix("#")) is not None
    assert len(soup.find_all("h1")) == len(soup.find_all("main")) == 1
    assert soup.html["lang"] == "en"
    for image in soup.find_all("img"):
        assert image["src"].startswith("data:image/png;base64,")
        assert len(image["alt"]) > 20
    levels = [int(tag.name[1]) for tag in soup.find_all(re.compile("^h[1-6]$"))]
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_each_segment_has_a_column_with_its_figures_and_an_action(run):
    soup = parse(read_report(run))
    kinds = load_card(run.folder / "card.yaml").kinds
    spent = [label for label, kind in kinds.items() if kind == "spending"]
    spent = [*run.tables["segment_values.csv"]["variable"].head(1), *spent, ""][0]
    means = {s["id"]: s["profile"].get(spent, {"mean": 0.0})["mean"] for s in run.segments}
    listed = sorted(run.segments, key=lambda s: (-means[s["id"]], -s["size"]))[:8]
    columns = soup.find_all("article")
    labels = list_labels(run)
    for column, segment in zip(columns, listed, strict=True):
        assert column.h2.get_text(strip=True) == segment.get("title", segment["name"])
        assert segment["name"] in column.header.get_text(" ")
        assert segment["actions"][0] in column.get_text(" ", strip=True)
        assert [dt.get_text(strip=True) for dt in column.find_all("dt")][: len(labels)] == labels
        assert bool(column.find_all(class_="everyone")) == (len(listed) > 1)
    assert ("more segments" in soup.get_text()) == (len(run.segments) > 8)


def list_labels(run):
    features = run.profile[run.profile["level"].isna()].drop_duplicates("variable")
    features = features.astype({"unit": object}).fillna({"unit": ""})
    known = features[["variable", "unit"]].itertuples(index=False)
    return [name if unit in ("€", "$", "£", "%") else words.write_title(name, unit)
            for name, unit in known]  # fmt: skip


def test_the_money_bar_shows_all_of_the_customers_and_of_the_value(run):
    values = run.tables["segment_values.csv"]
    soup = parse(read_report(run))
    bars = soup.select(".money .labels")
    wanted = 0 if len(run.segments) == 1 else 2 if len(values) else 1
    assert len(bars) == wanted
    for bar in bars:
        widths = [float(re.search(r"width:([\d.]+)%", part["style"])[1]) for part in bar("span")]
        assert sum(widths) == pytest.approx(100, abs=0.1)


def test_every_check_leads_to_what_it_rests_on(run):
    soup = parse(read_report(run))
    checks = soup.select(".checks a")
    assert len(checks) >= (4 if len(run.segments) > 1 else 2)
    assert all("figures" not in link["href"] for link in checks)
    chance = next((link for link in checks if "chance" in link.get_text()), None)
    assert (chance is None) == (len(run.segments) == 1)
    if chance is not None:
        clear = run.selection["reading"] in ("natural", "reproducible", "clear")
        assert ("passed" in chance["class"]) == clear


def test_the_page_says_how_sure(run):
    headings = parse(read_report(run)).find(class_="verdict").get_text(strip=True)
    expected = {"natural": "Natural groups", "none": "No groups", "reproducible": "Reproducible"}
    expected |= {"asked one": "One segment, as asked", "one dominant skew": "One spread"}
    expected |= {"small difference": "A small difference"}
    assert headings.startswith(expected.get(run.selection["reading"], "A cut made for use"))


def test_at_three_the_young_poor_segment_is_no_low_spender(play_once):
    run = Run(play_once("mall 3", k=3))
    (segment,) = [s for s in run.segments if s["centre"]["Age"] < 30]
    assert segment["centre"]["Spending Score (1-100)"] > 50.2
    assert "low spend" not in " ".join([segment["name"], *segment["sentences"]]).casefold()
    page = parse(read_report(run))
    young = next(c for c in page.find_all("article") if "Younger" in c.header.get_text())
    told = re.sub(r"\s+", " ", young.get_text(" ")).casefold()
    assert "low annual income" in told
    assert not re.search(r"low spend|spending score is (very )?low|low cost", told)


@pytest.mark.long
def test_rows_that_the_card_drops_and_a_column_of_words_alone_go_all_the_way(write_card, play_once):
    rng = np.random.default_rng(8)
    values = np.vstack([rng.normal(centre, 1, (30, 3)) for centre in (0, 8)]).round(2)
    frame = pd.DataFrame(values, columns=["spend__2024", "remainder", "last"])
    frame["spend__2024"] = frame["spend__2024"].abs()
    frame.loc[3:5, "remainder"] = np.nan
    frame.loc[frame.index < 30, "last"] = np.nan  # a gap that means something
    frame["plan"], frame["void"] = rng.choice(["missing", "x"], 60), ""
    frame.insert(0, "id", [f"c{i}" for i in range(60)])
    card = write_card(
        frame.to_csv(index=False),
        features={
            "spend__2024": {"transform": "log"},
            "remainder": {"missing": "drop"},
            "last": {},
        },
        descriptors={"void": {}, "plan": {"weight": 0.3}},
    )
    run = Run(play_once("dropped", card, k=2, k_max=2))
    assert (run.manifest["input"]["rows_read"], run.manifest["input"]["rows_used"]) == (60, 57)
    assert sum(segment["size"] for segment in run.segments) == 57
    assert agreement.check_report(parse(read_report(run)), run) == []


@pytest.fixture
def small(write_card, play_once):
    """Sixty customers and three far away from them, cut into three."""
    rng = np.random.default_rng(3)
    near = np.vstack([rng.normal(0, 1, (30, 2)), rng.normal(8, 1, (30, 2))])
    far = rng.normal((77.3, -66.6), 0.1, (3, 2))
    frame = pd.DataFrame(np.vstack([near, far]).round(3), columns=["a", "b"])
    frame.insert(0, "id", [f"secret{i}" for i in range(63)])
    frame["kind"] = ["x"] * 58 + ["rare"] * 2 + ["y"] * 3
    card = write_card(frame.to_csv(index=False), descriptors={"kind": {}})
    return Run(play_once("small", card, k=3, like=play_once("mall 3", k=3)))


def test_groups_under_five_are_withheld(small):
    (tiny,) = [segment for segment in small.segments if segment["size"] == 3]
    page = read_report(small)
    text = parse(page).get_text(" ")
    assert tiny["name"] in text
    assert "figures are withheld" in text
    for figure in tiny["profile"].values():
        assert f"{figure['mean']:.1f}" not in text
        assert f"{figure['mean']:.0f}" not in text
    assert "withheld" in parse(page).find("table", class_="levels").get_text()
    assert "secret" not in page
    assert any("fewer than 5" in warning for warning in small.manifest["warnings"])
    assert any("fewer than 5 customers" in told for told in tiny["sentences"])
    assert not re.search(r"7[67]\.\d", " ".join(tiny["sentences"]))


def test_no_customer_is_named(run):
    table = pd.read_csv(run.folder / "tables/clustered_data.csv", dtype=str)
    page = read_report(run)
    ids = table.iloc[:, 0]
    assert not [each for each in ids if len(each) > 4 and each in page]


def test_a_run_that_was_not_published_says_so(recorded):
    run = Run(recorded)
    page = report.render_report(run.folder, Manifest(**run.manifest | {"status": "failed"}))
    assert "Not published" in parse(page).find(role="alert").get_text()


@pytest.mark.long
def test_owner_date_and_a_name_without_a_segment_are_told(play_once, sample_cards):
    run = Run(play_once("long", sample_cards["long"]))
    text = re.sub(r"\s+", " ", parse(read_report(run)).get_text(" "))
    assert "30 September 2026" in text
    assert "The board's working group on members" in text
    assert "The card names “Nobody is like this”, but no segment is like that." in text
    assert "Offer them delivery to the village hall on market days." in text
