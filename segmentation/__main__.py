"""The command: `segmentation run`, `runs`, `verify`, `card`, `score`, `serve`.

Exit codes of a run: 0 published, 1 failed, 2 refused, 75 another run holds the folder, 124 a limit
of time passed, 129, 130, 143 stopped, 138 a kernel died.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from segmentation import ROOT, InputError, RunError, __version__
from segmentation.series import signals

REFUSED, FAILED = 2, 1
HOW = (
    *("run_id", "only", "keep", "wait", "cell_timeout", "deadline"),
    *("on_publish", "on_failure", "quiet"),
)
"""The options of a run that `pipeline.Job` knows by the same names."""

SLOW = "rfc3987_syntax"
"""Two seconds of grammars that jsonschema loads where it finds them; no notebook needs them."""


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one line and names the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and the mend, and exit with 2."""
        if message.startswith("unrecognized arguments: "):
            word = message.split(": ", 1)[1].split("=")[0].split()[0]
            near = get_close_matches(word, self._option_string_actions, n=1)
            mend = f"did you mean {near[0]}?" if near else f"see {self.prog} --help."
            message = f"unknown option {word}; {mend}"
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(REFUSED)


def build_parser(prog: str = "segmentation") -> Parser:
    """The command's options, with the defaults that `Parameters` has."""
    parser = Parser(
        prog=prog, description="Customer segments that one can trust.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"segmentation {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    run = commands.add_parser("run", help="run the series on a table", allow_abbrev=False)
    add_run_options(run)
    card = commands.add_parser("card", help="draft a card for a table", allow_abbrev=False)
    card.add_argument("table", type=Path, help="CSV, Parquet or Excel file")
    card.add_argument("-o", type=Path, metavar="CARD", help="where it goes (default: beside)")
    score = commands.add_parser(
        "score", help="put the customers of a file or database into segments", allow_abbrev=False
    )
    score.add_argument("file", nargs="?", type=Path, metavar="TABLE", help="CSV, Parquet or Excel")
    score.add_argument("-o", type=Path, metavar="FILE", help="CSV or Parquet to write")
    score.add_argument("--backend", metavar="URL", help="a database or cluster instead of a file")
    score.add_argument("--table", metavar="NAME", help="its table of customers")
    score.add_argument("--into", metavar="NAME", help="the table to make there")
    score.add_argument("--segment", default="", metavar="NAME", help="keep one segment's customers")
    _add_model(score)
    serve = commands.add_parser("serve", help="answer over HTTP, with a page", allow_abbrev=False)
    serve.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port (default: 8000)")
    _add_model(serve)
    runs = commands.add_parser("runs", help="list the runs", allow_abbrev=False)
    verify = commands.add_parser("verify", help="check a run's files", allow_abbrev=False)
    verify.add_argument("run", metavar="RUN", help="id or folder of a run")
    verify.add_argument("--rerun", action="store_true", help="run it again and compare the figures")
    for each in (runs, verify):
        each.add_argument("--output-dir", type=Path, metavar="DIR", help="default: outputs")
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    text = "the run whose model answers (default: outputs/latest)"
    parser.add_argument(
        "--run", type=Path, metavar="RUN", default=ROOT / "outputs/latest", help=text
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of the main job."""
    add = parser.add_argument
    add("card", nargs="?", metavar="CARD_OR_TABLE", help="dataset card, or a table without one")
    add("--k", default="auto", metavar="auto|N", help="number of segments (default: auto)")
    add("--rule", help="who decides under auto: calibrated (default), silhouette, elbow, gap, "
        "prediction-strength or stability")  # fmt: skip
    add("--k-max", type=int, metavar="N", help="largest K tried (default: 10)")
    add("--features", metavar="A,B", help="columns or labels to use (default: the card's)")
    add("--resamples", type=int, metavar="N", help="scale of every resampling (default: 100)")
    add("--seed", type=int, metavar="N", help="seed of every random draw (default: 0)")
    add("--as-of", metavar="DATE", help="date of the data (default: the card's)")
    add("--against", metavar="previous|RUN|none", help="run to compare with (default: previous)")
    add("--output-dir", type=Path, metavar="DIR", help="where runs go (default: outputs)")
    add("--run-id", default="", metavar="ID", help="name of the run (default: the time, UTC)")
    add("--quiet", action="store_true", help="print only the path of the report")
    add("--notebooks", type=Path, metavar="DIR", help="the series (default: notebooks)")
    add("--from", dest="start", default="", metavar="03",
        help="start at this notebook; take those before over from the latest run")  # fmt: skip
    add("--only", default="", metavar="01,02", help="run only these; the run is not published")
    add("--dry-run", action="store_true", help="check everything, say what would be done")
    add("--keep", type=int, metavar="N", help="keep only the newest N runs (default: all)")
    add("--wait", type=float, metavar="S", help="wait for another run to end (default: 0)")
    add("--cell-timeout", type=int, metavar="S", help="limit of one cell (default: 3600)")
    add("--deadline", type=float, metavar="S", help="limit of the whole run (default: none)")
    add("--on-publish", default="", metavar="CMD", help="shell command after publishing")
    add("--on-failure", default="", metavar="CMD", help="shell command after anything else")


def main(arguments: list[str] | None = None, *, prog: str = "segmentation") -> int:
    """Run the command and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    options = build_parser(prog).parse_args(words)
    commands = {"run": run, "runs": show_runs, "verify": verify}
    commands |= {"card": draft, "score": score, "serve": serve}
    return commands[options.command](options)


def draft(options: argparse.Namespace) -> int:
    """Draft a card for a table and write it beside; 0 written, 2 refused."""
    try:
        from segmentation.customers import draft as drafts

        source = options.table.resolve()
        target = options.o or source.with_suffix(".yaml")
        if target.exists():
            raise InputError(f"{target} is there already; name another by -o.")
        card, reasons = drafts.draft_card(source)
        table = os.path.relpath(source, target.resolve().parent)
        text = drafts.write_card(card.model_copy(update={"table": table}), reasons)
        target.write_text(text, encoding="utf-8")
    except InputError as error:
        print(error, file=sys.stderr)
        return REFUSED
    for column, role, reason in reasons.itertuples(index=False):
        print(f"{column}: {role} ({reason})")
    print(target)
    return 0


def score(options: argparse.Namespace) -> int:
    """Score a file, or a table where it lies; 0 written, 2 refused."""
    try:
        _check_places(options)
        from segmentation.serving import batch as scoring

        model = scoring.load_model(options.run)
        score_there = _score_file if options.file else _score_table
        tally = score_there(options, model)
    except InputError as error:
        print(error, file=sys.stderr)
        return REFUSED
    print(tally.describe(model))
    print(options.o or options.into)
    return 0


def _check_places(options: argparse.Namespace) -> None:
    """Refuse half a file, half a database, and both."""
    file = {"TABLE": options.file, "-o FILE": options.o}
    base = {"--backend": options.backend, "--table": options.table, "--into": options.into}
    if any(file.values()) and any(base.values()):
        raise InputError("give a file and -o, or --backend, --table and --into; not both.")
    missing = [name for name, value in (base if any(base.values()) else file).items() if not value]
    if missing:
        raise InputError(f"{' and '.join(missing)} missing; see segmentation score --help.")


def _score_table(options: argparse.Namespace, model: Any) -> Any:
    from segmentation.serving import batch as scoring

    where = (options.backend, options.table, options.into)
    return scoring.score_into(*where, model, segment=options.segment)


def _score_file(options: argparse.Namespace, model: Any) -> Any:
    from tqdm import tqdm

    from segmentation.serving import batch as scoring

    form = "{l_bar}{bar}| {postfix}"
    with tqdm(total=1.0, bar_format=form, leave=False, disable=None) as bar:

        def tell(tally: scoring.Tally) -> None:
            bar.set_postfix_str(f"{tally.rows:,} customers", refresh=False)
            bar.update(tally.share - bar.n)

        kept = {"segment": options.segment, "tell": tell}
        return scoring.score_file(options.file, options.o, model, **kept)


def serve(options: argparse.Namespace) -> int:
    """Serve the newest model; 2 refused, 130 or 143 stopped."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        from segmentation.serving import service
    except ImportError as error:
        print(f"serving needs {error.name}; pip install 'segmentation[service]'.", file=sys.stderr)
        return REFUSED
    try:
        with signals.listen():
            service.serve(options.run, host=options.host, port=options.port)
    except InputError as error:
        print(error, file=sys.stderr)
        return REFUSED
    except signals.Stopped as stop:
        return stop.code
    return 0


def run_main_job(arguments: list[str] | None = None) -> int:
    """`run_all.py`: the same as `segmentation run`."""
    parser = Parser(prog="run_all.py", description=__doc__, allow_abbrev=False)
    add_run_options(parser)
    return run(parser.parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Run the series; the exit code says how it ended."""
    try:
        with signals.listen():
            sys.modules.setdefault(SLOW, None)  # type: ignore[arg-type]
            from segmentation.series import pipeline

            parameters, job = _validate(options), _plan(options)
            if options.dry_run:
                print(pipeline.describe_plan(pipeline.plan_series(parameters, job)))
            else:
                print(pipeline.run_series(parameters, job))
    except signals.Stopped as stop:
        print("stopped; the last published run stays as it was.", file=sys.stderr)
        return stop.code
    except InputError as error:
        print(error, file=sys.stderr)
        return REFUSED
    except RunError as error:
        print(error, file=sys.stderr)
        return error.code
    except OSError as error:
        place = error.filename or "the output"
        print(f"{place}: {error.strerror or error}; nothing was published.", file=sys.stderr)
        return FAILED
    return 0


def show_runs(options: argparse.Namespace) -> int:
    """List the runs, newest first, and say what is stale and why."""
    from tabulate import tabulate

    from segmentation.reports import pages as reports
    from segmentation.runs import archive

    output_dir = _find_output(options)
    latest, listed = archive.find_latest(output_dir), archive.list_runs(output_dir)
    if not listed:
        print(f"There are no runs in {output_dir}.")
        return 0
    rows = [reports.tell_run(run, latest) for run in listed]
    print(tabulate(rows, headers="keys", disable_numparse=True))
    if stale := reports.summarize_stale(latest, listed):
        print(f"\n{stale}")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Hash every file of a run again; 0 as published, 1 something differs, 2 no such run."""
    try:
        with signals.listen():
            from segmentation.runs import archive

            folder = archive.find_run(options.run, _find_output(options))
            differs = archive.verify_run(folder)
            if options.rerun and not differs:
                differs = _rerun(folder)
    except (InputError, signals.Stopped) as error:
        print(error, file=sys.stderr)
        return REFUSED if isinstance(error, InputError) else error.code
    print("\n".join(differs) or f"{folder.name}: every file is as its manifest says.")
    if options.rerun and not differs:
        print("Run again, it gives the same tables and segments to ten significant digits.")
    return FAILED if differs else 0


def _rerun(folder: Path) -> list[str]:
    """What differs when the series runs again with the parameters and the table of a run."""
    from segmentation.runs import archive
    from segmentation.series import pipeline

    with tempfile.TemporaryDirectory() as scratch:
        return archive.compare_runs(folder, pipeline.run_again(folder, Path(scratch)))


def _find_output(options: argparse.Namespace) -> Path:
    return (options.output_dir or ROOT / "outputs").resolve()


def _plan(options: argparse.Namespace) -> Any:
    """How the series is to be run, or a refusal that names the option."""
    from pydantic import ValidationError

    from segmentation.customers.card import explain_error
    from segmentation.series.pipeline import Job

    given = {name: getattr(options, name) for name in HOW if getattr(options, name) is not None}
    if options.notebooks:
        given["notebooks"] = options.notebooks.resolve()
    try:
        return Job(output_dir=_find_output(options), start=options.start, **given)
    except ValidationError as error:
        raise InputError(explain_error(error, Job)) from None


def _validate(options: argparse.Namespace) -> Any:
    """The parameters, or a refusal that names the option and the mend."""
    from pydantic import ValidationError

    from segmentation.customers.card import explain_error
    from segmentation.series.pipeline import Parameters

    names = ("rule", "k_max", "features", "resamples", "seed", "as_of", "against")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if os.sep in given.get("against", ""):
        given["against"] = str(Path(given["against"]).resolve())
    if options.card:
        given["card"] = str(Path(options.card).resolve())
    try:
        return Parameters(k=0 if options.k == "auto" else _parse_k(options.k), **given)
    except ValidationError as error:
        raise InputError(explain_error(error, Parameters)) from None


def _parse_k(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise InputError(f"k must be auto or a whole number from 1, got {text!r}.")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
