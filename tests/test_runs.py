"""The runs of an output folder: listed, kept, taken over, verified, and told of."""

import ast
import configparser
import hashlib
import json
import os
import re
import shutil
import subprocess

import nbformat
import pytest
import yaml
from browsing import CONTRASTS, find_violations, watch
from small_series import FINISH, ROOT, run_small, write_notebook, write_series

from segmentation import open_study, reports
from segmentation.__main__ import JOB, Parser, build_parser, main
from segmentation.customers import read_card
from segmentation.runs import Archive, Manifest, Run, compare_runs
from segmentation.runs.archive import Busy
from segmentation.series import notebooks, pipeline, signals


def read_manifest(folder):
    return json.loads((folder / "run.json").read_text("utf-8"))


@pytest.fixture
def two(tmp_path, recorded):
    """A series of two: the first sees only the seed, the last is a notebook of a user's own."""
    folder = tmp_path / "two"
    seen = "from pathlib import Path\n(Path(run_dir) / 'first.txt').write_text('one')"
    write_notebook(folder / "01_first.ipynb", seen, FINISH, declares="seed: int = 0")
    write_series(folder, recorded, name="07_own")
    return folder


def run_two(out, two, *options):
    return run_small(out, two, "--run-id", "second", *options)


# Verify ------------------------------------------------------------------------------------


def test_a_published_run_is_as_its_manifest_says(out, capsys):
    assert main(["verify", "good", "--output-dir", str(out)]) == 0
    assert capsys.readouterr().out == "good: every file is as its manifest says.\n"
    assert main(["verify", str(out / "latest"), "--output-dir", str(out)]) == 0


