"""The command: `segmentation run`, `runs`, `verify`, `card`, `notebooks`, `audience`, `score` …

Exit codes of a run: 0 published, 1 failed, 2 refused, 75 another run holds the folder, 124 a limit
of time passed, 129, 130, 143 stopped, 138 a kernel died.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from segmentation import ROOT, InputError, RunError, __version__, series
from segmentation.runs import Archive, Run, read_manifest

PATHS = {"card", "output_dir", "notebooks", "against"}
"""Options that may be paths: on the command line they start at the current folder."""

JOB = [*series.Parameters.model_fields.items(), *series.Job.model_fields.items()]
"""The fields that are options of the main job."""

Model = TypeVar("Model", bound=BaseModel)


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one line and names the nearest option."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and the mend, and exit with 2."""
        if message.startswith("unrecognized arguments: "):
            word = message.split(": ", 1)[1].split("=")[0].split()[0]
            near = get_close_matches(word, self._option_string_actions, n=1)
            mend = f"did you mean {near[0]}?" if near else f"see {self.prog} --help."
            message = f"unknown option {word}; {mend}"
        self.exit(InputError.code, f"{self.prog}: {message}\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse an empty value: it stands for a variable that is not set."""
        given = sys.argv[1:] if args is None else args
        for word in given:
            if not word or (word[:2] == "--" and word[-1] == "="):
                self.error(f"an empty value{word and f' for {word[:-1]}'}; is a variable unset?")
        return super().parse_known_args(given, namespace)

    def add_fields(self, *fields: tuple[str, FieldInfo]) -> None:
        """Options for fields of a model; `SEGMENTATION_K_MAX` in the environment is --k-max."""
        for name, field in fields:
            flag = (field.alias or name).replace("_", "-")
            default = "" if field.default in ("", None, False) else f" (default: {field.default})"
            told: dict[str, Any] = {"help": f"{field.description}{default}".replace("%", "%%")}
            told["default"] = os.environ.get(f"SEGMENTATION_{flag.replace('-', '_').upper()}")
            if name == "card":
                self.add_argument(name, nargs="?", **told)
            else:
                action = "store_true" if field.annotation is bool else "store"
                self.add_argument(f"--{flag}", dest=name, action=action, **told)


def read_options(model: type[Model], options: argparse.Namespace) -> Model:
    """A model out of the options; what it refuses is an InputError, a line each."""
    named = {name: getattr(options, name, None) for name in model.model_fields}
    given = {name: word for name, word in named.items() if word and (name, word) != ("k", "auto")}
    for name in PATHS & {*given}:
        if name != "against" or os.sep in given[name]:
            given[name] = os.path.realpath(given[name])  # a loop of links is no such file
    try:
        return model(**given)
    except ValidationError as error:
        from segmentation.customers import cards

        raise InputError(cards.explain_error(error, model)) from None


def build_parser() -> Parser:
    """The command's options."""
    parser = Parser(prog="segmentation", description="Customer segments that one can trust.")
    parser.add_argument("--version", action="version", version=f"segmentation {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    commands.add_parser("run", help="run the series on a table").add_fields(*JOB)
    card = commands.add_parser("card", help="draft a card for a table")
    card.add_argument("table", type=Path, help="CSV, Parquet or Excel file")
    card.add_argument("-o", type=Path, metavar="CARD", help="where it goes (default: beside)")
    fields = series.Parameters.model_fields
    card.add_fields(*[(name, fields[name]) for name in ("features", "encoding", "sheet")])
    copy = commands.add_parser("notebooks", help="copy the series, to read and change it")
    copy.add_argument("folder", type=Path, metavar="DIR", help="where it goes")
    score = commands.add_parser(
        "score", help="put the customers of a file or database into segments"
    )
    score.add_argument("file", nargs="?", type=Path, metavar="TABLE", help="CSV, Parquet or Excel")
    score.add_argument("-o", type=Path, metavar="FILE", help="CSV or Parquet to write")
    score.add_argument("--backend", metavar="URL", help="a database or cluster instead of a file")
    score.add_argument("--table", metavar="NAME", help="its table of customers")
    score.add_argument("--into", metavar="NAME", help="the table to make there")
    score.add_argument("--segment", default="", metavar="NAME", help="keep one segment's customers")
    score.add_fields(*[(name, fields[name]) for name in ("encoding", "sheet")])
    send = commands.add_parser("audience", help="lists of a segment's customers, some held back")
    send.add_argument("campaign", metavar="CAMPAIGN", help="its name, which keys the draw")
    send.add_argument("--segment", action="append", default=[], metavar="NAME", help="only this")
    send.add_argument("--hold-back", default="20%", metavar="SHARE", help="who gets nothing (20%%)")
    send.add_argument("--status", default="ok,borderline", help="whom to take (ok,borderline)")
    send.add_argument("-o", type=Path, required=True, metavar="DIR", help="where the lists go")
    serve = commands.add_parser("serve", help="answer over HTTP, with a page")
    serve.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port (default: 8000)")
    hosts = "a name that clients may call it by, * any (default: localhost and --host)"
    serve.add_argument("--allowed-host", action="append", default=[], metavar="NAME", help=hosts)
    latest, text = ROOT / "outputs/latest", "the run whose model answers (default: outputs/latest)"
    for each in (send, score, serve):
        each.add_argument("--run", type=Path, metavar="RUN", default=latest, help=text)
    runs = commands.add_parser("runs", help="list the runs")
    verify = commands.add_parser("verify", help="check a run's files")
    verify.add_argument("run", metavar="RUN", help="id or folder of a run")
    verify.add_argument("--rerun", action="store_true", help="run it again and compare the figures")
    for each in (runs, verify):
        each.add_fields(("output_dir", series.Job.model_fields["output_dir"]))
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = build_parser().parse_args(arguments)
    commands = {"run": run, "runs": show_runs, "verify": verify}
    commands |= {
        "card": draft,
        "notebooks": copy_notebooks,
        "audience": audience,
        "score": score,
        "serve": serve,
    }
    return _end(commands[options.command], options)


def run_main_job(arguments: list[str] | None = None) -> int:
    """`run_all.py`: the same as `segmentation run`."""
    parser = Parser(prog="run_all.py", description=__doc__)
    parser.add_fields(*JOB)
    return _end(run, parser.parse_args(arguments))


def _end(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; what it refuses, or what stops it, is told in a line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a sign that a terminal cannot show stops nothing
            stream.reconfigure(errors="replace")
    try:
        with series.listen():
            return command(options)
    except series.Stopped as stop:
        told, code = "stopped; the last published run stays as it was.", stop.code
    except (InputError, RunError) as error:
        told, code = str(error), error.code
    except OSError as error:
        place = error.filename or "the output"
        told, code = f"{place}: {error.strerror or error}; mend it, and run this again.", 1
    with suppress(OSError, ValueError, AttributeError):  # nobody listens
        sys.stderr.write(f"{_clean(told)}\n")
    return code


def _clean(text: str) -> str:
    """A text without what would steer the terminal: a table's own words may stand in it."""
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)


def _tell(text: object, clean: Callable[[str], str] = _clean) -> None:
    """Print a result; a stream that is closed changes no outcome."""
    try:
        print(clean(str(text)), flush=True)
    except (OSError, ValueError):  # the system must not flush it again at the end
        sys.stdout = None


def _has_colour() -> bool:
    """Whether results go to a terminal whose user has not refused colours (no-color.org)."""
    with suppress(AttributeError, ValueError):  # no stream, or a closed one
        return sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return False


# The commands --------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """Run the series; the exit code says how it ended."""
    # two seconds of grammars that jsonschema loads where it finds them; no notebook needs them
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    parameters = read_options(series.Parameters, options)
    job = read_options(series.Job, options)
    if job.dry_run:
        _tell(series.describe_plan(series.plan_series(parameters, job)))
    else:
        report = series.run_series(parameters, job)
        folder = report.parents[1]
        if not job.quiet and Run(folder).manifest.status == "published":
            _tell(f"\n{series.describe_outcome(folder, colour=_has_colour())}\n", clean=str)
        _tell(report)
    return 0


def show_runs(options: argparse.Namespace) -> int:
    """List the runs, newest first, and say what is stale and why."""
    from tabulate import tabulate

    from segmentation.reports import summarize_stale, tell_run

    archive = Archive(read_options(series.Job, options).output_dir)
    latest, listed = read_manifest(archive.folder / "latest"), archive.list_runs()
    rows = [tell_run(run, latest) for run in listed]
    told = tabulate(rows, headers="keys", disable_numparse=True)
    _tell(told if rows else f"There are no runs in {archive.folder}.")
    if stale := summarize_stale(latest, [*listed]):
        _tell(f"\n{stale}")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Hash every file of a run again; 0 as published, 1 something differs, 2 no such run."""
    folder = Archive(read_options(series.Job, options).output_dir).find_run(options.run)
    differs = Run(folder).verify()
    if options.rerun and not differs:
        differs = series.run_again(folder)
    _tell("\n".join(differs) or f"{folder.name}: every file is as its manifest says.")
    if options.rerun and not differs:
        _tell("Run again, it gives the same tables and segments to ten significant digits.")
    return 1 if differs else 0


def draft(options: argparse.Namespace) -> int:
    """Draft a card for a table, write it beside, and tell why each column became what it is."""
    from tabulate import tabulate

    from segmentation.customers import cards, explain_card

    source = Path(os.path.realpath(options.table))
    target = options.o or source.with_suffix(".yaml")
    if target.exists():
        raise InputError(f"{target} is there already; name another by -o.")
    asked = read_options(series.Parameters, options)
    chosen = asked.model_dump(include={"features", "encoding", "sheet"})
    card, reasons = explain_card(source, **chosen, ask=False)
    if reasons is None:
        raise InputError(f"{source} is a card already; give a table.")
    card = card.model_copy(
        update={"table": os.path.relpath(source, os.path.realpath(target.parent))}
    )
    target.write_text(cards.write_draft(card, reasons), encoding="utf-8")
    told = reasons.rename(columns={"reason": "why", "change": "what to change"})
    widths = [24, 12, 40, 14, 36]
    _tell(tabulate(told, "keys", showindex=False, disable_numparse=True, maxcolwidths=widths))
    _tell(f"\nEdit it, then: segmentation run {target.name}\n{target}")
    return 0


def copy_notebooks(options: argparse.Namespace) -> int:
    """Copy the series into a folder of the user's; nothing that is there is replaced."""
    series.copy_notebooks(options.folder)
    _tell(f"Change it, then: segmentation run TABLE --notebooks {options.folder}")
    return 0


def audience(options: argparse.Namespace) -> int:
    """Write a list a segment, some of it held back, and say how alike the groups are."""
    from tabulate import tabulate

    from segmentation.reports import write_checks
    from segmentation.segments import campaigns

    told, balance = campaigns.make_lists(
        Run(options.run),
        options.campaign,
        options.o,
        segments=options.segment,
        hold_back=campaigns.read_share(options.hold_back),
        statuses=[word.strip() for word in options.status.split(",")],
    )
    rows = [[row.id, row.name, row.customers, row.held_back, row.file] for row in told.segments]
    heads = ["segment", "", "customers", "held back", "list"]
    _tell(tabulate(rows, heads, disable_numparse=True))
    beyond = balance[balance["difference"].abs() > balance["limit"]]
    alike = "Those held back are like the others, as far as chance allows, in every feature."
    differ = "Those held back differ from the others in some feature, by more than chance allows."
    page = options.o / f"{told.campaign}_checks.html"
    name = f"The campaign {told.campaign}, as it was drawn"
    write_checks(page, name, alike if beyond.empty else differ, balance)
    if beyond.empty:
        _tell(alike)
    for row in beyond.itertuples():
        apart = f"{row.variable} of {row.segment}: {row.difference:+.2f} sd"
        _tell(f"{apart}, beyond {row.limit:.2f}; another name of the campaign draws anew.")
    _tell(page)
    _tell(options.o)
    return 0


def score(options: argparse.Namespace) -> int:
    """Score a file, or a table where it lies."""
    file = {"TABLE": options.file, "-o FILE": options.o}
    base = {"--backend": options.backend, "--table": options.table, "--into": options.into}
    if any(file.values()) and any(base.values()):
        raise InputError("give a file and -o, or --backend, --table and --into; not both.")
    missing = [name for name, value in (base if any(base.values()) else file).items() if not value]
    if missing:
        raise InputError(f"{' and '.join(missing)} missing; see segmentation score --help.")
    from segmentation.serving import batch

    model, kept = batch.load_model(options.run), options.segment
    if options.file:
        how = {"encoding": options.encoding or "", "sheet": options.sheet or ""}
        tally = batch.score_file(options.file, options.o, model, segment=kept, **how)
    else:
        backend, source, into = base.values()
        tally = batch.score_into(backend, source, into, model, segment=kept)
    if options.o and not options.o.is_file():  # a pipe, which takes the rows alone
        return 0
    _tell(tally.describe(model))
    _tell(options.o or options.into)
    return 0


def serve(options: argparse.Namespace) -> int:
    """Serve the newest model; 130 or 143 stopped."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        from segmentation.serving import server

        allowed = options.allowed_host
        server.serve(options.run, host=options.host, port=options.port, allowed=allowed)
    except ImportError as error:
        raise InputError(
            f"serving needs {error.name}; pip install 'customer-segments[service]'."
        ) from None
    except series.Stopped as stop:
        return stop.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
