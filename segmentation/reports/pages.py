"""What people read: sentences and tables in a notebook, the analysts' pages, and their index.

All HTML of the project is made here, from `templates/`. Nothing in the data can become markup:
texts are escaped, finished pages pass through an allow-list of tags and attributes
(`make_inert`), and a Content-Security-Policy refuses scripts and every request.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from tabulate import tabulate

from segmentation.palette import PALETTE
from segmentation.runs.folder import write_text

if TYPE_CHECKING:
    from bs4 import Tag
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from nbconvert import HTMLExporter
    from nbformat import NotebookNode
    from pandas import DataFrame

TEMPLATES = Path(__file__).parent / "templates"
ANSWER = "<!-- answer -->"
CSP = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
PICTURES = {
    "customer_segmentation_2d.png": "The segments, drawn over two features",
    "customer_segmentation_3d.png": "The segments, drawn over three features",
}
READERS = {
    "report.html": (
        "The report",
        "One file for whoever decides: to send, to print, to read on a phone.",
    ),
    "explore.html": (
        "The explorer",
        "Every customer a point, in two dimensions or three; without ids.",
    ),
}
"""The pages that are not notebooks: what the index says of them."""

DOWNLOADS = {
    "Tables": ("tables/*",),
    "Findings": ("summary.txt", "segments.json", "run.json"),
    "Model": ("artifacts/*",),
    "Figures": ("figures/*.png",),
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


KEPT = _names(
    "a abbr b blockquote br caption cite code col colgroup dd del details div dl dt em figcaption "
    "figure h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s section small span strong sub "
    "summary sup table tbody td tfoot th thead time tr u ul var"
)
DROPPED = _names(
    "script style template noscript iframe frame frameset object embed applet audio video canvas "
    "svg math form input textarea select button link meta base title head xmp plaintext"
)
ATTRIBUTES = _names(
    "alt class colspan datetime height id lang open role rowspan scope span start tabindex title "
    "width"
)
VALUES = {
    "href": re.compile(r"#[\w.=-]*|(?:\.\./)*[\w.%-]+(?:/[\w.%-]+)*(?:#[\w.=-]*)?"),
    "src": re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,[\w+/=\s]*"),
    "style": re.compile(r"text-align: *(?:left|right|center);?"),
}
NUMBER = re.compile(r"[-−+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?\s?%?|nan|", re.IGNORECASE)


# What a notebook shows ---------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """Something to look at: plain text in a terminal, escaped HTML in a notebook."""

    text: str
    markup: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.markup


def say(*texts: str) -> Shown:
    """Findings, a paragraph each; a text is data and may hold any character."""
    return Shown(
        "\n\n".join(texts), "".join(f'<p class="finding">{_escape(text)}</p>' for text in texts)
    )


def show_table(frame: DataFrame, *, digits: int | Mapping[str, int] = 2) -> Shown:
    """The table as people read it: thousands set apart, `digits` decimals, blanks for missing.

    `digits` is one number for all columns, or one a column (others keep 2). A plain running
    index is left out; any other is shown with its name.
    """
    places = digits if isinstance(digits, Mapping) else dict.fromkeys(frame.columns, digits)
    places = {**places, **dict.fromkeys(_find_whole(frame), 0)}
    running = type(frame.index).__name__ == "RangeIndex" and frame.index.name is None
    table = frame if running else _index_as_columns(frame)
    columns = [
        [format_value(value, places.get(name, 2)) for value in table.iloc[:, i].to_list()]
        for i, name in enumerate(table.columns)
    ]
    rows = list(zip(*columns, strict=True))
    options: dict[str, Any] = {
        "headers": [" · ".join(filter(None, map(str, _levels(name)))) for name in table.columns],
        "colalign": ["right" if kind.kind in "iufc" else "left" for kind in table.dtypes],
        "disable_numparse": True,
    }
    if not rows:
        options.pop("colalign")
    return Shown(
        tabulate(rows, tablefmt="simple", **options),
        str(tabulate(rows, tablefmt="html", **options)),
    )


def _find_whole(frame: DataFrame) -> list[Any]:
    """The columns of numbers that are all whole, for which decimals would be noise."""
    numbers = frame.select_dtypes("floating")
    return [name for name in numbers if (numbers[name].dropna() % 1 == 0).all(axis=None)]


def format_value(value: object, digits: int = 2) -> str:
    """A cell's text: 1,234 for a whole number, 1,234.50 for a real one, blank for a missing one."""
    if value is None or str(value) in {"nan", "<NA>", "NaT"}:
        return ""
    if type(value).__name__ in {"bool", "bool_"}:
        return "yes" if value else "no"
    if not isinstance(value, Real):
        return str(value)
    if isinstance(value, Integral):
        return f"{int(value):,}"
    text = f"{float(value):,.{digits}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text


