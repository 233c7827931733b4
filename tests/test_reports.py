"""What people read: sentences and tables in a notebook, the analysts' pages, and their index."""

import base64
import re
import warnings
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from bs4 import BeautifulSoup
from nbformat import v4
from sample_run import make_manifest, make_notebook

from segmentation.palette import MARKERS, PALETTE
from segmentation.reports import display, pages, summarize_stale, tell_run, write_runs
from segmentation.runs import Manifest

ANSWER = "<!-- answer -->"
HOSTILE = (
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "[x](javascript:alert(1))",
    '"><svg onload=alert(1)>',
    "*k$* and $k$ _a_ `b` ![p](https://example.org/p.png)",
    "=cmd|' /C calc'!A0",
    "</style></title><iframe src='https://example.org'></iframe>",
    "\u202eright to left\u202c 👩‍👩‍👧 " + "long label " * 6,
)
MARKUP = (
    "<script>alert(1)</script><p onclick='alert(1)' style='position:fixed'>text</p>"
    "<a href='javascript:alert(1)'>a</a><a href='https://example.org/paper'>paper</a>"
    "<a href='//example.org'>b</a><a href='mailto:a@example.org'>c</a>"
    "<img src='https://example.org/p.png'><img src='data:text/html;base64,AAAA'>"
    "<svg><script>alert(1)</script></svg><math><mtext>m</mtext></math>"
    "<meta http-equiv='refresh' content='0;url=https://example.org'>"
    "<style>main{display:none}</style><form action='https://example.org'><input></form>"
    "<iframe srcdoc='x'></iframe><!--><script>alert(1)</script>-->"
    "<![CDATA[x><script>alert(1)</script>]]><?x ><script>alert(1)</script>?>"
    "<noscript><p title='</noscript><script>alert(1)</script>'></noscript><blink>kept</blink>"
)


def find_faults(page: str) -> list[str]:
    """Everything in a page that could run, load, lead elsewhere, or has no words."""
    soup = BeautifulSoup(page, "html.parser")
    faults = [tag.name for tag in soup.find_all(["script", "iframe", "object", "svg", "link"])]
    for tag in soup.find_all(True):
        faults += [f"{tag.name} {name}" for name in tag.attrs if name.startswith("on")]
        address = str(tag.get("src") or tag.get("href") or "")
        if re.match(r"\s*(?!data:image/)([a-z]+:|//)", address, re.IGNORECASE):
            faults.append(address)
    faults += ["no alt" for image in soup.find_all("img") if not image.get("alt")]
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
    if policy is None or "default-src 'none'" not in str(policy["content"]):
        faults.append("no policy")
    faults += ["refresh" for meta in soup.find_all("meta", attrs={"http-equiv": "refresh"})]
    return faults + ["styles"] * (len(soup.find_all("style")) != 1)


def read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="module")
def page(run_dir: Path) -> BeautifulSoup:
    return read(run_dir / "reports/03_k_selection.html")


@pytest.fixture(scope="module")
def index(run_dir: Path) -> BeautifulSoup:
    return read(run_dir / "reports/index.html")


# Palette -----------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_each_segment_has_its_own_visible_colour_and_marker() -> None:
    assert len(set(PALETTE)) == len(set(MARKERS)) == 10
    assert all(1.05 / (luminance(colour) + 0.05) >= 3 for colour in PALETTE)


def test_the_stylesheet_has_the_palette_and_loads_nothing() -> None:
    style = pages.stylesheet()
    assert all(f"--segment-{i}:{colour};" in style for i, colour in enumerate(PALETTE))
    assert not re.search(r"url\(|@import|https?:|</", style)


# What a notebook shows ---------------------------------------------------------------------


def parse(shown: display.Shown) -> BeautifulSoup:
    return BeautifulSoup(shown.data["text/html"], "html.parser")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_finding_shows_its_characters_and_nothing_else(text: str) -> None:
    (shown,) = display.render(text)
    assert parse(shown).get_text() == " ".join(text.split())
    assert {tag.name for tag in parse(shown).find_all(True)} <= {"blockquote", "p", "span"}
    assert repr(shown) == text


def test_a_table_formats_numbers_and_leaves_missing_ones_blank() -> None:
    frame = pd.DataFrame(
        {"name": ["a", None], "n": [1234, 5], "x": [1234.5, None], "y": [-0.001, 2]}
    )
    shown, finding = display.render(frame, "Two rows.")
    rows = parse(shown).find_all("tr")
    cells = [[cell.get_text().strip() for cell in row.find_all(["th", "td"])] for row in rows]
    assert cells == [
        ["name", "n", "x", "y"],
        ["a", "1,234", "1,234.50", "0.00"],
        ["", "5", "", "2.00"],
    ]
    assert [cell["style"] for cell in rows[1].find_all("td")[1:]] == ["text-align: right;"] * 3
    assert finding.text == "Two rows."


