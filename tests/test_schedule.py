"""What may run beside what, in which order it is told, and whose files are whose."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest
from conftest import NOTEBOOKS
from small_series import FINISH, write_notebook

from segmentation.series import notebooks, plans, schedule, signals


class Diary:
    """Writes down what it is told."""

    def __init__(self):
        self.lines = []

    def begin(self, piece, others):
        self.lines.append(("begin", piece, *others))

    def end(self, piece, result):
        self.lines.append(("end", piece, result))

    def fail(self, piece, others):
        self.lines.append(("fail", piece, *others))


def take_all(needs, take, *, at_once=2):
    diary = Diary()
    with ThreadPoolExecutor(at_once) as pool:
        schedule.take_all(needs, take, diary, pool=pool, at_once=at_once)
    return diary.lines


def test_two_that_need_nothing_run_at_the_same_time():
    both = Barrier(2, timeout=30)  # passes only if both wait at it
    lines = take_all({"a": set(), "b": set(), "c": {"b"}}, lambda each: each != "c" and both.wait())
    assert lines[:2] == [("begin", "a"), ("begin", "b", "a")]
    assert lines.index(("end", "c", False)) > [line[:2] for line in lines].index(("end", "b"))


def test_each_waits_for_what_it_needs_and_no_more_run_than_may():
    needs = {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": set()}
    alone = [("begin", "a"), ("end", "a", "A"), ("begin", "b"), ("end", "b", "B")]
    rest = [("begin", "c"), ("end", "c", "C"), ("begin", "d"), ("end", "d", "D")]
    assert take_all(needs, str.upper, at_once=1) == alone + rest


def test_the_first_failure_is_raised_and_nothing_more_begins():
    diary, needs = Diary(), {1: set(), 0: {1}, 2: {0}}
    with ThreadPoolExecutor(1) as pool:
        options = {"pool": pool, "at_once": 1}
        with pytest.raises(ZeroDivisionError):
            schedule.take_all(needs, lambda n: 1 / n, diary, **options)
    assert diary.lines == [("begin", 1), ("end", 1, 1.0), ("begin", 0), ("fail", 0)]


def test_a_stop_is_heard_also_when_a_thread_of_the_pool_receives_it():
    heard, before_the_end = Event(), []

    def send(_):
        os.kill(os.getpid(), signal.SIGTERM)
        before_the_end.append(heard.wait(30))

    with ThreadPoolExecutor(1) as pool, signals.listen():
        pool.submit(int).result()  # the thread is there before the main one stops receiving
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            with pytest.raises(signals.Stopped):
                schedule.take_all({"a": set()}, send, Diary(), pool=pool, at_once=1)
            heard.set()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    assert before_the_end == [True]


def test_the_series_reads_its_order_off_what_its_notebooks_promise():
    needs = {n.stem[:2]: {b.stem[:2] for b in on} for n, on in plans.find_needs(NOTEBOOKS).items()}
    assert needs == {
        "01": set(),
        "02": set(),
        "03": {"02"},
        "04": {"03"},
        "05": {"03", "04"},
        "06": {"04", "05"},
    }


def test_what_a_notebook_saves_is_what_it_promises(published):
    manifest = json.loads((published / "run.json").read_text("utf-8"))
    for record, path in zip(manifest["notebooks"], NOTEBOOKS, strict=True):
        files = {name for name in record["files"] if not name.startswith("figures/")}
        copy = f"notebooks/{path.name}"
        assert files == {copy, *notebooks.read_promise(path).writes}


def test_a_notebook_that_promises_nothing_runs_alone(tmp_path):
    for name in ("01_a", "02_own", "03_c"):
        write_notebook(tmp_path / f"{name}.ipynb", FINISH.format(name=name))
    one, own, three = sorted(tmp_path.glob("*.ipynb"))
    for path in (one, three):
        path.write_text(path.read_text("utf-8").replace("hold?", "hold?\\n\\nReads a · Writes b"))
    assert plans.find_needs([one, own, three]) == {one: set(), own: {one}, three: {own}}
    assert plans.find_needs([one, three]) == {one: set(), three: set()}


@pytest.mark.parametrize(
    ("claimed", "others", "own"),
    [
        (set(), [], ["a", "artifacts/m"]),
        ({"a"}, [{"artifacts"}], ["a"]),
        ({"artifacts"}, [{"a"}], ["artifacts/m"]),
        (set(), [{"b"}], ["a", "artifacts/m"]),
        ({"a"}, [{"a"}], ["a", "artifacts/m"]),
    ],
)
def test_a_file_belongs_to_whoever_asked_for_it(claimed, others, own):
    assert plans.find_own({"a", "artifacts/m"}, claimed, others) == own
