"""Each benchmark runs at a tiny size and its answers agree; no time is asserted."""

import importlib.util
import io
import json
import math
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from conftest import ROOT, load_benchmark

from segmentation.clustering import kmeans
from segmentation.customers import table

comparisons, bench = load_benchmark("comparisons"), load_benchmark("bench")
PAGE = ROOT / "docs/benchmarks.md"
TINY = {
    "growth": {"least": 1e3, "most": 1e3},
    "scoring": {"rows": 3_000},
    "fits": {"rows": 3_000},
    "silhouettes": {"sizes": [200]},
    "transactions": {"rows": 2_000, "customers": 200},
    "peers": {"only": ["notebook"]},
}


def run_here(script, *words):
    """`run_apart` without a process of its own, which would import everything anew."""
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(told):
        patch.setattr(sys, "argv", [script, *map(str, words)])
        load_benchmark(Path(script).stem).main()
    return json.loads(told.getvalue().splitlines()[-1])


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    for name in ("end_to_end", "transactions", "service"):
        monkeypatch.setattr(load_benchmark(name), "run_apart", run_here)


@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_gives_finite_figures(name, monkeypatch):
    monkeypatch.setattr(kmeans, "STARTED", 2_000)  # three thousand rows are many then
    monkeypatch.setattr(table, "LARGE_CELLS", 20_000)
    check_figures(load_benchmark(name).measure(**TINY[name], rounds=1))


def check_figures(rows):
    assert len({row.name for row in rows}) == len(rows) > 0
    for row in rows:
        inertia = row.name.startswith("inertia")  # how far above the best: the best has none
        for figure in (row.ours, row.peer):
            assert math.isfinite(figure)
            assert figure > 0 or (inertia and figure == 0)
        assert row.what


def test_the_ends_meet_in_the_same_cut():
    rows = load_benchmark("end_to_end").measure(3_000, rounds=1)
    check_figures(rows)
    (cut,) = [row for row in rows if row.name.endswith("inertia")]
    assert cut.ours == pytest.approx(cut.peer, rel=0.01)


def test_customers_in_other_segments_are_refused(tmp_path):
    import duckdb

    ends = load_benchmark("end_to_end")
    for way, cut in ((ends.OURS, "id % 2"), (ends.PEER, "id // 50")):
        source = f"SELECT i AS id, {cut.replace('id', 'i')} AS cluster FROM range(100) t(i)"
        (tmp_path / way).mkdir()
        duckdb.sql(source).write_parquet(str(tmp_path / way / ends.SCORED))
    with pytest.raises(RuntimeError, match="only 50"):
        ends.check_segments(tmp_path, [ends.OURS, ends.PEER])


def test_a_hundred_million_run_alone(monkeypatch):
    ends = load_benchmark("end_to_end")
    taken = {ends.OURS: ends.Run(61.0, 900.0, [], 4.0)}
    monkeypatch.setattr(ends, "run_ways", lambda _, ways, __: {way: taken[way] for way in ways})
    seconds, memory = ends.measure(100_000_000, rounds=1)
    assert seconds.peer is memory.peer is None
    assert seconds.bound == "≤ 60 s, missed"
    assert memory.bound == "≤ 1000 MiB, held"


def test_resampling_runs_in_part(monkeypatch):
    resampling = load_benchmark("resampling")
    fit = resampling.fit
    monkeypatch.setattr(resampling, "KS", range(2, 3))
    monkeypatch.setattr(resampling, "fit", lambda rows, k, _: fit(rows, k, 1))
    (row,) = resampling.measure(100, rounds=1)
    assert row.ratio == pytest.approx(row.peer / row.ours)


