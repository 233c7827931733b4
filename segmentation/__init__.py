"""Customer segments that one can trust, every month, in one command."""

import os
from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(os.environ.get("SEGMENTATION_ROOT") or Path(__file__).resolve().parents[1])
"""The project's folder: relative paths of cards and runs in a notebook start here."""


class InputError(ValueError):
    """Input that is refused: its message says what, where and the mend."""


class RunError(RuntimeError):
    """A run that did not come through: its message says what and why, `code` is the exit code."""

    code = 1