def test_each_difference_is_told(out, tmp_path, capsys):
    copy = shutil.copytree(out / "good", tmp_path / "copy")
    (copy / "summary.txt").unlink()
    (copy / "segments.json").write_text("[]")
    (copy / "tables/more.csv").write_text("a")
    (copy / "run.log").write_text("a diary may go on")
    assert main(["verify", str(copy)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told == ["missing: summary.txt", "changed: segments.json", "extra: tables/more.csv"]


def test_no_run_and_no_manifest_are_refused(out, tmp_path, capsys):
    assert main(["verify", "june", "--output-dir", str(out)]) == 2
    assert capsys.readouterr().err.startswith(f"june is no run of {out}; ")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/run.json").write_text("{")
    assert main(["verify", str(tmp_path / "broken")]) == 2
    assert "run.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(("factor", "same"), [(1 + 1e-12, True), (1 + 1e-8, False)])
def test_figures_are_compared_to_ten_digits(factor, same, out, tmp_path):
    copy = shutil.copytree(out / "good", tmp_path / "copy")
    segments = json.loads((copy / "segments.json").read_text("utf-8"))
    segments[0]["share"] *= factor
    (copy / "segments.json").write_text(json.dumps(segments))
    assert compare_runs(out / "good", copy) == ([] if same else ["differs: segments.json"])
    (copy / "tables/k_selection.csv").unlink()
    assert "differs: tables/k_selection.csv" in compare_runs(out / "good", copy)


@pytest.mark.long
def test_a_run_gives_the_same_figures_again(quick, capsys):
    assert main(["verify", str(quick), "--rerun"]) == 0
    assert "the same tables and segments to ten significant digits" in capsys.readouterr().out


def test_a_rerun_is_refused_when_the_table_has_changed(out, tmp_path):
    copy = shutil.copytree(out / "good", tmp_path / "copy")
    manifest = read_manifest(copy)
    manifest["input"]["sha256"] = "0" * 64
    (copy / "run.json").write_text(json.dumps(manifest))
    assert main(["verify", str(copy), "--rerun"]) == 2


# List, keep --------------------------------------------------------------------------------


def make_run(out, run_id, started, **fields):
    """A run without files, as far as its manifest goes."""
    kind = "" if fields.get("status", "published") == "published" else "failed"
    folder = out / kind / run_id
    folder.mkdir(parents=True)
    manifest = {"run_id": run_id, "title": "Test", "status": "published", "started": started}
    (folder / "run.json").write_text(json.dumps(manifest | fields))


FAILED = {
    "status": "failed",
    "failure": {"notebook": "03_k_selection", "cell": 7, "cause": "its <kernel> died"},
}


@pytest.fixture
def history(out):
    """Three good runs and two failed ones around the good one, which is the latest."""
    make_run(out, "older", "2020-01-01T00:00:00+00:00", k=3, verdict="natural")
    make_run(out, "oldest", "2019-01-01T00:00:00+00:00")
    make_run(out, "bad", "2100-11-22T04:05:00+00:00", **FAILED)
    make_run(out, "worse", "2020-02-01T00:00:00+00:00", **FAILED)
    return out


def read_history(folder):
    """The latest run and all of them, as the pages take them."""
    archive = Archive(folder)
    return Run(folder / "latest").manifest, archive.list_runs()


def test_the_runs_are_listed_newest_first_with_what_is_stale(history, capsys):
    assert main(["runs", "--output-dir", str(history)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:7]] == ["bad", "good", "worse", "older", "oldest"]
    assert "published, latest" in lines[3]
    assert lines[-1].endswith(
        "is the newest that is whole; the run of 22 November 2100, 04:05 UTC failed in "
        "03_k_selection, cell [7]: its <kernel> died."
    )


def test_nothing_is_stale_when_the_failure_is_older(history):
    shutil.rmtree(history / "failed/bad")
    latest, listed = read_history(history)
    assert reports.summarize_stale(latest, listed) == ""
    assert reports.summarize_stale(None, listed).startswith("No run has come through yet; the run")


def test_an_empty_folder_has_no_runs(tmp_path, capsys):
    assert main(["runs", "--output-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"There are no runs in {tmp_path}.\n"


def test_only_the_newest_are_kept_and_always_the_latest(history):
    make_run(history, "newer", "2099-01-01T00:00:00+00:00")
    assert Archive(history).trim(1) == ["good", "older", "oldest", "failed/worse"][1:]
    left = {run.run_id for run in Archive(history).list_runs()}
    assert left == {"newer", "good", "bad"}
    assert not (history / ".removed").exists()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_the_runs_is_whole_and_inert(history, browser, width):
    latest, listed = read_history(history)
    path = reports.write_runs(history, latest, listed)
    page, noticed = watch(browser, width, "light")
    page.goto(path.as_uri())
    assert "its <kernel> died" in page.inner_text("[role=alert]")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CONTRASTS) == []
    assert find_violations(page) == []
    assert page.locator("tbody tr").count() == 5
    page.click(".readers a")
    assert page.url.endswith("/good/reports/report.html")
    assert [n for n in noticed if not n.startswith(("request file:", "request data:"))] == []
    page.context.close()


# Whom to tell ------------------------------------------------------------------------------


def test_a_command_is_told_of_a_published_run(out, recorded, tmp_path, capfd):
    series = write_series(tmp_path / "notebooks", recorded)
    command = f'env | grep ^SEGMENTATION_ > "{tmp_path}/told"; echo sent; exit 4'
    assert run_small(out, series, "--run-id", "new", "--on-publish", command) == 0
    told = dict(line.split("=", 1) for line in (tmp_path / "told").read_text().splitlines())
    assert told["SEGMENTATION_STATUS"] == "published"
    assert told["SEGMENTATION_RUN"] == "new"
    assert told["SEGMENTATION_REPORT"] == str(out / "new/reports/report.html")
    assert told["SEGMENTATION_OUTPUT"] == str(out)
    assert capfd.readouterr().err.startswith("the command told of the outcome failed with 4: ")
    diary = (out / "new/run.log").read_text("utf-8")
    assert "sent" in diary
    assert "failed with 4" in diary
    assert Run(out / "new").verify() == []


def test_a_command_is_told_of_a_refusal(out, two, tmp_path):
    command = f'echo "$SEGMENTATION_STATUS|$SEGMENTATION_CAUSE|$SEGMENTATION_REPORT" > {tmp_path}/t'
    assert run_two(out, two, "--on-failure", command, "--k", "500") == 2
    status, cause, report = (tmp_path / "t").read_text().strip().split("|")
    few = "k = 500 leaves fewer than ten customers a segment (200 customers): at most 20."
    assert (status, cause) == ("refused", few)
    assert report == str(out / "latest/reports/report.html")


# From, only, dry run -----------------------------------------------------------------------


def test_notebooks_of_one_s_own_are_run_and_shown(out, two):
    assert run_two(out, two) == 0
    manifest = read_manifest(out / "second")
    assert [step["name"] for step in manifest["notebooks"]] == ["01_first", "07_own"]
    assert manifest["notebooks"][0]["files"] == ["first.txt", "notebooks/01_first.ipynb"]
    assert (out / "second/reports/07_own.html").is_file()


def test_earlier_notebooks_are_taken_over(out, two):
    assert run_two(out, two) == 0
    assert run_small(out, two, "--run-id", "third", "--from", "07", "--k-max", 9) == 0
    first, last = read_manifest(out / "third")["notebooks"]
    assert first["taken_from"] == "second"
    assert last["taken_from"] is None
    assert (out / "third/first.txt").read_text() == "one"
    assert Run(out / "third").verify() == []


def test_a_mixture_is_refused(out, two, capfd):
    assert run_small(out, two, "--from", "07") == 2
    assert "01_first cannot be taken over from run good" in capfd.readouterr().err
    assert run_two(out, two) == 0
    assert run_small(out, two, "--from", "07_own", "--seed", 1) == 2
    assert capfd.readouterr().err == (
        "01_first cannot be taken over from run second: seed was 0 and is 1; "
        "run from there by --from 01.\n"
    )
    changed = nbformat.read(two / "01_first.ipynb", 4)
    changed.cells[-1].source += "\n"
    changed.cells[-1].source += "1 + 1"
    nbformat.write(changed, two / "01_first.ipynb")
    assert run_small(out, two, "--from", "07") == 2
    assert "the notebook has changed" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("input", {"sha256": "x"}, "the table has changed"),
        ("card_sha256", "x", "the card has changed"),
        ("code_sha256", "x", "the code of the package has changed"),
        ("versions", {}, "versions of packages have changed"),
        ("files", [], "first.txt is not the file that the run wrote; run from 01_first on"),
    ],
)
def test_every_link_of_the_chain_is_checked(key, value, told, tmp_path, two):
    notebook = notebooks.read_notebook(two / "01_first.ipynb")
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest/first.txt").write_text("one")
    digest = hashlib.sha256(b"one").hexdigest()
    base = {"run_id": "b", "status": "published", "input": {"sha256": "i"}, "card_sha256": "c"}
    base |= {"code_sha256": "p", "versions": {"a": "1"}, "parameters": {"seed": 0}}
    base |= {"files": [{"path": "first.txt", "sha256": digest}]}
    record = {"name": "01_first", "files": ["first.txt"], "code_sha256": notebook.code_sha256}
    base |= {"notebooks": [record]}
    run, now = Run(tmp_path / "latest"), Manifest(**base)
    run.write_manifest(now)
    pipeline.check_taken(notebook, run, now)
    run.write_manifest(Manifest(**base | {key: value}))
    with pytest.raises(ValueError, match=told):
        pipeline.check_taken(notebook, run, now)


def test_a_part_of_the_series_is_kept_and_not_published(out, two, capfd):
    assert run_two(out, two, "--only", "01") == 0
    page = out / "partial/second/reports/index.html"
    assert capfd.readouterr().out == f"{page}\n"
    assert page.is_file()
    manifest = read_manifest(out / "partial/second")
    assert manifest["status"] == "partial"
    assert [step["name"] for step in manifest["notebooks"]] == ["01_first"]
    assert (out / "latest").readlink().name == "good"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--from", "09"), "--from: 09 is no notebook; known are 01_first, 07_own."),
        (("--only", "07_onw"), "--only: 07_onw is no notebook; did you mean 07_own?"),
        (("--from", "01", "--only", "07"), "--from and --only exclude each other; give one."),
        (("--keep", 0), "keep: Input should be greater than or equal to 1."),
        (("--deadline", 0), "deadline: Input should be greater than 0."),
        (("--cell-timeout", 0), "cell_timeout: Input should be greater than or equal to 1."),
    ],
)
def test_options_are_refused_with_the_mend(options, message, out, two, capfd):
    assert run_two(out, two, *options) == 2
    assert capfd.readouterr().err == f"{message}\n"


