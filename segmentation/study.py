"""The facade: what a notebook needs of its run, and nothing of science."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib

from segmentation import ROOT, InputError
from segmentation.customers import Card, Customers, read_card, read_customers
from segmentation.reports import figures, show
from segmentation.runs import Run, write_text
from segmentation.series import Parameters, freeze

if TYPE_CHECKING:
    from segmentation.segments.tracking import Snapshot

TEXTS = ("segment", "second", "variable", "level", "rule", "toward", "previous_segment")


def open_study(
    card: str = "",
    run_dir: str | Path = "outputs/by-hand",
    *,
    features: str = "",
    as_of: str = "",
    encoding: str = "",
    sheet: str = "",
    against: str = "previous",
    seed: int = 0,
) -> Study:
    """Open the study of a run: its card, its customer table, the run before it.

    The first notebook names the card and so fixes it for the run, with the features, the date, the
    run to compare with and the seed; the others give `run_dir` alone. In a run of the series all
    this was fixed before the first notebook began.

    Parameters
    ----------
    card : path of a dataset card (YAML) or of a table without one; relative paths start at the
        project's folder. Empty: as an earlier notebook of this run fixed it.
    run_dir : folder of the run, made where it is not there.
    features, as_of, encoding, sheet : see `customers.read_card`.
    against, seed : the run to compare with (an id, a path, `previous` or `none`); the seed of
        every random draw.

    Raises
    ------
    InputError
        The card or the table is refused, or nothing has fixed a card yet.

    Examples
    --------
    >>> import tempfile
    >>> study = open_study("data/mall_customers.yaml", tempfile.mkdtemp())
    >>> study.table.shape
    (200, 5)
    >>> study.save(study.table.describe(), "ranges.csv")
    >>> study.read("ranges.csv").shape
    (8, 3)
    """
    figures.apply_style()
    run = Run(ROOT / run_dir)
    if card and not (run.folder / "run.json").is_file():  # by hand: this notebook decides
        asked = Parameters(card=card, features=features, as_of=as_of, against=against, seed=seed)
        chosen = {"features": features, "as_of": as_of, "encoding": encoding, "sheet": sheet}
        freeze(run, read_card(card, **chosen), asked)
    if not (run.folder / "study.json").is_file():
        raise InputError(f"{run.folder} has no card yet; run 01_eda first.")
    return Study(run, run.read_json("study.json"))


class Study:
    """A run's folder, and the customer table read through the card that the run fixed.

    Attributes
    ----------
    card : the dataset card. seed : of every random draw.
    table : one customer a row: id, features (float), descriptors; all, or a seeded sample.
    quality : what was found and mended while reading: column, finding, rows, done.
    total : how many customers there are in all. view : what of them is seen here, in a sentence.
    previous : what the run before this one left behind, None where there is none.
    """

    table = property(attrgetter("customers.table"))
    quality = property(attrgetter("customers.quality"))
    total = property(attrgetter("customers.total"))
    view = property(attrgetter("customers.view"))

    def __init__(self, run: Run, choices: dict[str, Any]) -> None:
        self.run, self.seed, self.against = run, int(choices["seed"]), choices["against"]
        place = {"path": ROOT / choices["table_folder"] / "card.yaml"}
        if "backend_of" in choices:  # its URL holds a password, which stays where it is
            place["backend"] = read_card(choices["backend_of"]).backend
        self.card: Card = read_card(run.folder / "card.yaml").model_copy(update=place)

    @cached_property
    def customers(self) -> Customers:
        """The table as it was read, when a notebook first asks for something of it."""
        return read_customers(self.card, seed=self.seed)

    @cached_property
    def previous(self) -> Snapshot | None:
        """The run that this one is compared with."""
        from segmentation.segments import tracking

        return tracking.find_previous(self.run.folder, self.card, against=self.against)

    def show(self, thing: Any, finding: str = "", name: str = "") -> Any:
        """Show a sentence (or two), a table, or a figure with what it shows.

        A figure (Axes, Figure or a grid of seaborn) takes its finding as alternative text and as a
        paragraph; with a name it is kept in the run's `figures`.
        """
        return show(thing, finding, path=self.run.place("figures", name) if name else None)

    def save(self, thing: Any, name: str) -> None:
        """Keep a table (.csv), figures (.json), a text (.txt) or a fitted step (.joblib)."""
        if name.endswith(".csv"):
            self.run.save_table(thing, name)
        elif name.endswith(".json"):
            self.run.save_json(thing, name)
        elif name.endswith(".joblib"):
            joblib.dump(thing, self.run.place("artifacts", name))
        else:
            write_text(self.run.folder / name, thing)

    def read(self, name: str) -> Any:
        """What an earlier notebook kept; an InputError says which notebook to run first."""
        if name.endswith(".csv"):
            texts = (self.card.id, *self.card.descriptors, *TEXTS)
            return self.run.read_table(name, text=texts)
        if name.endswith(".json"):
            return self.run.read_json(name)
        return joblib.load(self.run.find("artifacts", name))

    def finish(self, answer: str, warnings: Sequence[str] = ()) -> Any:
        """Leave the notebook's answer, the proof that it ran to its end, and show it."""
        self.run.save_json({"answer": answer, "warnings": [*warnings]}, "proof.json")
        return self.show(answer)
