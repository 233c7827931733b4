"""The main job as a user meets it: what it publishes, what it refuses, how it fails."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import small_series
from conftest import ROOT, run_command
from filelock import FileLock
from small_series import FINISH, wait_for

from segmentation import series
from segmentation.__main__ import main, run_main_job
from segmentation.clustering import stability
from segmentation.customers import table as customers
from segmentation.palette import PALETTE
from segmentation.runs import Archive, Run, hash_file
from segmentation.segments import model as segmenter
from segmentation.segments import profiles
from segmentation.series import (
    Job,
    Parameters,
    SeriesFailed,
    describe_outcome,
    run_series,
)
from segmentation.series.notebooks import read_notebooks

FILES = {
    *("run.json", "summary.txt", "segments.json", "reports/index.html"),
    *("figures/customer_segmentation_2d.png", "figures/customer_segmentation_3d.png"),
    *("tables/preprocessed_data.csv", "tables/k_selection.csv", "tables/clustered_data.csv"),
    *("tables/segment_profiles.csv", "tables/selection.json", "tables/segment_rules.csv"),
    *("tables/segment_prototypes.csv", "tables/borderline.csv"),
    *("tables/families.csv", "tables/cuts.csv", "tables/alternatives.csv", "tables/outcomes.csv"),
    *("tables/campaigns.csv", "tables/campaign_results.csv"),
    *("reports/report.html", "reports/explore.html", "figures/segments_map.png"),
    *("tables/changes.csv", "tables/migration.csv", "tables/drift.csv", "tables/changes.json"),
    *("artifacts/segmenter.joblib", "artifacts/segmenter.json"),
}


def read_json(path):
    return json.loads(path.read_text("utf-8"))


LONG = pytest.param("published", marks=pytest.mark.long)


@pytest.fixture(params=["hostile", LONG])
def finished(request):
    """A run that the command published: of another table, or that of the bundled one."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["recorded", LONG])
def bundled(request):
    """A run of the bundled table: played with few resamples, or the command's."""
    return request.getfixturevalue(request.param)


def test_a_run_holds_every_file_and_tells_the_truth_about_them(finished):
    manifest = read_json(finished / "run.json")
    names = [notebook.name for notebook in read_notebooks()]
    pages = [f"{kind}/{name}.{end}" for name in names for kind, end in PAGES]
    listed = {entry["path"]: entry for entry in manifest["files"]}
    assert {*FILES, *pages} - {"run.json"} <= set(listed)
    for path, entry in listed.items():
        assert hash_file(finished / path) == entry["sha256"]
        assert (finished / path).stat().st_size == entry["bytes"]
    on_disk = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert on_disk == {*listed, "run.json", "run.log"}


PAGES = (("notebooks", "ipynb"), ("reports", "html"))


def test_the_manifest_names_the_run_and_its_notebooks(finished):
    manifest = read_json(finished / "run.json")
    assert manifest["run_id"] == finished.name
    assert manifest["status"] == "published"
    assert [entry["status"] for entry in manifest["notebooks"]] == ["completed"] * 7
    assert all(entry["answer"] for entry in manifest["notebooks"])
    selection = read_json(finished / "tables/selection.json")
    assert manifest["notebooks"][2]["answer"] == selection["answer"]


def test_the_manifest_names_the_choice_and_the_table(bundled):
    manifest = read_json(bundled / "run.json")
    assert (manifest["k"], manifest["asked"]) == (4, False)
    assert manifest["input"] == {
        "path": "Mall_Customers.csv",
        "sha256": "194975e1f84d29ee7a99ca72bc14dcd55af355384f35171ef7e9e053ac7f6612",
        "rows_read": 200,
        "rows_used": 200,
    }


def test_latest_is_a_published_run(finished):
    latest = finished.parent / "latest"
    assert latest.is_symlink()
    assert read_json(latest / "run.json")["status"] == "published"


@pytest.mark.parametrize(
    ("k", "inertia", "silhouette"), [(3, 295.2, 0.358), (4, 205.2, 0.404), (6, 133.9, 0.428)]
)
def test_recorded_figures_of_the_bundled_table(bundled, k, inertia, silhouette):
    row = pd.read_csv(bundled / "tables/k_selection.csv").set_index("k").loc[k]
    assert row["inertia"] == pytest.approx(inertia, abs=0.05)
    # at K = 6 two partitions lie 7e-7 apart in inertia; the better one has a silhouette of 0.4274
    assert row["silhouette"] == pytest.approx(silhouette, abs=0.001)