def test_a_folder_without_notebooks_is_refused(out, tmp_path, capfd):
    assert run_small(out, tmp_path / "none") == 2
    assert "holds no notebooks called like 01_name.ipynb" in capfd.readouterr().err


def test_a_dry_run_tells_the_plan_and_writes_nothing(tmp_path, two, capfd):
    assert run_two(tmp_path / "out", two, "--dry-run") == 0
    lines = [line.split(maxsplit=1) for line in capfd.readouterr().out.splitlines()]
    told = dict(lines)
    assert told["table"] == "Mall_Customers.csv, 200 rows, 200 used"
    assert told["previous"] == "none"
    assert told["run"] == str(tmp_path / "out/second")
    assert (told["01_first"], told["07_own"]) == ("run", "run")
    assert not (tmp_path / "out").exists()
    assert run_two(tmp_path / "out", two, "--dry-run", "--from", "07") == 2


def test_the_pages_know_every_option_and_exit_code():
    page, guide = (
        (ROOT / name).read_text("utf-8") for name in ("docs/command.md", "docs/scheduling.md")
    )
    parser = Parser()
    parser.add_fields(*JOB)
    options = {word for action in parser._actions for word in action.option_strings} - {"-h"}
    assert {option for option in options if option not in page} == {"--help"}
    codes = {*(code for code, _ in signals.STOPS.values()), 0, 1, 2, Busy.code}
    codes |= {notebooks.TIMED_OUT, notebooks.DIED}
    table = "\n".join(line.split("|")[1] for line in guide.splitlines() if line.startswith("| "))
    assert codes == {int(code) for code in re.findall(r"\b\d+\b", table.partition("exit code")[2])}