def _index_as_columns(frame: DataFrame) -> DataFrame:
    """The frame with its index as the first columns, nameless ones under an empty heading."""
    names = [name or "" for name in frame.index.names]
    return frame.reset_index(names=names, allow_duplicates=True)


def _levels(name: object) -> tuple[object, ...]:
    return name if isinstance(name, tuple) else (name,)


@dataclass(frozen=True)
class Picture:
    """A figure as a notebook shows it: the PNG, its finding as alt text and as a paragraph."""

    png: bytes
    width: int
    finding: str

    def _ipython_display_(self) -> None:
        from IPython.display import display

        data = {"image/png": self.png, "text/plain": self.finding}
        shown = {"image/png": {"alt": self.finding, "width": self.width}}
        display(data, raw=True, metadata=shown)
        display(say(self.finding))


def show_figure(drawn: Figure | Axes, finding: str, *, save: Path) -> Picture:
    """Save a figure (or that of some Axes) as PNG, its finding inside, and show both."""
    from matplotlib import pyplot as plt

    figure = drawn.get_figure(root=True)
    assert figure is not None
    figure.savefig(save, dpi=160, bbox_inches="tight", metadata={"Description": finding})
    plt.close(figure)
    png = save.read_bytes()
    return Picture(png, int.from_bytes(png[16:20], "big") // 2, finding)


def insert_answer(nb: NotebookNode, answer: str) -> NotebookNode:
    """The notebook with `answer` in the place that its first cell keeps for it.

    The answer is data: each character but letters, digits and plain punctuation becomes an
    entity, so that neither Markdown nor HTML nor TeX finds a meaning in it.
    """
    nb = nb.copy()
    first = nb.cells[0].copy()
    paragraph = f'\n\n<p class="answer">{_escape(answer)}</p>\n\n' if answer else ""
    first.source = first.source.replace(ANSWER, paragraph)
    nb.cells = [first, *nb.cells[1:]]
    return nb


def _escape(text: str) -> str:
    """One line of text, inert in HTML, in Markdown and (dollar signs stand apart) in MathJax."""
    line = " ".join(text.split())
    entities = re.sub(r"[^\w\s.,;:–’]|_", lambda match: f"&#{ord(match[0])};", line)
    return entities.replace("&#36;", "<span>&#36;</span>")


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


def write_pages(run_dir: Path, manifest: dict[str, Any]) -> Path:
    """Render each of `run_dir/notebooks/*.ipynb` and the index to `run_dir/reports`; the index.

    `manifest` is the content of `run.json`. The notebooks are read, never changed.
    """
    import nbformat

    reports = run_dir / "reports"
    reports.mkdir(exist_ok=True)
    paths = sorted((run_dir / "notebooks").glob("*.ipynb"))
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in paths}
    steps = list_steps(notebooks, manifest)
    exporter = load_exporter()
    for step in steps:
        if step.page:
            page = render_notebook(notebooks[step.name], step, steps, manifest, exporter)
            (reports / step.page).write_text(page, encoding="utf-8")
    index = reports / "index.html"
    index.write_text(render_index(run_dir, steps, manifest), encoding="utf-8")
    return index


def list_steps(notebooks: Mapping[str, NotebookNode], manifest: dict[str, Any]) -> list[Step]:
    """The steps of a run in order: what was executed, and what the manifest says of each."""
    told = {entry["name"]: entry for entry in manifest.get("notebooks", [])}
    return [
        Step(
            name=name,
            heading=find_heading(notebooks[name], name) if name in notebooks else name,
            page=f"{name}.html" if name in notebooks else None,
            answer=told.get(name, {}).get("answer") or "",
            status=told.get(name, {}).get("status", "completed"),
            seconds=told.get(name, {}).get("seconds"),
        )
        for name in sorted({*notebooks, *told})
    ]


def find_heading(nb: NotebookNode, default: str) -> str:
    """The notebook's first level-one heading as plain text, or `default`."""
    texts = (cell.source for cell in nb.cells if cell.cell_type == "markdown")
    match = re.search(r"^# +(.+?) *#*$", "\n".join(texts), flags=re.MULTILINE)
    return match[1] if match else default


