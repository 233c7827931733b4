"""What goes wrong at night: each leaves the last good report as it was, and tells the truth."""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import nbformat
import pytest
from small_series import (
    FINISH,
    ROOT,
    hash_tree,
    run_small,
    start_small,
    wait_for,
    write_notebook,
)

from segmentation.__main__ import main
from segmentation.runs import Archive, Run, write_text
from segmentation.runs.archive import Busy

SLEEP = "import time\ntime.sleep(1200)"
FAULTS = {
    "raises": ("1 / 0", 1, "in cell [4]: ZeroDivisionError: division by zero"),
    "kills its kernel": (
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        138,
        "in cell [4]: its kernel died (out of memory?)",
    ),
    "exits 0 half-way": ("import sys; sys.exit(0)", 1, "it ended without `study.finish(…)`"),
}
LIMITS = {
    "--cell-timeout": "in cell [4]: it took longer than {} s; allow more by --cell-timeout",
    "--deadline": "in cell [4]: its deadline passed ({} s)",
}


def read_failed(out, run_id="bad"):
    return json.loads((out / "failed" / run_id / "run.json").read_text("utf-8"))


def is_gone(folder):
    """Whether the kernel that wrote its pid into a run has ended."""
    return not Path(f"/proc/{(folder / 'pid').read_text()}").exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_kept_apart(fault, out, series, capfd):
    source, code, cause = FAULTS[fault]
    assert run_small(out, series(source), "--run-id", "bad") == code
    check_told(out, capfd.readouterr().err.splitlines(), cause)


@pytest.mark.parametrize("option", LIMITS)
def test_what_sleeps_past_a_limit_is_told_and_kept_apart(option, out, series, capfd):
    for seconds in (3, 12, 48, 192):  # a busy machine may not come to the cell that sleeps
        assert run_small(out, series(SLEEP), "--run-id", "bad", option, seconds) == 124
        told = capfd.readouterr().err.splitlines()
        if read_failed(out)["failure"]["cell"] == 4:
            break
    check_told(out, told, LIMITS[option].format(seconds))


def check_told(out, told, cause):
    """A failed run told its cause in two lines, is kept apart and has left no kernel."""
    assert told[0].startswith("01_copy failed")
    assert cause in told[0]
    assert told[1:] == [f"The executed copy is {out / 'failed/bad/notebooks/01_copy.ipynb'}"]
    manifest = read_failed(out)
    assert manifest["status"] == "failed"
    assert manifest["failure"]["notebook"] == "01_copy"
    assert manifest["failure"]["cause"] in told[0]
    assert [step["status"] for step in manifest["notebooks"]] == ["failed"]
    assert manifest["failure"]["cause"] in (out / "failed/bad/run.log").read_text("utf-8")
    assert (out / "latest").readlink() == Path("good")
    wait_for(lambda: is_gone(out / "failed/bad"))
    page = (out / "index.html").read_text("utf-8")
    assert "is the newest that is whole; the run of" in page


@pytest.mark.long  # a table and a picture are cut alike
def test_fifty_megabytes_of_text_make_no_large_page(out, series):
    notebooks = series("for _ in range(50):\n    print('x' * 1_000_000)", "print('\\\\' * 10**6)")
    assert run_small(out, notebooks, "--run-id", "loud") == 0
    executed = (out / "loud/notebooks/01_copy.ipynb").read_text("utf-8")
    assert len(executed) < 12_000_000
    assert "… cut here, after 5,000,000 characters" in executed
    assert (out / "loud/reports/01_copy.html").stat().st_size < 500_000


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


FILL = "with (Path(run_dir) / 'tables/fill').open('wb') as file:\n    while True:\n        "
FILL += "file.write(b'0' * 2**16)\n        file.flush()"


