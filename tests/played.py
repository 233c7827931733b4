"""The notebooks' own code played in this process: a run's files in seconds, without kernels."""

import json
import shutil
from pathlib import Path
from unittest.mock import patch

import matplotlib as mpl
import nbformat
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segmentation.customers import table as customers
from segmentation.reports import explorer
from segmentation.reports import report as briefing
from segmentation.runs import folder as runs
from segmentation.series import pipeline

STEPS = ("02_preprocessing", "03_k_selection", "04_modeling", "05_profiling", "06_changes")
SHOWN = "segments_map.png"
"""The figure that the report and the explorer show; the others are laid out and not drawn."""


def play_run(folder: Path, card: Path, *, like: Path | None = None, **parameters) -> Path:
    """Play the notebooks from 02 on, write the report and the explorer, publish; the folder.

    With `like` from 04 on, with the choice of K that another run made.
    """
    mpl.use("Agg")
    values = pipeline.Parameters(card=str(card), **{"against": "none"} | parameters)
    checked, used, _ = pipeline._check_input(values)
    manifest = pipeline._begin_manifest(values, checked, folder.name) | used
    run = runs.start_run(folder.parent, folder.name)
    for name in ("selection.json", "k_selection.csv") if like else ():
        shutil.copy(like / "tables" / name, run.folder / "tables" / name)
    with patch.object(Figure, "savefig", sketch):
        for step in STEPS[2:] if like else STEPS:
            play_notebook(pipeline.NOTEBOOKS / f"{step}.ipynb", run, values)
            manifest["warnings"] += run.read_proof(step)["warnings"]
    pipeline._take_choice(manifest, run)
    briefing.write_report(run.folder, manifest)
    explorer.write_explorer(run.folder, manifest)
    runs.seal(run, manifest)
    return runs.move(run, folder).folder


SAVE = Figure.savefig


def sketch(figure: Figure, path: Path, *, metadata: dict[str, str], **options: object) -> None:
    """Lay a figure out, all its text included, and save a dot with its finding in its stead."""
    if path.name == SHOWN:
        return SAVE(figure, path, metadata=metadata, **options)
    figure.draw_without_rendering()
    finding = PngInfo()
    finding.add_itxt("Description", metadata["Description"])
    return Image.new("L", (2, 2)).save(path, pnginfo=finding)


def play_notebook(path: Path, run: runs.Run, values: pipeline.Parameters) -> None:
    """Execute the code cells in order, the parameters' cell replaced."""
    names = {"run_dir": str(run.folder), **values.model_dump(mode="json")}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.tags:
            exec(compile(cell.source, path.name, "exec"), names)


def read_manifest(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text("utf-8"))


def read_card(folder: Path) -> customers.Card:
    return customers.read_card(read_manifest(folder)["parameters"]["card"])