def test_every_rule_s_answer_and_the_verdict_are_handed_over(bundled):
    selection = read_json(bundled / "tables/selection.json")
    assert set(selection) == {"k", "asked", "rule", "rules", "reason", "verdict"} | {
        "certainty",
        "reading",
        "close",
        "again",
        "shares",
        "answer",
    }
    assert selection["rule"] == "calibrated"
    assert selection["rules"]["calibrated"] == selection["rules"]["elbow"] == 4
    assert selection["rules"]["silhouette"] == 6
    manifest = read_json(bundled / "run.json")
    assert {key: manifest[key] for key in ("k", "rule", "rules", "verdict")} == {
        key: selection[key] for key in ("k", "rule", "rules", "verdict")
    }
    assert manifest["verdict"] == "reproducible"
    assert "disagree" in selection["answer"]


def test_segments_carry_their_stability(bundled):
    resamples = {"mall": 20, "default": 100}[bundled.name]
    for segment in read_json(bundled / "segments.json"):
        stability = segment["stability"]
        assert stability["jaccard"] > 0.9
        assert stability["band"] == "highly stable"
        assert (stability["dissolved"], stability["resamples"]) == (0, resamples)


def test_the_readme_shows_what_the_run_found(bundled, mall):
    readme = (ROOT / "README.md").read_text("utf-8")
    profile = pd.read_csv(bundled / "tables/segment_profiles.csv")
    figures = profile[profile["level"].isna()].fillna({"unit": ""})
    shown = profiles.tabulate_profile(figures)
    for row in [shown.columns, *shown.to_numpy()]:
        assert f"| {' | '.join(row)} |" in readme
    least = f"{stability.resample(mall, [4], resamples=100).summarize().at[4, 'jaccard_min']:.2f}"
    assert f"smallest Jaccard {least}" in readme
    if bundled.name == "default":
        certainty = read_json(bundled / "tables/selection.json")["certainty"]
        assert f"smallest Jaccard {least}" in certainty


@pytest.mark.parametrize("name", ["noise", pytest.param("200", marks=pytest.mark.long)])
def test_structureless_customers_are_one_segment(name, play_once, sample_cards, noise_card):
    if name == "noise":
        folder = play_once("noise", sample_cards["noise"])
    else:
        folder = play_once("noise of 200", noise_card, resamples=40, k_max=10)
    selection = read_json(folder / "tables/selection.json")
    assert (selection["k"], selection["verdict"], selection["asked"]) == (1, "none", False)
    assert selection["certainty"].startswith("No structure found: one segment, all customers.")
    (segment,) = read_json(folder / "segments.json")
    assert segment["name"] == "All customers"
    assert "No structure" in (folder / "summary.txt").read_text("utf-8")


@pytest.mark.parametrize(("k", "sizes"), [(3, [91, 68, 41]), (4, [65, 57, 40, 38])])
def test_the_cuts_of_the_two_public_write_ups(play_once, recorded, k, sizes):
    folder = recorded if k == 4 else play_once(f"mall {k}", k=k)
    segments = read_json(folder / "segments.json")
    assert [segment["size"] for segment in segments] == sizes
    selection = read_json(folder / "tables/selection.json")
    assert selection["asked"] is (k == 3)
    assert selection["verdict"] == {3: "constructive", 4: "reproducible"}[k]


ASKED = pytest.param("mall 1", 200, marks=pytest.mark.long)


@pytest.mark.parametrize(("name", "size"), [("noise", 150), ASKED])
def test_one_segment_runs_through(name, size, play_once, sample_cards):
    asked = name == "mall 1"
    folder = play_once(name, k=1) if asked else play_once(name, sample_cards[name])
    (segment,) = read_json(folder / "segments.json")
    assert (segment["name"], segment["size"]) == ("All customers", size)
    clustered = pd.read_csv(folder / "tables/clustered_data.csv")
    assert clustered[["second", "confidence"]].isna().all(axis=None)
    assert set(clustered["status"]) <= {"ok", "outside"}
    assert (clustered["status"] == "outside").sum() <= 2  # 1 %, held out