def render_notebook(
    nb: NotebookNode,
    step: Step,
    steps: list[Step],
    manifest: dict[str, Any],
    exporter: HTMLExporter,
) -> str:
    """One analyst's page: the executed notebook, its code folded, with links to its neighbours."""
    around = [other for other in steps if other.page]
    here = around.index(step)
    chrome = _chrome(
        manifest,
        steps,
        title=f"{step.heading} – {manifest['title']}",
        here=step.name,
        before=around[here - 1] if here else None,
        after=around[here + 1] if here + 1 < len(around) else None,
        note="A page for analysts, with the code that made it; it may show single customers.",
    )
    answered = insert_answer(nb, step.answer)
    page, _ = exporter.from_notebook_node(answered, {"page": chrome})
    return _finish(page)


def render_index(run_dir: Path, steps: list[Step], manifest: dict[str, Any]) -> str:
    """The analysts' door to a run as one self-contained page; downloads are relative links."""
    chosen = None if manifest.get("asked") else manifest.get("rule")
    chrome = _chrome(
        manifest,
        steps,
        title=f"{manifest['title']} – segmentation run {manifest['run_id']}",
        note="The overview of a run, for analysts.",
    )
    template = environment().get_template("index.html.j2")
    return template.render(
        **chrome,
        run=manifest,
        steps=steps,
        heading=_headline(manifest),
        reason=_reason(manifest),
        chosen=chosen,
        agreement=_agreement(manifest.get("rules", {})),
        readers={
            page: told for page, told in READERS.items() if (run_dir / "reports" / page).is_file()
        },
        pictures=_list_pictures(run_dir),
        downloads=_list_downloads(run_dir),
        provenance=_provenance(manifest),
        details={"Parameters": manifest.get("parameters"), "Versions": manifest.get("versions")},
    )


def write_runs(
    output_dir: Path, latest: dict[str, Any] | None, listed: list[dict[str, Any]]
) -> Path:
    """Write `output_dir/index.html`, the runs of `list_runs` for people, newest first; its path."""
    page = environment().get_template("runs.html.j2")
    rows = [_describe_run(run, latest, output_dir) for run in listed]
    path = output_dir / "index.html"
    text = page.render(
        title=f"{latest['title'] if latest else 'Customer segments'} – the runs",
        csp=CSP,
        style=stylesheet(),
        study=latest["title"] if latest else "Customer segments",
        stale=summarize_stale(latest, listed),
        newest=next((row for row in rows if row["newest"]), None),
        headline=_headline(latest) if latest else f"{NONE_WHOLE}.",
        runs=rows,
    )
    write_text(path, text)
    return path


def _describe_run(
    run: dict[str, Any], latest: dict[str, Any] | None, output_dir: Path
) -> dict[str, Any]:
    """A run as the page of the runs shows it; links only to pages that are there."""
    pages = {
        name: quote(f"{run['folder']}/reports/{name}")
        for name in ("report.html", "explore.html", "index.html")
        if (output_dir / run["folder"] / "reports" / name).is_file()
        and run["status"] in ("published", "partial")
    }
    return {
        **{key: run.get(key) for key in ("run_id", "title", "status", "k", "verdict")},
        "when": _date(run["started"]),
        "customers": format_value(run.get("input", {}).get("rows_used")),
        "told": f"It {describe_failure(run)}." if run["status"] in FAULTS else "",
        "pages": pages,
        "newest": _is_latest(run, latest),
    }


def _chrome(
    manifest: dict[str, Any], steps: list[Step], *, title: str, note: str, **places: Any
) -> dict[str, Markup]:
    """Head, masthead and footer of a page as markup, the same on all pages of a run."""
    values = {
        "run": manifest,
        "steps": steps,
        "facts": list_facts(manifest),
        "note": note,
        **places,
    }
    values |= {"title": title, "csp": CSP, "style": stylesheet()}
    parts = ("head", "masthead", "footer")
    get = environment().get_template
    return {part: Markup(get(f"{part}.html.j2").render(values)) for part in parts}


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


