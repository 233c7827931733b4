"""What a run will do: which notebooks it executes, takes over from the latest run, leaves out."""

from __future__ import annotations

import shutil
from collections.abc import Set
from pathlib import Path
from typing import Any

from segmentation import InputError
from segmentation.customers.card import suggest
from segmentation.customers.text import hash_file
from segmentation.runs.folder import Run, find_files
from segmentation.series import notebooks
from segmentation.series.notebooks import Promise, find_names, hash_code, read_promise

RUN, TAKE, LEAVE = "run", "take over", "leave out"


def choose_steps(listed: list[Path], *, start: str = "", only: str = "") -> dict[Path, str]:
    """What happens to each notebook: all are run, those from `start` on, or `only` some.

    Notebooks before the last one that runs are taken over, those after it left out.

    Raises
    ------
    InputError
        A name is no notebook's, or both are given.
    """
    if start and only:
        raise InputError("--from and --only exclude each other; give one.")
    chosen = [_find(word.strip(), listed, "--only") for word in only.split(",") if word.strip()]
    if start:
        chosen = listed[listed.index(_find(start, listed, "--from")) :]
    chosen = chosen or listed
    before = listed[: listed.index(max(chosen))]
    return {n: RUN if n in chosen else TAKE if n in before else LEAVE for n in listed}


def _find(word: str, listed: list[Path], option: str) -> Path:
    """The notebook with this number or name."""
    for notebook in listed:
        if word in (notebook.stem, notebook.stem[:2]):
            return notebook
    known = [name for notebook in listed for name in (notebook.stem, notebook.stem[:2])]
    near = suggest(word, known) if len(word) > 2 else f"known are {', '.join(known[1::2])}."
    raise InputError(f"{option}: {word} is no notebook; {near}")


def find_modules(steps: dict[Path, str]) -> set[str]:
    """The modules of this package that the notebooks to run import."""
    return set().union(*(notebooks.find_modules(n) for n, does in steps.items() if does == RUN))


def find_needs(listed: list[Path]) -> dict[Path, set[Path]]:
    """Which notebooks each has to wait for: those before it whose files it reads or writes.

    One that does not say what it reads and writes waits for all, and all after it wait for it.
    """
    promises = {notebook: read_promise(notebook) for notebook in listed}
    return {
        after: {b for b in listed[:place] if _meet(promises[b], promises[after])}
        for place, after in enumerate(listed)
    }


def _meet(before: Promise | None, after: Promise | None) -> bool:
    """Whether two notebooks touch the same file, so that the order of their work matters."""
    if before is None or after is None:
        return True
    return bool(before.writes & (after.reads | after.writes) or before.reads & after.writes)


def find_own(changed: Set[str], claimed: Set[str], others: list[Set[str]]) -> list[str]:
    """Which files that changed while a notebook ran are its own, whatever ran beside it.

    A file that it claims is its own; one that another claims is not; one that nobody claims,
    because it was written past the run's `save_*`, may be, and is kept with both.
    """
    theirs = set[str]().union(*others)
    return sorted(
        name
        for name in changed
        if not {name, name.partition("/")[0]} & theirs or {name, name.partition("/")[0]} & claimed
    )


def check_take_over(
    steps: dict[Path, str], base: dict[str, Any] | None, folder: Path, now: dict[str, Any]
) -> None:
    """Refuse to take over what the notebooks would not make again from the present input.

    `base` is the manifest of the latest run in `folder`, `now` that of the run to come.

    Raises
    ------
    InputError
        There is no run to take from, or something that a notebook saw differs.
    """
    taken = [notebook for notebook, does in steps.items() if does == TAKE]
    if taken and base is None:
        raise InputError(
            f"{folder.parent} has no published run to take {taken[0].stem} over from; "
            "run the whole series first."
        )
    for notebook in taken:
        if differs := _find_difference(notebook, base or {}, folder, now):
            raise InputError(
                f"{notebook.stem} cannot be taken over from run {(base or {})['run_id']}: "
                f"{differs}; run from there by --from {notebook.stem[:2]}."
            )


def _find_difference(
    notebook: Path, base: dict[str, Any], folder: Path, now: dict[str, Any]
) -> str:
    """What a notebook saw or left that is not so today, in words; empty where nothing is."""
    record = find_record(notebook, base)
    if "files" not in record:
        return "that run does not tell which files are its own"
    kept = find_files(Run(folder))
    hashes = {entry["path"]: entry["sha256"] for entry in base["files"]}
    told = {
        "the table has changed": base["input"]["sha256"] != now["input"]["sha256"],
        "the card has changed": base.get("card_sha256") != now["card_sha256"],
        "the notebook has changed": record["code_sha256"] != hash_code(notebook),
        "the code of the package has changed": base.get("code_sha256") != now["code_sha256"],
        "versions of packages have changed": base["versions"] != now["versions"],
    }
    used = (find_names(notebook) & set(now["parameters"])) - {"card"}
    for name in sorted(used):
        old, new = base["parameters"].get(name), now["parameters"][name]
        told[f"{name} was {old!r} and is {new!r}"] = old != new
    for path in record["files"]:
        told[f"{path} is not as it was"] = path not in kept or hash_file(kept[path]) != hashes.get(
            path
        )
    return next((words for words, differs in told.items() if differs), "")


def find_record(notebook: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What a manifest tells of a notebook."""
    told: list[dict[str, Any]] = manifest["notebooks"]
    return next((record for record in told if record["name"] == notebook.stem), {})


def take_over(notebook: Path, base: dict[str, Any], folder: Path, run: Run) -> dict[str, Any]:
    """Copy a notebook's files from the run in `folder`; its record, which names that run."""
    record = find_record(notebook, base)
    for path in record["files"]:
        target = run.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target)
    return record | {"taken_from": record.get("taken_from", base["run_id"])}