def test_a_full_disk_leaves_the_last_report(small_disk, published_small, series, capfd):
    out = shutil.copytree(published_small, small_disk / "out", symlinks=True)
    before = hash_tree(out / "good")
    assert run_small(out, series(FILL), "--run-id", "bad") == 1
    told = capfd.readouterr().err.splitlines()
    assert len(told) <= 2
    assert "No space left on device" in told[0]
    assert hash_tree(out / "good") == before
    assert read_failed(out)["status"] == "failed"
    assert "No space left on device" in (out / "index.html").read_text("utf-8")
    assert not [path for path in out.rglob("*") if path.name.endswith(".partial")]
    free = shutil.disk_usage(small_disk).free
    assert free > 20_000_000  # what the failed run made is gone
    assert run_small(out, series(), "--run-id", "next") == 0


def test_too_little_room_is_refused_before_the_start(small_disk, series, capfd):
    (small_disk / "fill").write_bytes(b"0" * 50_000_000)
    assert run_small(small_disk / "out", series()) == 2
    assert "left, a run needs 20 MB; make room, or name" in capfd.readouterr().err
    assert [path.name for path in small_disk.iterdir()] == ["fill"]


def test_a_read_only_folder_is_refused_before_the_start(small_disk, series, capfd):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert run_small(small_disk / "out", series()) == 2
    assert capfd.readouterr().err == f"{small_disk} cannot be written; name another by " + (
        "--output-dir.\n"
    )


@pytest.mark.long
def test_a_limit_on_file_sizes_is_met_like_a_full_disk(out, series):
    before = "ulimit -f 3000; exec"  # KiB: less than the explorer's page
    with start_small(out, series(), "--run-id", "bad", before=before) as run:
        told = run.communicate(timeout=300)[1].splitlines()
    assert run.returncode == 1
    assert told[0].startswith("the run failed: File too large")
    assert len(told) == 2
    assert read_failed(out)["failure"]["cause"].startswith("File too large")


def test_a_killed_runner_leaves_no_kernel_and_is_told_at_the_next_start(out, series, capfd):
    with start_small(out, series(SLEEP), "--run-id", "bad") as run:
        pid = out / "running/bad/pid"
        wait_for(lambda: pid.is_file() and pid.read_text())
        kernel = Path(f"/proc/{pid.read_text()}")
        run.kill()
    wait_for(lambda: not kernel.exists())
    assert [run.status for run in Archive(out).list_runs()] == ["crashed", "published"]
    assert run_small(out, series(), "--run-id", "next") == 0
    assert capfd.readouterr().err == f"run bad crashed; it is kept in {out / 'failed'}\n"
    manifest = read_failed(out)
    assert (manifest["status"], manifest["failure"]["notebook"]) == ("crashed", "01_copy")
    assert (out / "latest").readlink() == Path("next")


def test_what_is_not_ours_is_left_alone(out, series):
    (out / "running/theirs/tables").mkdir(parents=True)
    (out / "failed/theirs").mkdir(parents=True)
    assert run_small(out, series(), "--run-id", "theirs") == 2
    assert run_small(out, series(), "--run-id", "next") == 0
    assert (out / "running/theirs/tables").is_dir()
    assert (out / "failed/theirs").is_dir()
    shutil.rmtree(out / "running")


def test_a_folder_of_other_files_is_refused(tmp_path, series, capfd):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/index.html").write_text("mine")
    assert run_small(tmp_path / "photos", series()) == 2
    assert "holds other files and no run" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["index.html"]


def test_a_folder_that_holds_runs_but_no_marker_is_ours(out, series):
    (out / ".segmentation").unlink()
    assert run_small(out, series(), "--run-id", "next") == 0
    assert (out / ".segmentation").is_file()


def test_latest_as_a_real_folder_is_refused_before_the_start(out, series, capfd):
    (out / "latest").unlink()
    (out / "latest").mkdir()
    assert run_small(out, series(), "--run-id", "next") == 2
    assert "latest is no link to a run" in capfd.readouterr().err
    assert not (out / "next").exists()