def test_a_table_shows_a_named_index() -> None:
    frame = pd.DataFrame({"a": [0.12345], "b": [2.5]}, index=pd.Index(["first"], name="K"))
    (shown,) = display.render(frame)
    assert shown.text.split() == ["K", "a", "b", "-----", "----", "----", "first", "0.12", "2.50"]


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        (pd.DataFrame({("x", "mean"): [1.5], ("x", "std"): [2.5]}), "x · mean"),
        (pd.DataFrame({"a": []}), "a"),
        (pd.DataFrame({"elbow": [True, False]}), "yes"),
        (pd.DataFrame({"id": ["1e5", "007"]}), "1e5"),
    ],
)
def test_a_table_of_any_kind_is_shown(frame: pd.DataFrame, word: str) -> None:
    assert word in display.render(frame)[0].text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_escapes_headers_and_cells(text: str) -> None:
    soup = parse(display.render(pd.DataFrame({text: [text]}))[0])
    assert not soup.find_all(["script", "img", "svg", "iframe"])


def test_a_figure_carries_its_finding(tmp_path: Path) -> None:
    ax = sns.histplot(x=[1, 2, 2, 3])
    picture, finding = display.render(ax, "Two is the mode.", path=tmp_path / "a.png")
    data, metadata = picture._repr_mimebundle_()
    assert pages.read_picture(tmp_path / "a.png")["alt"] == finding.text == "Two is the mode."
    assert base64.b64decode(data["image/png"]) == (tmp_path / "a.png").read_bytes()
    assert metadata["image/png"]["alt"] == "Two is the mode."
    assert not plt.get_fignums()


def test_a_grid_of_seaborn_is_a_figure() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grid = sns.pairplot(pd.DataFrame({"a": [1.0, 2, 3], "b": [3.0, 1, 2]}))
        assert "image/png" in display.render(grid)[0].data


MANY = pytest.param((40, 40), 1_500, marks=pytest.mark.long)  # too many bytes and too many pixels


@pytest.mark.parametrize(("inches", "pixels"), [((12, 12), 1_500), ((9, 800), 10), MANY])
def test_a_large_picture_is_made_coarser(inches: tuple[int, int], pixels: int) -> None:
    figure = plt.figure(figsize=inches)
    figure.figimage(np.random.default_rng(0).random((pixels, pixels)), resize=False)
    ax = figure.add_subplot()
    ax.imshow(np.random.default_rng(0).random((pixels, pixels)))
    (picture,) = display.render(figure)
    assert len(picture.data["image/png"]) < 5_000_000


def test_what_cannot_be_shown_is_named() -> None:
    with pytest.raises(TypeError, match="got <class 'int'>"):
        display.render(3)


# The answer --------------------------------------------------------------------------------


def render(nb: nbformat.NotebookNode, answer: str) -> BeautifulSoup:
    step = pages.Step("03_k_selection", "3 · Q?", "03_k_selection.html", answer)
    return BeautifulSoup(pages.render_notebook(nb, step, [step], make_manifest()), "html.parser")


def test_an_answer_takes_its_place_and_leaves_the_notebook_alone() -> None:
    nb = make_notebook([("markdown", [], f"# 3 · Q?\n\n{ANSWER}\nReads a · Writes b")])
    before = nb.cells[0].source
    soup = render(nb, "Four.")
    assert [part.get_text(" ", strip=True) for part in soup.select(".opening > *")] == [
        "3 · Q?", "Four.", "Reads a · Writes b"
    ]  # fmt: skip
    assert soup.select_one(".opening > p.answer").get_text() == "Four."  # type: ignore[union-attr]
    assert ANSWER not in str(soup)
    assert nb.cells[0].source == before


def test_without_an_answer_the_place_stays_empty() -> None:
    opening = render(make_notebook([("markdown", [], f"# Q\n\n{ANSWER}")]), "").select(
        ".opening > *"
    )
    assert [(part.name, part.get_text()) for part in opening] == [("h1", "Q")]


# Pages -------------------------------------------------------------------------------------


def test_there_is_a_page_a_notebook_and_an_index(pages: list[Path], run_dir: Path) -> None:
    notebooks = sorted(path.stem for path in (run_dir / "notebooks").glob("*.ipynb"))
    assert [path.stem for path in pages] == [*notebooks, "index"]