@pytest.mark.long  # the notebooks run by hand give the same bytes too
def test_same_seed_gives_the_same_run(quick, run_once):
    again = run_once("again", "--resamples", 20)
    for path in [*quick.glob("tables/*"), quick / "summary.txt"]:
        assert path.read_bytes() == (again / path.relative_to(quick)).read_bytes(), path
    assert read_json(quick / "segments.json") == read_json(again / "segments.json")
    for path in quick.glob("figures/*.png"):
        assert path.read_bytes() == (again / "figures" / path.name).read_bytes(), path
    days = {read_json(folder / "run.json")["started"][:10] for folder in (quick, again)}
    one, two = (folder / "reports/report.html" for folder in (quick, again))
    own = "<dt>Run</dt><dd><code>{}</code>"
    same = two.read_text("utf-8").replace(own.format("again"), own.format("quick"))
    assert len(days) == 2 or one.read_text("utf-8") == same  # over midnight the date differs


def test_the_model_on_the_raw_table_gives_the_published_segments(bundled, card):
    raw = pd.read_csv(card.source)
    clustered = pd.read_csv(bundled / "tables/clustered_data.csv")
    ids = [segment["id"] for segment in read_json(bundled / "segments.json")]
    pipeline_ = joblib.load(bundled / "artifacts/segmenter.joblib")
    assert list(np.take(ids, pipeline_.predict(raw))) == list(clustered["cluster"])
    shuffled = raw.iloc[::-1, ::-1]
    assert list(pipeline_.predict(shuffled)) == list(pipeline_.predict(raw))[::-1]


def test_plain_figures_give_the_same_segments_as_the_model(bundled, table):
    pipeline_, figures = segmenter.load_model(bundled / "artifacts")
    columns = [feature.column for feature in figures.features]
    scaled = (table[columns] - [f.mean for f in figures.features]) / [
        f.scale for f in figures.features
    ]
    gaps = scaled.to_numpy()[:, None, :] - np.array(figures.centres)
    assert ((gaps**2).sum(axis=2).argmin(axis=1) == pipeline_.predict(table)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--k", "30"],
            "k = 30 leaves fewer than ten customers a segment (200 customers): at most 20.",
        ),
        (["--k", "0"], "k: Input should be greater than or equal to 1."),
        (["--resamples", "5"], "resamples: Input should be greater than or equal to 20."),
        (["--k-max", "1"], "k_max: Input should be greater than or equal to 2."),
        (["--kk", "4"], "run_all.py: unknown option --kk; did you mean --k?"),
        ([""], "run_all.py: an empty value; is a variable unset?"),
        (["--features="], "run_all.py: an empty value for --features; is a variable unset?"),
        (["--rule", "elbw"], "rule: Input should be"),
        (["--features", "Age,Incme"], "features: Incme is not known; did you mean"),
        (["--against", "june"], "against: june is no published run; give an id in the output"),
        (["--as-of", "31/10/2026"], "as-of must be a date like 2026-10-31, got '31/10/2026'."),
        (["--features", "Age"], "features must name at least 2 of 3, got 1."),
        (["--run-id", "../x"], "run-id must be"),
        (["no_such_card.yaml"], "no such file; give the path of a dataset card or a table."),
    ],
)
def test_refusals_are_one_line_and_start_nothing(options, message, tmp_path, capfd):
    assert end_main_job("--output-dir", tmp_path, *options) == 2
    told = capfd.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def end_main_job(*arguments):
    """Run the main job in this process; its exit code, also where the parser ends it."""
    try:
        return run_main_job([*map(str, arguments)])
    except SystemExit as end:
        return end.code


