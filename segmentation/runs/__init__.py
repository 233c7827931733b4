"""A run's folder and the runs of an output folder: files, manifest, lock, publishing, list.

It knows no science: what is in the files is the business of the rooms above.
"""

from segmentation.runs.archive import Archive, check_name, compare_runs
from segmentation.runs.folder import (
    Manifest,
    Run,
    Step,
    check_file,
    describe_environment,
    disarm,
    hash_file,
    read_manifest,
    write_text,
)

__all__ = [
    "Archive",
    "Manifest",
    "Run",
    "Step",
    "check_file",
    "check_name",
    "compare_runs",
    "describe_environment",
    "disarm",
    "hash_file",
    "read_manifest",
    "write_text",
]
