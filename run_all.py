"""The main job: the whole series, end to end (the same as `segmentation run`)."""

import sys

from segmentation.__main__ import run_main_job

if __name__ == "__main__":
    sys.exit(run_main_job())
