"""Kernels without a wait: one process imports what notebooks need and forks into every kernel.

A kernel is still a process of its own. What it is forked from has imported modules of this
package and done nothing else, so that nothing of one notebook can reach another. Where forking
is not safe, or where the kernel is another Python's, a kernel starts as it would by itself.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import LocalProvisioner

LAUNCHER = "ipykernel_launcher"


class Forked:
    """A forked kernel, as far as a provisioner asks a `subprocess.Popen`."""

    stdin = stdout = stderr = None
    gone = False

    def __init__(self, pid: int, template: subprocess.Popen[str]) -> None:
        self.pid, self.template = pid, template

    def poll(self) -> int | None:
        """None while it lives; it does not outlive its template by more than a second."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            self.gone = True
            return 1
        return self.template.poll()

    wait = poll

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Template:
    """The process that has imported modules of this package, and the kernels that came of it.

    Leaving the block, or `close`, ends all of them, whatever they do; no kernel starts after it.
    """

    def __init__(self, modules: Iterable[str]) -> None:
        self.modules = sorted(modules)
        self.lock, self.closed = Lock(), False
        self.kernels: list[Any] = []
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Template:
        if sys.platform == "linux":
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, *self.modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the template and its kernels, once."""
        if self.closed:
            return
        self.closed = True
        for kernel in [*self.kernels]:
            _end(kernel)
        if self.process:
            self.process.kill()  # who waits for a kernel in `fork` lets go of the lock
            with self.lock, suppress(OSError):
                self.process.communicate()

    def provide(self, manager: KernelManager) -> LocalProvisioner:
        """What starts a manager's kernel."""
        manager.kernel_id = str(uuid4())
        spec = manager.kernel_spec
        return Provisioner(parent=manager, kernel_id=manager.kernel_id, kernel_spec=spec).use(self)

    def can_fork(self, command: list[str]) -> bool:
        """Whether a kernel's command is what the template has prepared."""
        alive = self.process is not None and self.process.poll() is None
        return alive and command[0] == sys.executable and LAUNCHER in command

    def fork(self, command: list[str], *, env: dict[str, str], cwd: str | None) -> Forked:
        """A kernel of its own from the template; it waits for the imports to be done."""
        assert self.process is not None
        assert self.process.stdout is not None
        arguments = command[command.index(LAUNCHER) + 1 :]
        asked = {"arguments": arguments, "environment": env, "folder": cwd or str(Path.cwd())}
        try:
            with self.lock:
                print(json.dumps(asked), file=self.process.stdin, flush=True)
                return Forked(int(self.process.stdout.readline()), self.process)
        except (OSError, ValueError):
            raise RuntimeError("the process that it is forked from has ended") from None

    def keep(self, kernel: Any) -> None:
        """Remember a kernel that has started, or end it when it comes too late."""
        with self.lock:
            self.kernels.append(kernel)
            if self.closed:
                _end(kernel)


def _end(kernel: Any) -> None:
    """End a kernel and what it started, unless it has ended."""
    ended = kernel.gone if isinstance(kernel, Forked) else kernel.poll() is not None
    if not ended:
        with suppress(OSError):
            os.killpg(kernel.pid, signal.SIGKILL)


class Provisioner(LocalProvisioner):
    """Starts a kernel from the template, or by itself."""

    process: Any = None
    template: Template

    def use(self, template: Template) -> Provisioner:
        """Let kernels come of this template."""
        self.template = template
        return self

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Launch a kernel; its process leads a group of its own either way."""
        if self.template.can_fork(cmd):
            forked = self.template.fork(cmd, env=kwargs["env"], cwd=kwargs.get("cwd"))
            self.process, self.pid, self.pgid = forked, forked.pid, forked.pid
        else:
            await super().launch_kernel(cmd, **kwargs)
        self.template.keep(self.process)
        return self.connection_info


# In the template's process -----------------------------------------------------------------


def main() -> None:
    """Import the modules named, then fork a kernel for each line that comes and tell its pid."""
    _import_modules(sys.argv[1:])
    gc.freeze()  # what is imported is never garbage: a kernel need not look through it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries them
    template = os.getpid()
    while line := sys.stdin.readline():
        if not (pid := _fork()):
            return _become_kernel(template, **json.loads(line))
        with suppress(OSError):  # the kernel does it too: whoever is first
            os.setpgid(pid, pid)
        print(pid, flush=True)
    return None


def _import_modules(names: list[str]) -> None:
    """Import as a kernel would; what fails here fails again where somebody can see it."""
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("ipykernel.kernelapp", "ipykernel.ipkernel", *names):
            with suppress(Exception):
                import_module(name)


def _fork() -> int:
    """Fork; the threads that Python may warn of are those of BLAS, which knows of forks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def _become_kernel(
    template: int, arguments: list[str], environment: dict[str, str], folder: str
) -> None:
    """Go on as a kernel: what a process of its own would have, the fork gets anew."""
    import numpy as np
    from ipykernel.kernelapp import launch_new_instance

    with suppress(OSError):
        os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # the pipe belongs to the template
    os.environ.clear()
    os.environ.update(environment)
    if Path(sys.path[0]) == Path.cwd():  # as in a kernel that starts by itself
        del sys.path[0]
    os.chdir(folder)
    np.random.seed()  # noqa: NPY002 – also who draws without a seed draws alone
    sys.argv = [LAUNCHER, *arguments, f"--IPKernelApp.parent_handle={template}"]
    if os.getppid() == template:  # else it has ended, and nobody would end the kernel
        launch_new_instance(argv=sys.argv[1:])


if __name__ == "__main__":
    main()