def list_facts(manifest: dict[str, Any]) -> list[tuple[str, object]]:
    """What a reader needs to know before any figure: label and value."""
    k, rows = manifest.get("k"), manifest.get("input", {}).get("rows_used")
    facts = [
        ("Customers", f"{rows:,}" if rows is not None else None),
        ("Segments", f"{k}, {_chooser(manifest)}" if k else None),
        ("Verdict", manifest.get("verdict")),
        ("Run", _date(manifest.get("started"))),
        ("Status", manifest["status"]),
    ]
    return [(label, value) for label, value in facts if value]


def _chooser(manifest: dict[str, Any]) -> str:
    """Who decided on the number of segments: "as asked" or "by the elbow rule"."""
    return "as asked" if manifest.get("asked") else f"by the {_words(manifest['rule'])} rule"


def _headline(manifest: dict[str, Any]) -> str:
    """The index's heading: "4 segments among 200 customers"."""
    k, rows = manifest.get("k"), manifest.get("input", {}).get("rows_used")
    if not k or rows is None:
        return "A run without an answer"
    return f"{_count(k, 'segment')} among {_count(rows, 'customer')}"


def _reason(manifest: dict[str, Any]) -> str:
    """A sentence on who decided, and on rows left out."""
    if not manifest.get("k"):
        return ""
    table = manifest["input"]
    left_out = table.get("rows_read", 0) - table.get("rows_used", 0)
    by = "was asked for" if manifest.get("asked") else f"was chosen {_chooser(manifest)}"
    dropped = f" {_count(left_out, 'row')} of the table took no part." if left_out > 0 else ""
    return f"The number of segments {by}.{dropped}"


def _agreement(rules: Mapping[str, int | None]) -> str:
    """Whether the rules agree, in a sentence."""
    answers = sorted({k for k in rules.values() if k})
    if len(rules) < 2 or not answers:
        return ""
    if len(answers) == 1:
        return f"The rules agree on {answers[0]}."
    first, last = ", ".join(map(str, answers[:-1])), answers[-1]
    return f"The rules disagree: they answer {first} and {last}. No rule is right by itself."


def _provenance(manifest: dict[str, Any]) -> list[tuple[str, object]]:
    """Input, hash, code and time of a run: label and value."""
    table = manifest.get("input", {})
    rows = f"{table.get('rows_read', 0):,} read, {table.get('rows_used', 0):,} used"
    lines = [
        ("Customer table", table.get("path")),
        ("Its SHA-256", table.get("sha256")),
        ("Rows", rows if table else None),
        ("Code", manifest.get("git_commit")),
        ("Run", manifest["run_id"]),
    ]
    return [(label, value) for label, value in lines if value]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _words(name: str) -> str:
    """A rule's name in words: "prediction strength" for `prediction-strength`."""
    return name.replace("-", " ").replace("_", " ")


def summarize_stale(latest: dict[str, Any] | None, listed: list[dict[str, Any]]) -> str:
    """Why the newest report is older than the newest run, of `list_runs`; empty where it is not."""
    begun = latest["started"] if latest else ""
    later = [run for run in listed if run["status"] in FAULTS and run["started"] > begun]
    if not later:
        return ""
    first = f"The report of {_date(begun)} is the newest that is whole" if latest else NONE_WHOLE
    last = f"the run of {_date(later[0]['started'])} {describe_failure(later[0])}"
    if len(later) > 1:
        return f"{first}; {_count(len(later), 'later run')} did not come through. The last: {last}."
    return f"{first}; {last}."


NONE_WHOLE = "No run has come through yet"
FAULTS = {"failed": "failed", "aborted": "was stopped", "crashed": "crashed"}
"""The statuses of a run that did not come through, and what one says of it."""


def tell_run(run: dict[str, Any], latest: dict[str, Any] | None) -> dict[str, object]:
    """A run as a row of text."""
    return {
        "run": run["run_id"],
        "status": f"{run['status']}{', latest' if _is_latest(run, latest) else ''}",
        "when": _date(run["started"]),
        "k": run.get("k"),
        "verdict": run.get("verdict"),
        "customers": format_value(run.get("input", {}).get("rows_used")),
        "cause": describe_failure(run) if run["status"] in FAULTS else "",
    }


def _is_latest(run: dict[str, Any], latest: dict[str, Any] | None) -> bool:
    published = run["status"] == "published"  # a failed run may have had the same id
    return published and latest is not None and run["run_id"] == latest["run_id"]


