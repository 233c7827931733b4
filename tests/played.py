"""The notebooks' own code played in this process: a run's files in seconds, without kernels."""

import shutil
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from unittest.mock import patch

import matplotlib as mpl
from matplotlib import pyplot as plt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segmentation import ROOT, study
from segmentation.clustering import sensitivity
from segmentation.reports import show, write_explorer, write_report
from segmentation.runs import Archive, Run
from segmentation.series import notebooks, pipeline

SHOWN = "segments_map.png"
"""The figure that the report and the explorer show; the others are laid out and not drawn."""


def play_run(
    folder: Path,
    card: Path,
    *,
    like: Path | None = None,
    laid_out: bool = False,
    series: Path = ROOT / "notebooks",
    steps: tuple[str, ...] = ("02", "03", "04", "05", "06", "07"),
    **parameters,
) -> Path:
    """Play the notebooks from 02 on, write the report and the explorer, publish; the folder.

    With `like` the choice of K is that of another run; `series` is the folder of the notebooks,
    of which only some `steps` may be played. Figures are laid out where that is looked at
    (`laid_out`). The table is read once for all notebooks, and the rule answers no variation:
    what that costs goes into no file, see `test_sensitivity.py` and the command's runs.
    """
    mpl.use("Agg")
    values = pipeline.Parameters(card=str(card), **{"against": "none"} | parameters)
    job = pipeline.Job(
        output_dir=folder.parent, run_id=folder.name.replace(" ", "-"), notebooks=series, quiet=True
    )
    plan = pipeline.plan_series(values, job)
    run = Archive(job.output_dir).start_run(plan.manifest.run_id)
    pipeline.freeze(run, plan.card, plan.parameters, plan.reasons)
    for name in ("selection.json", "k_selection.csv") if like else ():
        shutil.copy(like / "tables" / name, run.place("tables", name))
    with ExitStack() as patched:
        for where, name, instead in (
            (study, "show", sketch if laid_out else leave_out),
            (study, "read_customers", read_once(study.read_customers)),
            (sensitivity, "ANSWERED", 0),
        ):
            patched.enter_context(patch.object(where, name, instead))
        for notebook in plan.steps:
            if notebook.name[:2] in steps and not (like and notebook.name == "03_k_selection"):
                plan.manifest.warnings += play_notebook(notebook, run, plan.parameters)["warnings"]
    if "07" not in steps:
        return run.folder.rename(folder)
    pipeline._take_choice(plan.manifest, run)
    write_report(run.folder, plan.manifest)
    write_explorer(run.folder, plan.manifest)
    run.seal(plan.manifest)
    return run.folder.rename(folder)


def sketch(thing: object, finding: str = "", *, path: Path | None = None) -> None:
    """Lay a figure out, all its text included, and save a dot with its finding in its stead."""
    if path is None or path.name == SHOWN:
        return show(thing, finding, path=path)
    getattr(thing, "figure", thing).draw_without_rendering()
    return leave_out(thing, finding, path=path)


def leave_out(thing: object, finding: str = "", *, path: Path | None = None) -> None:
    """Save a dot with its finding instead of a figure, which is not laid out."""
    if path is None or path.name == SHOWN:
        return show(thing, finding, path=path)
    plt.close(getattr(thing, "figure", thing))
    told = PngInfo()
    told.add_itxt("Description", finding)
    return Image.new("L", (2, 2)).save(path, pnginfo=told)


def read_once(read_customers):
    """A reader of one card's customers that keeps what it read, a copy for each notebook."""
    kept = []

    def read(card, **how):
        kept[:] = kept or [read_customers(card, **how)]
        return deepcopy(kept[0])

    return read


def play_notebook(
    notebook: notebooks.Notebook, run: Run, values: pipeline.Parameters
) -> dict[str, list[str]]:
    """Execute the code cells in order, the parameters' values replaced; what it proves at last."""
    given = {"run_dir": str(run.folder), **values.model_dump(mode="json")}
    names = {}
    for source, declares in notebook.cells:
        exec(compile(source, notebook.path.name, "exec"), names)
        if declares:
            names |= {name: given[name] for name in notebook.parameters & set(given)}
    proof = run.read_json("proof.json")
    (run.folder / "proof.json").unlink()
    return proof