def test_every_page_is_inert_and_small(pages: list[Path]) -> None:
    for path in pages:
        assert find_faults(path.read_text(encoding="utf-8")) == []
        assert path.stat().st_size < 3_000_000


def test_every_page_has_landmarks_a_language_and_one_title(pages: list[Path]) -> None:
    for soup in map(read, pages):
        assert soup.html is not None
        assert soup.html["lang"] == "en"
        for name in ("header", "main", "footer", "nav", "title", "h1"):
            assert soup.find(name), name
        assert len(soup.find_all("h1")) == 1


def test_a_page_says_which_run_it_shows(page: BeautifulSoup) -> None:
    assert page.title is not None
    assert page.title.get_text() == "3 · How many segments? – Mall customers"
    facts = page.select_one(".facts")
    assert facts is not None
    words = " ".join(facts.get_text(" ").split())
    assert words == (
        "Customers 198 Segments 4, by the elbow rule Run 21 November 2026, 22:45 UTC "
        "Status published"
    )
    assert "20261121T224500Z" in page.footer.get_text()  # type: ignore[union-attr]


def test_a_hostile_answer_is_shown_as_it_was_given(page: BeautifulSoup) -> None:
    answer = page.select_one(".answer")
    assert answer is not None
    assert answer.get_text() == make_manifest().notebooks[1].answer


def test_code_is_folded_and_figures_are_described(page: BeautifulSoup) -> None:
    folds = page.select("details.code")
    assert [fold.summary.get_text() for fold in folds[:3]] == [  # type: ignore[union-attr]
        "Parameters and their defaults",
        "Parameters of this run",
        "Code",
    ]
    assert not any(fold.has_attr("open") for fold in folds)
    image = page.select_one("figure img")
    assert image is not None
    assert image["alt"] == "Inertia by K: a curve that bends at four segments."
    assert image["width"] == "760"


def test_tables_scroll_in_their_own_box_with_numbers_to_the_right(page: BeautifulSoup) -> None:
    tables = page.find_all("table")
    assert all(table.parent["class"] == ["scroll"] for table in tables)  # type: ignore[index]
    heads = [[cell.get_text(strip=True) for cell in table.select("th.num")] for table in tables]
    assert heads[0][:2] == ["K", "Inertia"]
    assert heads[1] == ["Age", "Annual Income (k$)"]


def test_messages_are_shown_without_places_on_the_machine(page: BeautifulSoup) -> None:
    assert "two rows have no income" in page.select_one(".stderr").get_text()  # type: ignore[union-attr]
    assert "ipykernel" not in str(page)
    said = "/home/Jörg B/lib/seaborn/grid.py:123: UserWarning: layout\n  tight()\nD:\\a.py:7: kept"
    assert pages._without_places(said) == "UserWarning: layout\n  tight()\nD:\\a.py:7: kept"


def test_every_link_leads_to_a_file_of_the_run(pages: list[Path]) -> None:
    for path in pages:
        for link in read(path).select("a[href]"):
            target = str(link["href"])
            assert target.startswith("#") or (path.parent / target).is_file(), target


def test_the_index_has_every_step_rule_and_download(index: BeautifulSoup) -> None:
    text = " ".join(index.main.get_text(" ").split())  # type: ignore[union-attr]
    assert "4 segments among 198 customers" in text
    assert "The rules disagree: they answer 4 and 6." in text
    assert make_manifest().input["sha256"] in text
    assert make_manifest().warnings[0] in text
    assert "javascript:alert(1)" in text
    places = [text.index(word) for word in ("What does the distance see?", "How many segments?")]
    assert all(first < second for first, second in pairwise(places))
    assert len(index.select(".pictures img")) == 2
    assert {str(a["href"]) for a in index.select(".downloads a")} >= {"../tables/k_selection.csv"}
    assert [row.th.get_text() for row in index.select("tr.chosen")] == ["elbow"]  # type: ignore[union-attr]


def test_a_number_that_was_asked_for_is_called_so(run_dir: Path) -> None:
    manifest = make_manifest(asked=True, k=1)
    soup = BeautifulSoup(pages.render_index(run_dir, [], manifest), "html.parser")
    assert "1 segment among 198 customers" in soup.get_text()
    assert "1, as asked" in soup.get_text()
    assert not soup.select("tr.chosen")


