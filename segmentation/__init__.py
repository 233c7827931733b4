"""Customer segments that one can trust, every month, in one command."""

import os
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_PACKAGE = Path(__file__).resolve().parent
BUNDLE = _PACKAGE if (_PACKAGE / "notebooks").is_dir() else _PACKAGE.parent
"""Where the notebooks and the bundled card lie: in the package if installed, else beside it."""

_HERE = Path.cwd() if BUNDLE == _PACKAGE else BUNDLE
ROOT = Path(os.environ.get("SEGMENTATION_ROOT") or _HERE)
"""Where relative paths of cards and runs start: the checkout's folder, else the current one."""


__all__ = ["BUNDLE", "ROOT", "InputError", "RunError", "__version__", "open_study"]


class InputError(ValueError):
    """Input that is refused: its message says what, where and the mend."""

    code = 2


class RunError(RuntimeError):
    """A run that did not come through: its message says what and why, `code` is the exit code."""

    code = 1


def __getattr__(name: str) -> Any:
    """`open_study`, the door of the notebooks, which loads the rooms when it is asked for."""
    if name != "open_study":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from segmentation.study import open_study

    return open_study
