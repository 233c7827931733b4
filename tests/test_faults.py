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

import pytest
from small_series import (
    FINISH,
    hash_tree,
    run_small,
    start_small,
    wait_for,
    write_notebook,
)

from segmentation.__main__ import main
from segmentation.runs import archive
from segmentation.runs import folder as runs

SLEEP = "import time\ntime.sleep(120)"
FAULTS = {
    "raises": ("1 / 0", (), 1, "in cell [4]: ZeroDivisionError: division by zero"),
    "kills its kernel": (
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        (),
        138,
        "in cell [4]: its kernel died (out of memory?)",
    ),
    "exits 0 half-way": ("import sys; sys.exit(0)", (), 1, "it ended without `run.finish(…)`"),
    "sleeps past its limit": (
        SLEEP,
        ("--cell-timeout", 1),
        124,
        "in cell [4]: it took longer than 1 s; allow more by --cell-timeout",
    ),
    "sleeps past the deadline": (
        SLEEP,
        ("--deadline", 4),
        124,
        "in cell [4]: its deadline passed (4 s)",
    ),
}


def read_failed(out, run_id="bad"):
    return json.loads((out / "failed" / run_id / "run.json").read_text("utf-8"))


def is_gone(folder):
    """Whether the kernel that wrote its pid into a run has ended."""
    return not Path(f"/proc/{(folder / 'pid').read_text()}").exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_kept_apart(fault, out, series, capfd):
    source, options, code, cause = FAULTS[fault]
    assert run_small(out, series(source), "--run-id", "bad", *options) == code
    told = capfd.readouterr().err.splitlines()
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
    wait_for(lambda: is_gone(out / "failed/bad"), seconds=10)
    page = (out / "index.html").read_text("utf-8")
    assert "is the newest that is whole; the run of" in page


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
        told = run.communicate(timeout=60)[1].splitlines()
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
    wait_for(lambda: not kernel.exists(), seconds=10)
    assert [run["status"] for run in archive.list_runs(out)] == ["crashed", "published"]
    assert run_small(out, series(), "--run-id", "next") == 0
    assert capfd.readouterr().err == f"run bad crashed; it is kept in {out / 'failed'}\n"
    manifest = read_failed(out)
    assert (manifest["status"], manifest["failure"]["notebook"]) == ("crashed", "01_copy")
    assert (out / "latest").readlink() == Path("next")


def test_what_a_kernel_wrote_after_its_runner_died_is_removed(out, series):
    (out / "running/ghost/tables").mkdir(parents=True)
    assert run_small(out, series(), "--run-id", "next") == 0
    assert not (out / "failed").exists()


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
        assert run_small(out, held, "--run-id", "second", "--wait", 60) == 0
    assert first.returncode == 0
    assert (out / "latest").readlink() == Path("second")
    assert archive.verify_run(out / "first") == archive.verify_run(out / "second") == []


def test_two_runs_without_room_to_wait_name_no_one_they_do_not_know(out):
    with (
        archive.lock(out),
        pytest.raises(archive.Busy, match="held by another run; wait for it"),
        archive.lock(out),
    ):
        raise AssertionError("the lock was given twice")


def test_a_stop_is_told_once_and_the_run_is_aborted(out, series):
    with start_small(out, series(SLEEP), "--run-id", "bad", "--on-failure", "exit 3") as run:
        wait_for(lambda: (out / "running/bad/pid").is_file())
        time.sleep(0.3)
        run.send_signal(signal.SIGTERM)
        run.send_signal(signal.SIGINT)
        told = run.communicate(timeout=30)[1].splitlines()
    assert run.returncode in (143, 130)
    assert told == [
        "the command told of the outcome failed with 3: exit 3",
        "stopped; the last published run stays as it was.",
    ]
    manifest = read_failed(out)
    assert (manifest["status"], manifest["failure"]["cell"]) == ("aborted", 4)


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
    assert all(run["status"] != "running" for run in archive.list_runs(out))
    assert archive.verify_run(out / "next") == []


def promise(path, reads, writes):
    """Let a notebook say what it reads and writes, so that others may run beside it."""
    line = f"hold?\\n\\nReads {reads} · Writes {writes}"
    path.write_text(path.read_text("utf-8").replace("hold?", line), "utf-8")


def test_the_first_that_fails_decides_and_stops_who_runs_beside_it(out, tmp_path, capfd):
    folder, began = tmp_path / "notebooks", out / "running/bad/pid"
    tell = "import os\nfrom pathlib import Path\nPath(run_dir, 'pid').write_text(str(os.getpid()))"
    wait = f"import time\nfrom pathlib import Path\nwhile not Path({str(began)!r}).exists():\n"
    write_notebook(folder / "01_sleeps.ipynb", tell, SLEEP, FINISH.format(name="01_sleeps"))
    write_notebook(folder / "02_fails.ipynb", wait + "    time.sleep(0.05)\n1 / 0")
    write_notebook(folder / "03_waits.ipynb", FINISH.format(name="03_waits"))
    for path, reads in zip(sorted(folder.glob("*.ipynb")), ("a", "a", "`02`"), strict=True):
        promise(path, reads, f"`{path.stem[:2]}`")
    assert run_small(out, folder, "--run-id", "bad") == 1
    told = capfd.readouterr().err.splitlines()[0]
    assert told == "02_fails failed in cell [3]: ZeroDivisionError: division by zero"
    manifest = read_failed(out)
    statuses = {step["name"]: step["status"] for step in manifest["notebooks"]}
    assert statuses == {"01_sleeps": "aborted", "02_fails": "failed"}
    wait_for(lambda: is_gone(out / "failed/bad"), seconds=10)


def test_a_notebook_that_leaves_out_a_file_fails_the_run(out, tmp_path, capfd):
    notebooks = tmp_path / "notebooks"
    write_notebook(notebooks / "01_empty.ipynb", FINISH.format(name="01_empty"))
    assert run_small(out, notebooks, "--run-id", "bad") == 1
    told = capfd.readouterr().err.splitlines()
    assert told[0].startswith("the run failed: selection.json is not in ")
    assert told[1] == f"See {out / 'failed/bad/run.log'}"


def test_a_partial_file_is_removed_when_it_cannot_be_written(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        runs.write_text(tmp_path / "a.txt", "\ud800")
    assert list(tmp_path.iterdir()) == []