def test_a_card_with_an_unknown_key_is_refused_with_the_nearest(write_card, tmp_path):
    path = write_card("id,a,b\n1,2,3\n", features={"a": {"rnge": [0, 1]}, "b": {}})
    done = run_command(path, "--output-dir", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == "card.yaml: features.a.rnge is not known; did you mean range?\n"
    assert not (tmp_path / "out").exists()


def write_notebook(folder, *sources):
    small_series.write_notebook(folder / "01_failing.ipynb", *sources)


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("1 / 0", "01_failing failed in cell [3]: ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", "01_failing failed"),
        ("import os; os.kill(os.getpid(), 9)", "01_failing failed in cell [3]: its kernel died"),
        ("1 + 1", "01_failing failed: it ended without `study.finish(…)`, its last cell"),
    ],
)
def test_a_failing_notebook_publishes_nothing(source, cause, tmp_path):
    write_notebook(tmp_path / "notebooks", source)
    job = Job(
        output_dir=tmp_path / "out", run_id="one", notebooks=tmp_path / "notebooks", quiet=True
    )
    (tmp_path / "out/older").mkdir(parents=True)
    (tmp_path / "out/.segmentation").touch()
    (tmp_path / "out/latest").symlink_to("older")
    with pytest.raises(SeriesFailed) as error:
        run_series(Parameters(), job)
    first, second = str(error.value).splitlines()
    assert first.startswith(cause)
    copy = tmp_path / "out/failed/one/notebooks/01_failing.ipynb"
    assert second == f"The executed copy is {copy}"
    assert copy.is_file()
    manifest = read_json(tmp_path / "out/failed/one/run.json")
    assert manifest["status"] == "failed"
    assert manifest["failure"]["notebook"] == "01_failing"
    assert (tmp_path / "out/latest").readlink().name == "older"
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [".lock", ".segmentation", "failed", "index.html", "latest", "older"]


def test_a_table_that_changes_on_the_way_is_not_published(tmp_path):
    shutil.copytree(ROOT / "data", tmp_path / "data")
    table = tmp_path / "data/raw/Mall_Customers.csv"
    change = f"open({str(table)!r}, 'a').write('201,Male,30,40,50\\n')\n"
    write_notebook(tmp_path / "notebooks", change, FINISH)
    job = Job(
        output_dir=tmp_path / "out", run_id="one", notebooks=tmp_path / "notebooks", quiet=True
    )
    asked = Parameters(card=str(tmp_path / "data/mall_customers.yaml"))
    with pytest.raises(SeriesFailed, match="changed while the series ran"):
        run_series(asked, job)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [".lock", ".segmentation", "failed", "index.html"]


@pytest.fixture(scope="session")
def bare(shared_folder):
    """A table of two groups without a card."""
    table = shared_folder / "visitors.csv"
    rng = np.random.default_rng(4)
    values = np.vstack([rng.normal(centre, 1, (40, 2)) for centre in (0, 9)]).round(2)
    frame = pd.DataFrame(values, columns=["Visits", "Spend (€)"])
    frame.insert(0, "Visitor no", [f"V{i:04}" for i in range(80)])
    with FileLock(shared_folder / "visitors.lock"):
        frame.to_csv(table, index=False, sep=";", decimal=",")
    return table


def check_drafted(card, table):
    assert card.source.resolve() == table.resolve()
    assert list(card.features) == ["Visits", "Spend (€)"]
    assert card.features["Spend (€)"].unit == "€"
    assert customers.read_customers(card).total == 80


@pytest.mark.parametrize("way", ["played", pytest.param("command", marks=pytest.mark.long)])
def test_a_bare_table_is_run_with_a_drafted_card(way, bare, play_once, run_once, shared_folder):
    if way == "played":
        folder = play_once("bare", bare, k_max=3)
    else:
        folder = run_once("bare", bare, "--resamples", 20, "--k-max", 3)
        told = (shared_folder / "bare.txt").read_text("utf-8")
        assert "Visitor no: id (an id by its name, different in 80 of 80 rows)" in told
    assert read_json(folder / "tables/selection.json")["k"] == 2
    kept = (folder / "card.yaml").read_text("utf-8")
    assert "# Visitor no: id, an id by its name, different in 80 of 80 rows" in kept
    check_drafted(customers.read_card(folder / "card.yaml"), bare)
    assert "V0001" not in (folder / "reports/report.html").read_text("utf-8")


def test_the_command_drafts_the_card_of_a_bare_table(bare, tmp_path, capfd):
    for name in ("01_first", "02_left_out"):
        small_series.write_notebook(tmp_path / f"notebooks/{name}.ipynb", FINISH)
    options = ("--notebooks", tmp_path / "notebooks", "--only", "01", "--run-id", "one")
    assert end_main_job(bare, "--output-dir", tmp_path / "out", "--resamples", 20, *options) == 0
    assert (
        "Visitor no: id (an id by its name, different in 80 of 80 rows)" in capfd.readouterr().out
    )
    check_drafted(customers.read_card(tmp_path / "out/partial/one/card.yaml"), bare)