def test_a_run_that_failed_says_so_on_every_page(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    nb = make_notebook([("markdown", [], "# 1 · Who?"), ("code", [], "1/0")])
    error = {"ename": "E", "evalue": "v", "traceback": ["\x1b[31mZeroDivisionError\x1b[0m <b>"]}
    nb.cells[1].outputs = [v4.new_output("error", **error)]
    nbformat.write(nb, tmp_path / "notebooks/01_eda.ipynb")
    entry = {"name": "01_eda", "status": "failed", "seconds": None}
    manifest = Manifest(run_id="r", title="T", status="failed", notebooks=[entry])
    path = pages.write_pages(tmp_path, manifest)
    for page_path in path.parent.glob("*.html"):
        assert "Not published." in read(page_path).get_text()
    errors = read(path.parent / "01_eda.html").select_one(".error")
    assert errors is not None
    assert errors.get_text() == "ZeroDivisionError <b>"


def test_hostile_outputs_of_any_kind_are_inert(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    nb = make_notebook([("markdown", [], "# 1 · Who? " + HOSTILE[0]), ("code", [], "show()")])
    nb.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": HOSTILE[0]}}
    texts = (MARKUP, *HOSTILE)
    kinds = ("text/html", "text/markdown", "text/plain", "image/svg+xml")
    data = [{kind: text} for kind in kinds for text in texts]
    data += [{"application/javascript": "alert(1)", "text/plain": "plain"}]
    data += [{"image/png": '"><script>alert(1)</script>'}]
    nb.cells[1].outputs = [v4.new_output("display_data", data=item) for item in data]
    nb.cells[1].outputs += [v4.new_output("stream", text=text) for text in texts]
    nb.cells[1].outputs[-1].name = "stderr"
    nb.cells.append(v4.new_markdown_cell(MARKUP))
    nbformat.write(nb, tmp_path / "notebooks/01_eda.ipynb")
    manifest = make_manifest(title=HOSTILE[6], warnings=list(HOSTILE))
    path = pages.write_pages(tmp_path, manifest)
    for page_path in path.parent.glob("*.html"):
        assert find_faults(page_path.read_text(encoding="utf-8")) == []
    text = read(path.parent / "01_eda.html").get_text()
    assert "paper (https://example.org/paper)" in text
    assert "kept" in text


def test_a_very_long_output_is_cut(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    nb = make_notebook([("markdown", [], "# Q"), ("code", [], "print()")])
    nb.cells[1].outputs = [v4.new_output("stream", text="line\n" * 200_000)]
    nbformat.write(nb, tmp_path / "notebooks/07_mine.ipynb")
    pages.write_pages(tmp_path, make_manifest())
    page_path = tmp_path / "reports/07_mine.html"
    assert page_path.stat().st_size < 60_000
    assert "… cut here" in page_path.read_text(encoding="utf-8")


def test_markup_that_needs_its_own_style_is_shown_as_text(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    nb = make_notebook([("markdown", [], "# Q"), ("code", [], "pipeline")])
    data = {"text/html": "<style>#sk{}</style><div>boxes</div>", "text/plain": "Pipeline(steps)"}
    nb.cells[1].outputs = [v4.new_output("display_data", data=data)]
    nbformat.write(nb, tmp_path / "notebooks/04_modeling.ipynb")
    pages.write_pages(tmp_path, make_manifest())
    text = read(tmp_path / "reports/04_modeling.html").main.get_text()  # type: ignore[union-attr]
    assert "Pipeline(steps)" in text
    assert "boxes" not in text


# The runs ----------------------------------------------------------------------------------


def test_a_run_that_cannot_be_read_is_listed_as_such(tmp_path: Path) -> None:
    odd = Manifest(run_id="odd", status="unreadable", folder="odd")
    failure = {"notebook": "03_k_selection", "cell": 4, "cause": "ValueError: x <b>"}
    failed = {"run_id": "f", "title": "T", "status": "failed", "folder": "failed/f"}
    failed = Manifest(**failed, started="2026-11-22T10:00:00+00:00", failure=failure)
    good = make_manifest(folder="good")
    listed = [failed, good, odd]
    soup = read(write_runs(tmp_path, good, listed))
    assert find_faults(str(soup)) == []
    rows = [row.get_text(" ", strip=True) for row in soup.select("tbody tr")]
    assert [("f" in rows[0], "198" in rows[1], "cannot be read" in rows[2])] == [(True,) * 3]
    assert "None" not in soup.get_text()
    assert "cell [4]: ValueError: x <b>" in summarize_stale(good, listed)
    assert [tell_run(run, good)["status"] for run in listed] == [
        "failed", "published, latest", "unreadable"
    ]  # fmt: skip
    assert read(write_runs(tmp_path, None, [odd])).h1 is not None