def call_aside(function, *values, **options):
    """Call a function in a thread of its own: in this one a browser may have left a loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *values, **options).result()


def test_the_service_answers_both_ways_alike(mall_model, monkeypatch):
    service = load_benchmark("service")
    monkeypatch.setattr(service, "BATCH", 50)
    rows = call_aside(service.measure, 500, mall_model, 0.1, rounds=1)
    rows = {row.name: row for row in rows}
    assert {"service, 1 row", "service beside echo, 1 row", "file, CSV"} <= set(rows)
    assert all(row.ours > 0 and row.peer > 0 for row in rows.values())


@pytest.mark.long
def test_a_soak_has_no_faults(mall_model):
    soak = load_benchmark("soak")
    seen = call_aside(soak.count_replies, mall_model, 0.3, 4, swaps=3)
    assert soak.find_faults(seen) == 0, seen
    assert set(seen) == {"run0", "run1", "run2", "run3"}


def test_a_soak_notices_what_is_at_fault(mall_model, monkeypatch):
    soak = load_benchmark("soak")
    monkeypatch.setattr(soak.Run, "save_json", lambda *_: None)  # no segment has its run's name
    monkeypatch.setattr(soak, "PATIENCE", 0.5)
    seen = call_aside(soak.count_replies, mall_model, 0.3, 4, swaps=1)
    assert soak.find_faults(seen) > 0


def test_a_process_apart_gives_its_last_line_or_its_error(tmp_path):
    script = tmp_path / "apart.py"
    script.write_text("import sys\nprint('more')\nprint([int(sys.argv[1])])", "utf-8")
    assert comparisons.run_apart(str(script), 4) == [4]
    with pytest.raises(RuntimeError, match=r"^apart: ValueError: .*'four'"):
        comparisons.run_apart(str(script), "four")


@pytest.mark.long
@pytest.mark.parametrize("part", ["yellowbrick", "spark", "r"])
def test_peers_that_may_be_missing_say_so_or_agree(part):
    rows = load_benchmark("peers").measure(5_000, rounds=1, only=[part])
    if part == "yellowbrick" and not importlib.util.find_spec("yellowbrick"):
        assert rows[0].what == "not measured: not installed"
    elif part == "spark" and not (importlib.util.find_spec("pyspark") and shutil.which("java")):
        assert rows[0].what.startswith("not measured: ")
    elif part == "spark":
        assert rows[1].ours == pytest.approx(rows[1].peer, rel=0.3)
    elif part == "r" and rows[0].ours is not None:
        for row in rows:
            ours, theirs = re.search(r"ours (\S+), R's (\S+)$", row.what).groups()
            assert float(ours) == pytest.approx(float(theirs), abs=0.06)


def test_ratios_and_bounds():
    faster = comparisons.compare("a", 2.0, 6.0, "b", least=3)
    slower = comparisons.compare("a", 2.0, 1.0, "b", least=3)
    answers = comparisons.compare("a", 20.0, 10.0, "b", unit=comparisons.ANSWERS)
    alone = comparisons.compare("a", 70.0, None, "b", most=60)
    assert [row.ratio for row in (faster, slower, answers, alone)] == [3, 0.5, 2, None]
    assert [row.bound for row in (faster, slower, alone)] == [
        "≥ 3, held",
        "≥ 3, missed",
        "≤ 60 s, missed",
    ]


@pytest.fixture
def pages(tmp_path, monkeypatch):
    page, readme = tmp_path / "benchmarks.md", tmp_path / "README.md"
    page.write_text(f"before\n{bench.START}\n{bench.END}\nafter\n", "utf-8")
    readme.write_text(f"one\n{bench.SPEED[0]}\n{bench.SPEED[1]}\ntwo\n", "utf-8")
    monkeypatch.setattr(bench, "PAGE", page)
    monkeypatch.setattr(bench, "README", readme)
    return page, readme


def test_only_its_own_block_of_the_page_is_written(pages, monkeypatch):
    page, readme = pages
    rows = {"fits": 1.0, "silhouettes": 2.0}

    def measure(name, _):
        return [comparisons.compare(f"of {name}", rows[name], 4.0, "this")]

    monkeypatch.setattr(bench, "run_apart", measure)
    bench.main(["fits"])
    old = bench.read_sections(page.read_text("utf-8"))["fits"]
    bench.main(["silhouettes"])
    text = page.read_text("utf-8")
    assert text.startswith(f"before\n{bench.START}\n")
    assert text.endswith(f"{bench.END}\nafter\n")
    assert list(bench.read_sections(text)) == ["fits", "silhouettes"]
    assert bench.read_sections(text)["fits"] == old
    assert bench.read_ratios(text) == {"of fits": "4.0", "of silhouettes": "2.0"}
    assert readme.read_text("utf-8") == f"one\n{bench.SPEED[0]}\n{bench.SPEED[1]}\ntwo\n"


def test_the_readme_tells_the_page_s_ratio(pages, monkeypatch):
    row = comparisons.compare("resampling", 1.0, 41.6, "this")
    monkeypatch.setattr(bench, "run_apart", lambda *_: [row])
    bench.main(["resampling"])
    assert "takes one part in 42 of the same loops" in pages[1].read_text("utf-8")


def test_a_failure_is_told_in_its_row(pages, monkeypatch):
    monkeypatch.setitem(bench.SMALL, "broken", {})  # the process that is to run it knows of none
    bench.main(["broken"])
    text = pages[0].read_text("utf-8")
    assert re.search(r"\| broken \| – \| – \| – \|  \| failed: .*no benchmark broken", text)


def test_every_ratio_in_the_readme_stands_on_the_page():
    readme = (ROOT / "README.md").read_text("utf-8")
    told = readme.partition(bench.SPEED[0])[2].partition(bench.SPEED[1])[0]
    page = PAGE.read_text("utf-8")
    assert told == bench.tell_speed(page)
    ratios = re.findall(r"(?:([\d.,]*\d) times|one part in ([\d.,]*\d))", readme)
    assert {one or two for one, two in ratios} <= set(bench.read_ratios(page).values())


def test_every_benchmark_is_there_and_told():
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    own = {bench.find_module(name) for name in (*bench.SMALL, *bench.LARGE)}
    assert own | {"bench", "comparisons", "calibrate"} == scripts
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert all(f"`{name}`" in contributing for name in own)