def test_the_card_command_writes_a_card_and_never_over_one(tmp_path, capfd):
    source = tmp_path / "mall.csv"
    shutil.copy(ROOT / "data/raw/Mall_Customers.csv", source)
    assert main(["card", str(source)]) == 0
    told = capfd.readouterr().out
    assert told.splitlines()[-1] == str(tmp_path / "mall.yaml")
    assert re.search(r"CustomerID +id +an id by its name, different in 200", told)
    card = customers.read_card(tmp_path / "mall.yaml")
    assert list(card.features) == ["Age", "Annual Income (k$)", "Spending Score (1-100)"]
    assert list(card.descriptors) == ["Gender"]
    assert customers.read_customers(card).total == 200
    assert main(["card", str(source)]) == 2
    assert "is there already; name another by -o." in capfd.readouterr().err


@pytest.mark.parametrize(
    ("stop", "code"),
    [  # test_faults.py has a termination in the fast run too
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long),
    ],
)
def test_a_stopped_run_leaves_nothing_behind(stop, code, tmp_path):
    shutil.copytree(ROOT / "data", tmp_path / "data")
    source = "import os, pathlib, time\n"
    source += f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
    write_notebook(tmp_path / "notebooks", source + "time.sleep(1200)")
    command = [sys.executable, ROOT / "run_all.py", "--run-id", "one"]
    command += ["--notebooks", tmp_path / "notebooks"]
    environment = os.environ | {"SEGMENTATION_ROOT": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as run:
        wait_for(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text())
        run.send_signal(stop)
        _, told = run.communicate(timeout=300)
    assert run.returncode == code
    assert told == "stopped; the last published run stays as it was.\n"
    assert read_json(tmp_path / "outputs/failed/one/run.json")["status"] == "aborted"
    names = sorted(path.name for path in (tmp_path / "outputs").iterdir())
    assert names == [".lock", ".segmentation", "failed", "index.html"]
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not pathlib.Path(f"/proc/{pid}").exists())


def test_the_command_prints_the_report_last_and_a_line_a_notebook(finished, shared_folder):
    *lines, last = (shared_folder / f"{finished.name}.txt").read_text("utf-8").splitlines()
    told = [n.name for n in read_notebooks()]
    assert [line.split()[0] for line in lines[: len(told)]] == told
    assert "\n".join(lines[len(told) :]) == f"\n{describe_outcome(finished)}\n"
    assert last == str(finished / "reports" / "report.html")


def test_the_outcome_names_six_segments_and_counts_the_others(tmp_path):
    names = ["Older", "\x1b[2JYounger", *"cdefgh"]
    shares = [(name, 30 - i) for i, name in enumerate(names)]
    run = Run(tmp_path)
    run.save_json({"verdict": "natural"}, "selection.json")
    segments = [
        {"name": name, "size": size, "share": size / 212, "colour": colour}
        for (name, size), colour in zip(shares, PALETTE, strict=False)
    ]
    run.save_json(segments[::-1], "segments.json")
    lines = describe_outcome(tmp_path).splitlines()
    assert lines[0] == "Natural groups: 8 segments among 212 customers"
    assert lines[1].split() == ["Older", "30", "14.2%"]
    assert lines[2].split() == ["[2JYounger", "29", "13.7%"]
    assert lines[7:] == ["  and 2 more"]
    assert "\x1b[38;2;0;77;182m●\x1b[0m Older" in describe_outcome(tmp_path, colour=True)


@pytest.mark.parametrize("refused", [False, True])
def test_only_a_terminal_gets_colours(refused, out, monkeypatch, capsys):
    monkeypatch.setattr(series, "run_series", lambda *_: out / "good/reports/report.html")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if refused:
        monkeypatch.setenv("NO_COLOR", "1")
    main(["run"])
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(["run"])
    assert ("\x1b" in capsys.readouterr().out) is not refused


def test_a_run_without_an_id_is_named_by_the_time(tmp_path):
    assert re.fullmatch(r"\d{8}T\d{9}Z", Archive(tmp_path).check_run_id(""))


def test_a_taken_run_id_is_refused(tmp_path):
    (tmp_path / "june").mkdir()
    with pytest.raises(ValueError, match="run-id june is taken"):
        Archive(tmp_path).check_run_id("june")