def test_what_was_being_published_is_finished_at_the_next_start(out, series):
    assert run_small(out, series(), "--run-id", "next") == 0
    (out / "latest").unlink()
    (out / "latest").symlink_to("good")
    (out / ".publishing").write_text("next")
    assert run_small(out, series("1 / 0"), "--run-id", "bad") == 1
    assert (out / "latest").readlink() == Path("next")
    assert not (out / ".publishing").exists()


def test_a_run_that_died_before_its_first_file_leaves_nothing(out, series):
    early = Archive(out).start_run("early")
    (early.folder / ".run.json.partial").write_text('{"run_id": "ea')
    assert run_small(out, series(), "--run-id", "next") == 0
    assert not (out / "running").exists()
    assert not (out / "failed/early").exists()


ODD = {
    "no status": '{"run_id": "x"}',
    "no date": '{"run_id": "x", "status": "published", "started": "soon"}',
    "a list": "[]",
    "no JSON": "{",
    "an odd process": '{"run_id": "x", "status": "running", "pid": -1}',
}


def test_odd_manifests_are_listed_and_change_nothing(out, series, tmp_path, capfd):
    for name, text in ODD.items():
        for folder in (out / name, out / "failed" / name, out / "running" / name):
            folder.mkdir(parents=True)
            (folder / "run.json").write_text(text)
    told = f"echo $SEGMENTATION_STATUS > {tmp_path / 'told'}"
    assert run_small(out, series(), "--run-id", "next", "--keep", 5, "--on-publish", told) == 0
    assert (tmp_path / "told").read_text() == "published\n"
    assert "the page of the runs is old" not in capfd.readouterr().err
    assert main(["runs", "--output-dir", str(out)]) == 0
    assert capfd.readouterr().out.count("unreadable") == 3 * len(ODD)
    assert next(run.status for run in Archive(out).list_runs()) == "published"
    shutil.rmtree(out / "running")


def test_an_edit_of_the_card_meanwhile_mixes_nothing(out, tmp_path, series):
    shutil.copytree(ROOT / "data", tmp_path / "data")
    card = tmp_path / "data/mall_customers.yaml"
    edit = (
        f"path = Path({str(card)!r})\npath.write_text(path.read_text().replace('years', 'moons'))"
    )
    assert run_small(out, series(edit), "--run-id", "next", card) == 0
    frozen = (out / "next/card.yaml").read_text("utf-8")
    assert "moons" in card.read_text("utf-8")
    assert "moons" not in frozen
    study = json.loads((out / "next/study.json").read_text("utf-8"))
    assert study == {
        "card": str(card),
        "table_folder": str(tmp_path / "data"),
        **{"features": "", "as_of": "", "against": "none", "seed": 0},
    }


def test_an_edit_of_a_notebook_meanwhile_mixes_nothing(out, tmp_path, series):
    later = tmp_path / "notebooks/02_later.ipynb"
    folder = series(f"Path({str(later)!r}).write_text('no notebook any more')")
    write_notebook(later, FINISH)
    assert run_small(out, folder, "--run-id", "next") == 0


def test_a_picture_of_any_size_stays_a_picture(out, series):
    picture = "from IPython.display import Image\nimage = Image(b'\\x89PNG' + bytes(6_000_000), "
    notebooks = series(picture + "format='png')\nprint('x' * 6_000_000)\nimage")
    assert run_small(out, notebooks, "--run-id", "big") == 0
    executed = nbformat.read(out / "big/notebooks/01_copy.ipynb", 4)
    outputs = [each for cell in executed.cells for each in cell.get("outputs", [])]
    assert [len(each.data["image/png"]) for each in outputs if "data" in each] == [8_000_008]
    assert "… cut here, after 5,000,000 characters" in str(outputs[-2:])


def test_an_oversized_table_is_cut_with_a_note(out, series):
    show = "from IPython.display import HTML\nHTML('<p>' + 'x' * 6_000_000)"
    assert run_small(out, series(show), "--run-id", "big") == 0
    executed = (out / "big/notebooks/01_copy.ipynb").read_text("utf-8")
    assert "… cut here, after 5,000,000 characters" in executed


