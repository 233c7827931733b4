"""The facade: what a notebook needs of its run, and nothing of science."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from segmentation import ROOT, InputError
from segmentation.customers import Card, Customers, cards, read_card, read_customers
from segmentation.reports import figures, show
from segmentation.runs import Run, has_secret, write_text

if TYPE_CHECKING:
    from segmentation.segments.tracking import Snapshot

CARD, CHOICES, PROOF = "card.yaml", "study.json", "proof.json"
TEXTS = ("segment", "second", "variable", "level", "rule", "toward", "previous_segment")


def open_study(
    card: str = "",
    run_dir: str | Path = "outputs/by-hand",
    *,
    features: str = "",
    as_of: str = "",
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
    features, as_of : see `customers.read_card`.
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
    folder = ROOT / run_dir
    if card and not (folder / "run.json").is_file():  # by hand: this notebook decides
        folder.mkdir(parents=True, exist_ok=True)
        read = read_card(card, features=features, as_of=as_of)
        choices = {
            "card": card,
            "table_folder": str(read.path.parent),
            "features": features,
            "as_of": as_of,
        }
        if has_secret(read.backend):
            choices["backend_of"] = card
            read = read.model_copy(update={"backend": ""})
        write_text(folder / CARD, cards.write_card(read))
        write_text(folder / CHOICES, json.dumps(choices | {"against": against, "seed": seed}))
    if not (folder / CHOICES).is_file():
        raise InputError(f"{folder} has no card yet; run 01_eda first.")
    return Study(Run(folder), json.loads((folder / CHOICES).read_text("utf-8")))


class Study:
    """A run's folder, and the customer table read through the card that the run fixed.

    Attributes
    ----------
    card : the dataset card. seed : of every random draw.
    table : one customer a row: id, features (float), descriptors; all, or a seeded sample.
    quality : what was found and mended while reading. total : customers there are in all.
    view : what of the customers is seen here, in a sentence.
    previous : what the run before this one left behind, None where there is none.
    """

    def __init__(self, run: Run, choices: dict[str, Any]) -> None:
        self.run, self.choices = run, choices
        self.seed = int(choices["seed"])
        card = read_card(run.folder / CARD)
        place = {"path": ROOT / choices["table_folder"] / CARD}
        if "backend_of" in choices:  # its URL holds a password, which stays where it is
            place["backend"] = read_card(choices["backend_of"]).backend
        self.card: Card = card.model_copy(update=place)

    @cached_property
    def customers(self) -> Customers:
        """The table as it was read."""
        return read_customers(self.card, seed=self.seed)

    @property
    def table(self) -> pd.DataFrame:
        """One customer a row."""
        return self.customers.table

    @property
    def questions(self) -> tuple[str, ...]:
        """What only the table's owner can know, a sentence each: the run's warnings."""
        return self.customers.questions

    @property
    def quality(self) -> pd.DataFrame:
        """What was found and mended: column, finding, rows, done."""
        return self.customers.quality

    @property
    def total(self) -> int:
        """How many customers the table has, be they all seen here or not."""
        return self.customers.total

    @property
    def view(self) -> str:
        """What of the customers is seen here, in a sentence."""
        return self.customers.view

    @cached_property
    def previous(self) -> Snapshot | None:
        """The run that this one is compared with."""
        from segmentation.segments import tracking

        return tracking.find_previous(self.run.folder, self.card, against=self.choices["against"])

    def show(self, thing: Any, finding: str = "", name: str = "") -> Any:
        """Show a sentence (or two), a table, or a figure with what it shows.

        A figure (Axes, Figure or a grid of seaborn) takes its finding as alternative text and as a
        paragraph; with a name it is kept in the run's `figures`.
        """
        return show(thing, finding, path=self.run.place("figures", name) if name else None)

    def save(self, thing: Any, name: str) -> None:
        """Keep a table (.csv), figures (.json), a text (.txt) or a fitted step (.joblib)."""
        kind = Path(name).suffix
        if kind == ".csv":
            self.run.save_table(thing, name)
        elif kind == ".json":
            plain = thing.model_dump(mode="json") if hasattr(thing, "model_dump") else thing
            self.run.save_json(plain, name)
        elif kind == ".joblib":
            import joblib

            joblib.dump(thing, self.run.place("artifacts", name))
        else:
            self.run.save_text(thing, name)

    def read(self, name: str) -> Any:
        """What an earlier notebook kept; an InputError says which notebook to run first."""
        kind = Path(name).suffix
        if kind == ".csv":
            texts = (self.card.id, *self.card.descriptors, *TEXTS)
            return self.run.read_table(name, text=texts)
        if kind == ".json":
            return self.run.read_json(name)
        import joblib

        return joblib.load(self.run.find("artifacts", name))

    def finish(self, answer: str, warnings: Sequence[str] = ()) -> Any:
        """Leave the notebook's answer, the proof that it ran to its end, and show it."""
        proof = {"answer": answer, "warnings": [*warnings]}
        self.run.save_json(proof, PROOF)
        return self.show(answer)
