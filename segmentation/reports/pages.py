"""The analysts' pages of a run and their index, and what all pages share.

All HTML of a run is made from `templates/`. Nothing in the data can become markup: texts are
escaped, notebooks pass through nh3's allow-list of tags and attributes (`make_inert`), and a
Content-Security-Policy refuses scripts and every request.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from segmentation import runs
from segmentation.palette import PALETTE
from segmentation.reports.display import escape
from segmentation.runs import Manifest

if TYPE_CHECKING:
    from bs4 import Tag
    from nbconvert import HTMLExporter
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "templates"
CSP = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
PICTURES = {
    "customer_segmentation_2d.png": "The segments, drawn over two features",
    "customer_segmentation_3d.png": "The segments, drawn over three features",
}
DOWNLOADS = {
    "Tables": ("tables/*",),
    "Findings": ("summary.txt", "segments.json", "run.json"),
    "Model": ("artifacts/*",),
    "Figures": ("figures/*.png",),
}
ATTRIBUTES = {"alt", "class", "colspan", "datetime", "height", "id", "lang", "open", "role"}
ATTRIBUTES |= {"rowspan", "scope", "span", "start", "tabindex", "title", "width"}
VALUES = {
    "href": re.compile(r"#[\w.=-]*|(?:\.\./)*[\w.%-]+(?:/[\w.%-]+)*(?:#[\w.=-]*)?"),
    "src": re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,[\w+/=\s]*"),
    "style": re.compile(r"text-align: *(?:left|right|center);?"),
}
NUMBER = re.compile(r"[-−+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?\s?%?|nan|", re.IGNORECASE)


# Pages of a run ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One notebook of a run: its name, heading ("3 · How many segments?"), answer and page."""

    name: str
    heading: str
    page: str | None = None
    answer: str = ""
    status: str = "completed"
    seconds: float | None = None

    @property
    def number(self) -> str:
        return self.heading.partition(" · ")[0] if " · " in self.heading else ""

    @property
    def question(self) -> str:
        return self.heading.partition(" · ")[2] or self.heading


def write_pages(run_dir: Path, manifest: Manifest) -> Path:
    """Render each of `run_dir/notebooks/*.ipynb` and the index to `run_dir/reports`; the index.

    The notebooks are read, never changed.
    """
    import nbformat

    reports = run_dir / "reports"
    reports.mkdir(exist_ok=True)
    paths = sorted((run_dir / "notebooks").glob("*.ipynb"))
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in paths}
    steps = list_steps(notebooks, manifest)
    for step in steps:
        if step.page:
            page = render_notebook(notebooks[step.name], step, steps, manifest)
            (reports / step.page).write_text(page, encoding="utf-8")
    index = reports / "index.html"
    index.write_text(render_index(run_dir, steps, manifest), encoding="utf-8")
    return index


def list_steps(notebooks: Mapping[str, NotebookNode], manifest: Manifest) -> list[Step]:
    """The steps of a run in order: what was executed, and what the manifest says of each."""
    told, steps = {step.name: step for step in manifest.notebooks}, []
    for name in sorted({*notebooks, *told}):
        own = told.get(name, runs.Step(name=name, status="completed"))
        executed = name in notebooks
        heading = find_heading(notebooks[name], name) if executed else name
        page = f"{name}.html" if executed else None
        steps.append(Step(name, heading, page, own.answer, own.status, own.seconds))
    return steps


def find_heading(nb: NotebookNode, default: str) -> str:
    """The notebook's first level-one heading as plain text, or `default`."""
    texts = (cell.source for cell in nb.cells if cell.cell_type == "markdown")
    match = re.search(r"^# +(.+?) *#*$", "\n".join(texts), flags=re.MULTILINE)
    return match[1] if match else default


def render_notebook(nb: NotebookNode, step: Step, steps: list[Step], manifest: Manifest) -> str:
    """One analyst's page: the executed notebook, its code folded, with links to its neighbours.

    The answer, in the place that the first cell keeps for it, is data: each character but letters,
    digits and plain punctuation is an entity, without meaning to Markdown, HTML or TeX.
    """
    around = [other for other in steps if other.page]
    here = around.index(step)
    values = describe_page(
        manifest,
        steps,
        title=f"{step.heading} – {manifest.title}",
        here=step.name,
        before=around[here - 1] if here else None,
        after=around[here + 1] if here + 1 < len(around) else None,
        note="A page for analysts, with the code that made it; it may show single customers.",
    )
    get, parts = environment().get_template, ("head", "masthead", "footer")
    chrome = {part: get(f"{part}.html.j2").render(values) for part in parts}
    chrome["answer"] = f'\n\n<p class="answer">{escape(step.answer)}</p>\n\n' * bool(step.answer)
    page, _ = load_exporter().from_notebook_node(nb, {"page": chrome})
    head, opening, rest = page.partition('<main id="main">')
    content, closing, foot = rest.rpartition("</main>")
    return f"{head}{opening}{make_inert(_furnish(content))}{closing}{foot}"


def render_index(run_dir: Path, steps: list[Step], manifest: Manifest) -> str:
    """The analysts' door to a run as one self-contained page; downloads are relative links."""
    pictures = {name: run_dir / "figures" / name for name in PICTURES}
    shown = {name: path for name, path in pictures.items() if path.is_file()}
    values = describe_page(
        manifest,
        steps,
        title=f"{manifest.title} – segmentation run {manifest.run_id}",
        note="The overview of a run, for analysts.",
        readers=[path.name for path in (run_dir / "reports").glob("*.html")],
        pictures=[read_picture(path, PICTURES[name]) for name, path in shown.items()],
        downloads=_list_downloads(run_dir),
    )
    return environment().get_template("index.html.j2").render(values)