CLOSED = pytest.param(">&-", "utf-8", marks=pytest.mark.long)


@pytest.mark.parametrize(("redirect", "encoding"), [(">/dev/full", "ascii"), CLOSED])
def test_a_stream_that_is_closed_or_not_utf8_fails_no_run(redirect, encoding, out, series):
    before = f"export PYTHONIOENCODING={encoding}; exec {redirect}; exec"
    with start_small(out, series(), "--run-id", "next", before=before) as run:
        run.communicate()
    assert run.returncode == 0


def test_a_second_run_leaves_at_once_or_waits(out, series, tmp_path, capfd):
    go = tmp_path / "go"
    held = series(f"import time\nwhile not Path({str(go)!r}).exists():\n    time.sleep(0.05)")
    with start_small(out, held, "--run-id", "first") as first:
        wait_for(lambda: (out / "running/first/pid").is_file())
        assert run_small(out, held) == 75
        told = capfd.readouterr().err
        assert told.startswith(f"{out} is held by another run (process {first.pid}, run first, ")
        assert told.count("\n") == 1
        threading.Timer(0.5, go.touch).start()
        assert run_small(out, held, "--run-id", "second", "--wait", 600) == 0
    assert first.returncode == 0
    assert (out / "latest").readlink() == Path("second")
    assert Run(out / "first").verify() == Run(out / "second").verify() == []


def test_two_runs_without_room_to_wait_name_no_one_they_do_not_know(out):
    with (
        Archive(out).lock(),
        pytest.raises(Busy, match="held by another run; wait for it"),
        Archive(out).lock(),
    ):
        raise AssertionError("the lock was given twice")


@pytest.mark.long
def test_a_stop_is_told_once_and_the_run_is_aborted(out, series):
    with start_small(out, series(SLEEP), "--run-id", "bad", "--on-failure", "exit 3") as run:
        wait_for(lambda: (out / "running/bad/pid").is_file())
        run.send_signal(signal.SIGTERM)
        run.send_signal(signal.SIGINT)
        told = run.communicate(timeout=300)[1].splitlines()
    assert run.returncode in (143, 130)
    assert told == [
        "the command told of the outcome failed with 3: exit 3",
        "stopped; the last published run stays as it was.",
    ]
    manifest = read_failed(out)
    assert manifest["status"] == "aborted"
    assert manifest["failure"]["cell"] in (3, 4)  # in the cell that tells its pid, or the next


@pytest.mark.long
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_stopped_at_any_moment_leaves_a_whole_one(stop, out, series):
    notebooks, rng = series(), random.Random(7)
    began = time.monotonic()
    with start_small(out, notebooks) as whole:
        assert whole.wait() == 0
    usual = time.monotonic() - began
    for _ in range(20):
        with start_small(out, notebooks) as run:
            time.sleep(rng.uniform(0, usual))
            children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
            kernels = children.read_text().split() if children.exists() else []
            run.send_signal(stop)
        assert main(["verify", "latest", "--output-dir", str(out)]) == 0
        wait_for(lambda ids=kernels: not any(Path(f"/proc/{each}").exists() for each in ids))
    assert run_small(out, notebooks, "--run-id", "next", "--keep", 40) == 0
    assert all(run.status != "running" for run in Archive(out).list_runs())
    assert Run(out / "next").verify() == []


def test_a_notebook_that_leaves_out_a_file_fails_the_run(out, tmp_path, capfd):
    notebooks = tmp_path / "notebooks"
    write_notebook(notebooks / "01_empty.ipynb", FINISH)
    assert run_small(out, notebooks, "--run-id", "bad") == 1
    told = capfd.readouterr().err.splitlines()
    assert told[0].startswith("the run failed: selection.json is not in ")
    assert told[1] == f"See {out / 'failed/bad/run.log'}"


def test_a_partial_file_is_removed_when_it_cannot_be_written(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "\ud800")
    assert list(tmp_path.iterdir()) == []
