"""A notebook executed by papermill in a kernel of its own, which was started ahead."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from threading import Thread
from typing import Any
from uuid import uuid4

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_event_loop, run_sync
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import strip_color

from segmentation import ROOT
from segmentation.series.notebooks import DIED, TIMED_OUT, Notebook, SeriesFailed, find_last_cell

MOST, LINE = 5_000_000, 300  # characters kept of what one cell shows, and of a cause
PATIENCE, FAREWELL = 600, 3  # seconds that a kernel may take to start, and to end by itself
COMMAND = [sys.executable, "-P", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
COMMAND += ["--IPKernelApp.log_level=50", "--HistoryManager.enabled=False"]


class Kernel(AsyncKernelManager):
    """A kernel by our own command: no file of the user's or of the current folder changes it."""

    sender: Any = None
    """The client that has it import, and asks it to end."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """What starts it, whatever specs are installed."""
        curve = {"supported_encryption": ["curve"]}
        return KernelSpec(argv=COMMAND, display_name="Python 3", language="python", metadata=curve)

    def ask_to_end(self) -> None:
        """Ask it to end, and see to that beside the next notebook: it may hang on its way out."""
        self.sender.shutdown()
        Thread(target=self._end_group, args=[FAREWELL], daemon=True).start()

    def end(self, *, wait: float) -> None:
        """Wait for it, which was asked to end, then end what is left of its group."""
        self._end_group(wait)
        with suppress(Exception):  # it may have been stopped before it was made
            self.sender.stop_channels()

    def _end_group(self, wait: float) -> None:
        if process := getattr(self.provisioner, "process", None):
            with suppress(subprocess.TimeoutExpired):
                process.wait(wait)
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Kernels:
    """The kernels of a series, each of one notebook.

    Leaving the block ends all of them, and what they started, and removes their files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Kernel] = []

    def __enter__(self) -> Kernels:
        rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / "matplotlibrc").touch()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for kernel in self.started:
            kernel.end(wait=0 if kind else FAREWELL)
        loop = ensure_event_loop()  # where a stop may have left something half-way
        if not loop.is_running() and (tasks := asyncio.all_tasks(loop)):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks, timeout=1))
        rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # the run is still there
            self.folder.parent.rmdir()

    def start(self, notebook: Notebook) -> Kernel:
        """Start a notebook's kernel and let it import what the notebook will."""
        file = self.folder / f"{uuid4()}.json"
        kernel = Kernel(connection_file=str(file), transport_encryption="auto")
        self.started.append(kernel)
        own = {"SEGMENTATION_ROOT": ROOT, "IPYTHONDIR": self.folder / "ipython"}
        own["MATPLOTLIBRC"] = self.folder / "matplotlibrc"
        environment = os.environ | {name: str(path) for name, path in own.items()}
        environment.pop("PYTHONSTARTUP", None)
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        run_sync(kernel.start_kernel)(cwd=str(self.folder), env=environment, **silent)
        client = kernel.sender = kernel.blocking_client()
        client.start_channels(iopub=False, stdin=False, hb=False)
        there = f"__import__('os').chdir({str(notebook.path.parent)!r})"
        for line in ["__import__('matplotlib')", *notebook.imports, there]:
            client.execute(line, silent=True, store_history=False, stop_on_error=False)
        return kernel


def execute_notebook(
    notebook: Notebook,
    target: Path,
    values: dict[str, Any],
    *,
    kernel: Kernel,
    cell_timeout: int,
    bar: bool = False,
) -> None:
    """Execute a notebook with these parameters; the executed copy goes to `target`.

    Raises
    ------
    SeriesFailed
        A cell raised, ran longer than `cell_timeout` seconds or took its kernel with it.
    """
    for talker in ("papermill", "asyncio", "tornado", "traitlets"):  # what is raised tells it
        logging.getLogger(talker).setLevel(logging.CRITICAL)
    code, details = 1, ""
    try:
        papermill.execute_notebook(
            nbformat.reads(notebook.text, as_version=4),
            str(target).replace("{", "{{").replace("}", "}}"),  # papermill fills templates in paths
            values,
            engine_name=Bounded.__name__,
            kernel_name="python3",
            progress_bar={"desc": notebook.name, "leave": False} if bar else False,
            cell_timeout=cell_timeout,
            kernel=kernel,
        )
        return
    except papermill.PapermillExecutionError as error:
        cause = f"{error.ename}: {error.evalue}".splitlines()[0][:LINE]
        details = strip_color("\n".join(error.traceback))
    except CellTimeoutError:
        cause = f"it took longer than {cell_timeout} s; allow more by --cell-timeout"
        code = TIMED_OUT
    except DeadKernelError:
        cause, code = "its kernel died (out of memory?)", DIED
    except RuntimeError as error:
        cause, code = f"its kernel did not start: {error}"[:LINE], DIED
    raise SeriesFailed(cause, cell=find_last_cell(target), code=code, details=details)


class Client(PapermillNotebookClient):
    """Runs the cells in a kernel that is there, and keeps no more of their text than `MOST`."""

    kept = 0

    def output(self, outs: list[Any], msg: Any, display_id: Any, cell_index: int) -> Any:
        """Keep one output, or what fits of its text; an error and a picture always fit."""
        content, data = msg["content"], msg["content"].get("data", {})
        if msg["msg_type"] != "error" and not any(kind.startswith("image/") for kind in data):
            self.kept = self.kept if outs else 0
            room = max(0, MOST - self.kept)
            self.kept += len(content.get("text", "")) + len(str(data or ""))
            if self.kept > MOST:
                if not room:
                    return None
                cut = f"{content.get('text', '')[:room]}\n… cut here, after {MOST:,} characters\n"
                msg = msg | {"header": msg["header"] | {"msg_type": "stream"}}
                msg |= {"msg_type": "stream", "content": {"name": "stdout", "text": cut}}
        new = super().output(outs, msg, display_id, cell_index)
        kinds = [(each.output_type, each.get("name")) for each in outs[-2:]]
        if len(kinds) == 2 and kinds[0] == kinds[1] and kinds[0][0] == "stream":  # one for a page
            outs[-2].text += outs.pop().text
            return outs[-1]
        return new


class Bounded(Engine):
    """papermill's engine with our client."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, kernel: Kernel, cell_timeout: int = 0, **_: Any
    ) -> None:
        """Run every cell and ask the kernel to end; whoever started it sees to that."""
        waits = {"timeout": cell_timeout, "iopub_timeout": 60, "startup_timeout": PATIENCE}
        client = Client(nb_man, km=kernel, kernel_name=kernel_name, **waits)
        try:
            client.execute()
            kernel.ask_to_end()
        finally:
            if client.kc is not None:
                client.kc.stop_channels()


papermill_engines.register(Bounded.__name__, Bounded)