def describe_failure(run: dict[str, Any]) -> str:
    """What happened to a run that did not come through: "failed in 03_k_selection: …"."""
    failure = run.get("failure", {})
    where = f" in {failure['notebook']}" if failure.get("notebook") else ""
    cell = f", cell [{failure['cell']}]" if failure.get("cell") else ""
    return f"{FAULTS[run['status']]}{where}{cell}: {failure.get('cause', 'unknown')}".rstrip(".")


def _date(moment: str | None) -> str | None:
    """An ISO time in UTC as people write it: "21 November 2026, 22:45 UTC"."""
    if not moment:
        return None
    when = datetime.fromisoformat(moment).astimezone(UTC)
    return f"{when.day} {when:%B %Y, %H:%M} UTC"


# Files of a run ----------------------------------------------------------------------------


def _list_pictures(run_dir: Path) -> list[dict[str, str]]:
    """The two pictures of the segments that exist, as data URIs with the findings they carry."""
    folder = run_dir / "figures"
    return [
        {"src": data_uri(folder / name), "alt": read_finding(folder / name) or alt}
        for name, alt in PICTURES.items()
        if (folder / name).is_file()
    ]


def read_finding(path: Path) -> str:
    """What `show_figure` wrote into a picture: the sentence that says what it shows."""
    from PIL import Image

    with Image.open(path) as image:
        return str(image.info.get("Description", ""))


def data_uri(path: Path) -> str:
    """A picture as it stands inside a page."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _list_downloads(run_dir: Path) -> dict[str, list[dict[str, str]]]:
    """What there is to download, by kind: name, link relative to `reports/`, and size."""
    return {
        kind: [
            _describe_file(path, run_dir)
            for pattern in patterns
            for path in sorted(run_dir.glob(pattern))
            if path.is_file()
        ]
        for kind, patterns in DOWNLOADS.items()
    }


def _describe_file(path: Path, run_dir: Path) -> dict[str, str]:
    href = "../" + quote(path.relative_to(run_dir).as_posix())
    size = path.stat().st_size
    shown = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"
    return {"name": path.name, "href": href, "size": shown}


# Inert pages -------------------------------------------------------------------------------


def _finish(page: str) -> str:
    """The page with its content made inert, and its tables aligned and put into scroll boxes."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(page, "html.parser")
    main = soup.main
    if main is None:
        raise ValueError("the page has no main part")
    make_inert(main)
    for code in main.find_all("pre"):  # it scrolls, so a keyboard has to reach it
        code.attrs.setdefault("tabindex", "0")
    for table in main.find_all("table"):
        _align_numbers(table)
        box = {"class": "scroll", "role": "region", "aria-label": "Table", "tabindex": "0"}
        table.wrap(soup.new_tag("div", attrs=box))
    return str(soup)


def make_inert(root: Tag) -> None:
    """Leave only tags and attributes that can neither run, nor load, nor lead elsewhere.

    Works on the parsed tree in place; whatever is not on a list goes. A web address is kept as
    text behind its link's words.
    """
    from bs4.element import PreformattedString

    for node in root.find_all(string=lambda text: isinstance(text, PreformattedString)):
        node.extract()
    for tag in root.find_all(list(DROPPED)):
        tag.decompose()
    for tag in root.find_all(True):
        if tag.name not in KEPT:
            tag.unwrap()
            continue
        _spell_out_address(tag)
        tag.attrs = {name: value for name, value in tag.attrs.items() if _is_inert(name, value)}
        if tag.name == "img":
            tag.attrs.setdefault("alt", "A figure without a description")


def _spell_out_address(link: Tag) -> None:
    """Put a web address behind the words of its link, for it will not be one."""
    address = str(link.get("href", ""))
    if link.name == "a" and address.startswith("http") and address not in link.get_text():
        link.append(f" ({address})")


def _is_inert(name: str, value: object) -> bool:
    """Whether an attribute may stay: by its name, and links, sources and styles by their value."""
    if name in VALUES:
        return VALUES[name].fullmatch(str(value)) is not None
    return name in ATTRIBUTES or name.startswith("aria-")


def _align_numbers(table: Tag) -> None:
    """Mark each column of a table whose body holds only numbers with the class `num`."""
    rows = [row.find_all(["th", "td"]) for row in table.find_all("tr")]
    width = max(map(len, rows), default=0)
    for column in zip(*(row for row in rows if len(row) == width), strict=True):
        texts = [cell.get_text(strip=True) for cell in column if cell.name == "td"]
        if any(texts) and all(NUMBER.fullmatch(text) for text in texts):
            for cell in column:
                cell["class"] = "num"