def test_the_guide_s_units_and_the_dag_can_be_read():
    guide = (ROOT / "docs/scheduling.md").read_text("utf-8")
    for unit in re.findall(r"```ini\n(.*?)```", guide, re.S):
        assert configparser.ConfigParser().read_string(unit) is None
        assert unit.startswith("[Unit]\nDescription=")
    dag = ast.unparse(ast.parse((ROOT / "docs/example/airflow_segments.py").read_text("utf-8")))
    assert "skip_on_exit_code=75" in dag
    (command,) = re.findall(r"segmentation run \{PLACE\}/(.*?)'", dag)
    assert build_parser().parse_args(["run", *command.replace("{PLACE}", "x").split()]).quiet


def test_the_guide_s_workflow_brings_the_last_run_along(recorded, tmp_path):
    guide = (ROOT / "docs/scheduling.md").read_text("utf-8")
    (workflow,) = re.findall(r"```yaml\n(.*?)```", guide, re.S)
    steps = yaml.safe_load(workflow)["jobs"]["segments"]["steps"]
    (bring,) = [step["run"] for step in steps if step.get("name") == "Bring the last run"]
    gh = tmp_path / "gh"
    gh.write_text(f"#!/bin/sh\n[ $2 = list ] && echo 101 || cp -r {str(recorded)!r} $7\n")
    gh.chmod(0o755)
    (tmp_path / "outputs").mkdir()
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-e", "-c", bring], cwd=tmp_path, env=environment, check=True)
    archive = Archive(tmp_path / "outputs")
    archive.check()
    assert [run.folder.name for run in archive.list_published()] == ["101"]
    (command,) = [s["run"] for s in steps if s.get("run", "").startswith("python run_all.py")]
    parser = Parser()
    parser.add_fields(*JOB)
    assert parser.parse_args(command.split()[2:]).run_id


def test_the_command_line_goes_before_the_environment(monkeypatch, out, two, capfd):
    monkeypatch.setenv("SEGMENTATION_K", "500")
    assert run_two(out, two) == 2
    assert "k = 500" in capfd.readouterr().err
    assert run_two(out, two, "--k", "auto", "--dry-run") == 0
    monkeypatch.setenv("SEGMENTATION_K", "auto")
    monkeypatch.setenv("SEGMENTATION_FROM", "09")
    assert run_two(out, two) == 2
    assert "--from: 09 is no notebook" in capfd.readouterr().err


def test_a_notebook_gets_the_parameters_that_it_declares(out, two):
    assert run_two(out, two) == 0
    executed = nbformat.read(out / "second/notebooks/01_first.ipynb", 4)
    (injected,) = [c for c in executed.cells if "injected-parameters" in c.metadata.get("tags", [])]
    names = {line.split(" = ")[0] for line in injected.source.splitlines() if "=" in line}
    assert names == {"run_dir", "seed"}


def test_a_password_stays_in_the_card_of_the_user(tmp_path):
    url, path = "postgres://me:hush@host/shop", tmp_path / "card.yaml"
    path.write_text(f"title: Shop\ntable: t\nbackend: {url}\nfeatures: {{a: {{}}, b: {{}}}}\n")
    run, asked = Run(tmp_path / "run"), pipeline.Parameters(card=str(path), against="none")
    pipeline.freeze(run, read_card(path), asked)
    open_study(str(path), tmp_path / "hand")
    for folder in (run.folder, tmp_path / "hand"):
        assert all("hush" not in file.read_text("utf-8") for file in folder.iterdir())
        assert open_study(run_dir=folder).card.backend == url
