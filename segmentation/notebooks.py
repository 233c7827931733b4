"""A notebook executed by papermill: its limits, what is kept of its output, how it fails."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import strip_color
from traitlets.config import Config

from segmentation import InputError, RunError

MOST = 5_000_000
"""Characters kept of what one cell shows; a note stands for the rest."""

LINE = 300
"""Characters of a cause that are told in a line."""

FAILED, TIMED_OUT, DIED = 1, 124, 138


class NotebookError(RunError):
    """A notebook did not reach its end: which, in which cell (its `In [n]`), and why."""

    def __init__(
        self, notebook: str, cell: int | None, cause: str, *, code: int = FAILED, details: str = ""
    ) -> None:
        where = f" in cell [{cell}]" if cell is not None else ""
        super().__init__(f"{notebook} failed{where}: {cause}")
        self.record = {"notebook": notebook, "cell": cell, "cause": cause}
        self.code = code
        self.details = details


def list_notebooks(folder: Path) -> list[Path]:
    """The numbered notebooks in order, a user's own among them."""
    listed = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not listed:
        raise InputError(f"{folder} holds no notebooks called like 01_name.ipynb; name another.")
    return listed


def read_code(notebook: Path) -> str:
    """The code of a notebook but its parameters' cell."""
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n\n".join(
        cell.source
        for cell in cells
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", [])
    )


def hash_code(notebook: Path) -> str:
    """SHA-256 of a notebook's code, in hexadecimal."""
    return hashlib.sha256(read_code(notebook).encode()).hexdigest()


def find_names(notebook: Path) -> set[str]:
    """Every word of a notebook's code, the parameters that it uses among them."""
    return set(re.findall(r"\w+", read_code(notebook)))


def execute_notebook(
    notebook: Path, target: Path, values: dict[str, Any], *, cell_timeout: int, bar: bool = False
) -> None:
    """Execute a notebook with these parameters; the executed copy goes to `target`.

    Raises
    ------
    NotebookError
        A cell raised, ran longer than `cell_timeout` seconds or took its kernel with it, or the
        copy could not be written.
    """
    for talker in ("papermill", "asyncio"):  # what they would log is told by what is raised
        logging.getLogger(talker).setLevel(logging.CRITICAL)
    name = notebook.stem
    try:
        papermill.execute_notebook(
            _as_template(notebook),
            _as_template(target),
            values,
            engine_name=Bounded.__name__,
            kernel_name="python3",
            progress_bar={"desc": name, "leave": False} if bar else False,
            cell_timeout=cell_timeout,
        )
    except papermill.PapermillExecutionError as error:
        cause = f"{error.ename}: {error.evalue}".splitlines()[0][:LINE]
        details = strip_color("\n".join(error.traceback))
        raise NotebookError(name, error.exec_count, cause, details=details) from None
    except CellTimeoutError:
        cause = f"it took longer than {cell_timeout} s; allow more by --cell-timeout"
        raise NotebookError(name, find_last_cell(target), cause, code=TIMED_OUT) from None
    except DeadKernelError:
        cause = "its kernel died (out of memory?)"
        raise NotebookError(name, find_last_cell(target), cause, code=DIED) from None
    except RuntimeError as error:
        cause = f"its kernel did not start: {error}"[:LINE]
        raise NotebookError(name, None, cause, code=DIED) from None


def _as_template(path: Path) -> str:
    """A path that papermill, which fills templates in paths, leaves as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")


def find_last_cell(executed: Path) -> int | None:
    """The `In [n]` of the last cell that was started, where the executed copy can be read."""
    try:
        cells = nbformat.read(executed, as_version=4).cells
    except (OSError, ValueError):
        return None
    code = [cell for cell in cells if cell.cell_type == "code"]
    started = [cell for cell in code if cell.metadata.get("papermill", {}).get("start_time")]
    return len(started) or None


class Client(PapermillNotebookClient):
    """Runs the cells, keeps no more of their output than `MOST`, leaves no kernel behind."""

    kept = 0

    def execute(self, **options: Any) -> Any:
        """Run every cell; end the kernel however that ends, also while it starts."""
        try:
            return super().execute(**options)
        finally:
            if self.km is not None and self.km.has_kernel:
                self._cleanup_kernel()

    def output(self, outs: list[Any], msg: Any, display_id: Any, cell_index: int) -> Any:
        """Keep one output, or what fits of it; an error always fits."""
        self.kept = self.kept if outs else 0
        content = msg["content"]
        room = max(0, MOST - self.kept)
        self.kept += len(content.get("text", "")) + len(str(content.get("data", "")))
        if self.kept > MOST and msg["msg_type"] != "error":
            if not room:
                return None
            cut = f"{content.get('text', '')[:room]}\n… cut here, after {MOST:,} characters\n"
            msg = msg | {"msg_type": "stream", "content": {"name": "stdout", "text": cut}}
        return _join(outs, super().output(outs, msg, display_id, cell_index))


def _join(outs: list[Any], new: Any) -> Any:
    """Put text printed in several messages together, for a page shows so much of each."""
    if len(outs) > 1 and all(out.output_type == "stream" for out in outs[-2:]):
        before, after = outs[-2:]
        if before.name == after.name:
            before.text += outs.pop().text
            return before
    return new


class Bounded(Engine):
    """papermill's engine with our client."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, cell_timeout: int = 0, **_: Any
    ) -> None:
        """Run the notebook that papermill manages."""
        Client(
            nb_man,
            kernel_name=kernel_name,
            timeout=cell_timeout,
            iopub_timeout=60,
            log=logging.getLogger("papermill"),
            extra_arguments=["--IPKernelApp.log_level=50"],
            config=Config(KernelManager={"transport_encryption": "auto"}),
        ).execute()


papermill_engines.register(Bounded.__name__, Bounded)
