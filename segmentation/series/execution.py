"""A notebook executed by papermill: its limits, what is kept of its output, how it fails."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import strip_color
from traitlets.config import Config

from segmentation.series.kernels import Template
from segmentation.series.notebooks import DIED, TIMED_OUT, NotebookError, find_last_cell

MOST = 5_000_000
"""Characters kept of what one cell shows; a note stands for the rest."""

LINE = 300
"""Characters of a cause that are told in a line."""


def execute_notebook(
    notebook: Path,
    target: Path,
    values: dict[str, Any],
    *,
    template: Template,
    cell_timeout: int,
    bar: bool = False,
) -> None:
    """Execute a notebook with these parameters; the executed copy goes to `target`.

    Its kernel is its own, comes of `template`, and ends with it.

    Raises
    ------
    NotebookError
        A cell raised, ran longer than `cell_timeout` seconds or took its kernel with it, or the
        copy could not be written.
    """
    for talker in ("papermill", "asyncio", "tornado", "traitlets"):  # what is raised tells it
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
            template=template,
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


class Client(PapermillNotebookClient):
    """Runs the cells, keeps no more of their output than `MOST`, leaves no kernel behind."""

    kept = 0
    template: Template

    def create_kernel_manager(self) -> Any:
        """A manager whose kernel comes of the template."""
        manager = super().create_kernel_manager()
        manager.provisioner = self.template.provide(manager)
        return manager

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
        cls, nb_man: Any, kernel_name: str, *, template: Template, cell_timeout: int = 0, **_: Any
    ) -> None:
        """Run the notebook that papermill manages."""
        client = Client(
            nb_man,
            kernel_name=kernel_name,
            timeout=cell_timeout,
            iopub_timeout=60,
            log=logging.getLogger("papermill"),
            extra_arguments=["--IPKernelApp.log_level=50"],
            config=Config(KernelManager={"transport_encryption": "auto"}),
        )
        client.template = template
        client.execute()


papermill_engines.register(Bounded.__name__, Bounded)