def describe_page(manifest: Manifest, steps: list[Step], **values: Any) -> dict[str, Any]:
    """What head, masthead and footer of a page of a run are made of, and the page's own values."""
    shared = {"csp": CSP, "style": stylesheet(), "facts": list_facts(manifest)}
    return shared | {"run": manifest, "steps": steps} | values


@cache
def stylesheet() -> Markup:
    """The design as CSS, ready to be inlined: `style.css` and the segments' colours."""
    colours = "".join(f"--segment-{i}:{colour};" for i, colour in enumerate(PALETTE))
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return Markup(f":root{{{colours}}}\n{style}")


@cache
def environment() -> Environment:
    """The templates; everything that is put into them is escaped."""
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)


@cache
def load_exporter() -> HTMLExporter:
    """One exporter for all pages: making it costs more than a page."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    kinds = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]
    return HTMLExporter(
        config=Config({"NbConvertBase": {"display_data_priority": kinds}}),
        template_name="analyst",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        filters={"without_places": _without_places},
    )


def _without_places(text: str) -> str:
    """Warnings without the file that raised them: a place on the machine, new in each run."""
    return re.sub(r"^.*[/\\][^/\\]+\.py:\d+: (?=\w*Warning: )", "", text, flags=re.MULTILINE)


# Words on the pages ------------------------------------------------------------------------


def list_facts(manifest: Manifest) -> list[tuple[str, object]]:
    """What a reader needs to know before any figure: label and value."""
    rows, rule = manifest.input.get("rows_used"), manifest.rule.replace("-", " ")
    chosen = "as asked" if manifest.asked else f"by the {rule} rule"
    facts = [
        ("Customers", f"{rows:,}" if rows is not None else None),
        ("Segments", f"{manifest.k}, {chosen}" if manifest.k else None),
        ("Verdict", manifest.verdict),
        ("Run", write_date(manifest.started)),
        ("Status", manifest.status),
    ]
    return [(label, value) for label, value in facts if value]


def write_date(moment: str | None, style: str = "%B %Y, %H:%M UTC") -> str:
    """An ISO time in UTC as people write it: "21 November 2026, 22:45 UTC"; nothing for none."""
    if not moment:
        return ""
    when = datetime.fromisoformat(moment)
    when = when.astimezone(UTC) if when.tzinfo else when
    return f"{when.day} {when:{style}}"


# Files of a run ----------------------------------------------------------------------------


def read_picture(path: Path, default: str = "") -> dict[str, str]:
    """A picture as it stands inside a page: src, and as alt the finding that `show` wrote in it."""
    from PIL import Image

    with Image.open(path) as image:
        finding = image.info.get("Description")
    src = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return {"src": src, "alt": finding or default}


def _list_downloads(run_dir: Path) -> dict[str, list[tuple[str, str, int]]]:
    """What there is to download, by kind: name, link relative to `reports/`, and bytes."""
    found = {}
    for kind, patterns in DOWNLOADS.items():
        paths = [path for pattern in patterns for path in sorted(run_dir.glob(pattern))]
        found[kind] = [
            (path.name, "../" + quote(path.relative_to(run_dir).as_posix()), path.stat().st_size)
            for path in paths
            if path.is_file()
        ]
    return found


# Inert pages -------------------------------------------------------------------------------


def make_inert(markup: str) -> str:
    """Only tags and attributes that can neither run, nor load, nor lead elsewhere."""
    import nh3

    return nh3.clean(
        markup,
        tags=nh3.ALLOWED_TAGS | {"section", "tfoot"},
        clean_content_tags={"script", "style", "svg", "math", "noscript", "iframe"},
        attributes={"*": ATTRIBUTES | set(VALUES)},
        generic_attribute_prefixes={"aria-"},
        attribute_filter=lambda _, name, value: (
            value if name not in VALUES or VALUES[name].fullmatch(value) else None
        ),
        url_schemes={"data"},
        link_rel=None,
    )


def _furnish(markup: str) -> str:
    """Web addresses spelled out, tables in boxes that scroll, and whatever scrolls in reach."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(markup, "html.parser")
    for link in soup.find_all("a", href=re.compile("^http")):
        address = str(link["href"])  # which will not be a link
        if address not in link.get_text():
            link.append(f" ({address})")
    for image in soup.find_all("img"):
        image.attrs.setdefault("alt", "A figure without a description")
    for code in soup.find_all("pre"):  # it scrolls, so a keyboard has to reach it
        code.attrs.setdefault("tabindex", "0")
    for table in soup.find_all("table"):
        _align_numbers(table)
        box = {"class": "scroll", "role": "region", "aria-label": "Table", "tabindex": "0"}
        table.wrap(soup.new_tag("div", attrs=box))
    return str(soup)


def _align_numbers(table: Tag) -> None:
    """Mark each column of a table whose body holds only numbers with the class `num`."""
    rows = [row.find_all(["th", "td"]) for row in table.find_all("tr")]
    width = max(map(len, rows), default=0)
    for column in zip(*(row for row in rows if len(row) == width), strict=True):
        texts = [cell.get_text(strip=True) for cell in column if cell.name == "td"]
        if any(texts) and all(NUMBER.fullmatch(text) for text in texts):
            for cell in column:
                cell["class"] = "num"
