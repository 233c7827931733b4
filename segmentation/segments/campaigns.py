"""Campaigns: whom to write to, and who is held back so that one can tell whether it worked."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from segmentation import InputError, words
from segmentation.customers import Card, read_card
from segmentation.runs import Run, check_name, disarm, hash_file, write_text

DIGITS, END = 16, "g"
"""Hexadecimal digits of a hash that count; what no hash reaches."""

CAMPAIGNS, SEND, HOLD = "campaigns", "send", "hold back"
DRAWN = ["id", "name", "customers", "held_back", "cutoff"]
BALANCE = ["segment", "variable", "send", "hold_back", "difference", "limit"]


class Drawn(BaseModel):
    """A segment of a campaign: how many it was drawn from, who is held back, its list."""

    id: int
    name: str
    customers: int
    held_back: int
    cutoff: str
    file: str
    sha256: str


class Campaign(BaseModel):
    """The record of a campaign, `campaigns/<name>.json` beside the runs; it holds no id."""

    campaign: str
    run_id: str
    hold_back: float
    made: datetime
    statuses: list[str]
    segments: list[Drawn]


def hash_ids(ids: pd.Series, campaign: str) -> pd.Series:
    """Where each customer stands in a campaign's draw: SHA-256 of `campaign:id`, its first digits.

    The text is UTF-8, the digits are hexadecimal, so that any language and any database that knows
    SHA-256 gives the same. Which campaign it was makes another draw.

    >>> hash_ids(pd.Series(["17", "18"]), "october").tolist()
    ['c471fd12c2b28a3b', '800ed84080d68fd2']
    """
    texts = (f"{campaign}:{each}".encode() for each in ids)
    return pd.Series([sha256(text).hexdigest()[:DIGITS] for text in texts], ids.index, dtype=str)


def draw_groups(
    customers: pd.DataFrame, card: Card, campaign: str, hold_back: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold back the same share of each segment: those whose hashes are lowest.

    Parameters
    ----------
    customers : a row a customer: the card's id, cluster, segment, and whatever else.
    campaign : its name, which keys the draw.
    hold_back : share of each segment that gets nothing, 0…1 (exclusive), to compare with.

    Returns
    -------
    The customers with `group` (send or hold back), and a row a segment: id, name, customers,
    held_back, cutoff: whose hash is below it is held back, today and whenever it is asked again.

    Examples
    --------
    >>> parts = {"title": "t", "table": "", "id": "id", "features": {"a": {}, "b": {}}}
    >>> people = pd.DataFrame({"id": map(str, range(10)), "cluster": 0, "segment": "All"})
    >>> drawn, segments = draw_groups(people, Card.model_validate(parts), "october", 0.2)
    >>> drawn.loc[drawn["group"] == "hold back", "id"].tolist(), segments["held_back"].tolist()
    (['3', '5'], [2])
    """
    drawn = customers.assign(hashed=hash_ids(customers[card.id], campaign), group=SEND)
    rows = []
    for (cluster, name), part in drawn.groupby(["cluster", "segment"], sort=True):
        ranks, held = sorted(part["hashed"]), int(hold_back * len(part) + 0.5)
        cutoff = ranks[held] if held < len(ranks) else END
        drawn.loc[part.index[part["hashed"] < cutoff], "group"] = HOLD
        rows.append((int(cluster), name, len(part), held, cutoff))
    return drawn.drop(columns="hashed"), pd.DataFrame(rows, columns=DRAWN)


def choose_audience(
    customers: pd.DataFrame, card: Card, segments: Sequence[str], statuses: Sequence[str]
) -> pd.DataFrame:
    """The customers of some segments, by name or id (of all where none is named), to write to.

    Those of another status are left out, and those whom the card's `contact:` does not allow. An
    InputError names the nearest segment, or says that nobody is left.
    """
    from segmentation.customers import cards

    if card.id == cards.ROW:
        raise InputError("customers without ids make no list; name their column by `id:`.")
    used = customers.dropna(subset="cluster")
    known = used.drop_duplicates("cluster").set_index("segment")["cluster"].astype(int)
    words = {str(each): each for each in known} | {name.casefold(): i for name, i in known.items()}
    for word in segments:
        if word.casefold() not in words:
            raise InputError(f"segment {word} is not known; {cards.suggest(word, known.index)}")
    wanted = {words[word.casefold()] for word in segments} or {*known}
    kept = used["cluster"].isin(wanted) & used["status"].isin(statuses)
    for name, levels in card.contact.items():
        allowed = {level.casefold() for level in levels}
        kept &= used[name].astype(str).str.casefold().isin(allowed)
    if not kept.any():
        raise InputError("nobody is left to write to; name other segments or statuses.")
    return used[kept]


def check_balance(drawn: pd.DataFrame, card: Card) -> pd.DataFrame:
    """How alike those held back are: in each segment the means of each feature.

    Columns: segment, variable, send, hold_back, difference (in standard deviations), limit: any
    difference beyond its own comes of chance in one draw of 20 (Bonferroni, normal, with the
    standard error sqrt(1/n + 1/m) of n and m customers).
    """
    from scipy.stats import norm

    parts, rows = drawn.groupby("segment", sort=False), []
    farthest = norm.isf(0.025 / (parts.ngroups * len(card.features)))
    for name, part in parts:
        held = part["group"] == HOLD
        limit = farthest * np.sqrt(1 / max(held.sum(), 1) + 1 / max((~held).sum(), 1))
        for column, feature in card.features.items():
            one, two = part.loc[~held, column], part.loc[held, column]
            spread = np.sqrt((one.var() + two.var()) / 2)
            apart = (two.mean() - one.mean()) / spread if spread > 0 else 0.0
            rows.append((name, feature.label, one.mean(), two.mean(), apart, limit))
    return pd.DataFrame(rows, columns=BALANCE)


def read_share(text: str) -> float:
    """A share as people write it: `20%`, `0.2`.

    >>> read_share("20%"), read_share("0.2"), read_share("12,5 %")
    (0.2, 0.2, 0.125)
    """
    found = re.fullmatch(r"\s*(\d*[.,]?\d+)\s*(%?)\s*", text)
    share = float(found[1].replace(",", ".")) / (100 if found[2] else 1) if found else -1.0
    if not 0 < share < 1:
        raise InputError(
            f"the share held back must lie between 0% and 100% (20% or 0.2), got {text}."
        )
    return share


def make_lists(
    run: Run,
    campaign: str,
    folder: Path,
    *,
    segments: Sequence[str] = (),
    hold_back: float = 0.2,
    statuses: Sequence[str] = ("ok", "borderline"),
) -> tuple[Campaign, pd.DataFrame]:
    """Write a list a segment (id, segment, group) into `folder`, and a record beside the runs.

    The lists are for whoever sends, and closed to others; the record, `campaigns/<name>.json` in
    the output folder, says what was drawn and holds no id. A list or record that is there is kept.

    Returns
    -------
    The record, and how alike the groups are (see `check_balance`).
    """
    manifest = run.manifest
    if manifest.status != "published":
        raise InputError(f"{run.folder} is no published run; name another by --run.")
    record = find_record(run.folder.parent, check_name(campaign, "the campaign"))
    if record.exists():
        raise InputError(f"campaign {campaign} is there already ({record}); give another name.")
    card = read_card(run.folder / "card.yaml")
    customers = run.read_table("clustered_data.csv", text=(card.id, *card.descriptors, "segment"))
    if len(customers) < manifest.input["rows_used"]:
        told = "its customers stay where they are, and the run has a sample"
        raise InputError(f"{told}; score them there, and draw by the hash of docs/campaigns.md.")
    audience = choose_audience(customers, card, segments, statuses)
    drawn, rows = draw_groups(audience, card, campaign, hold_back)
    lists = {folder / f"{campaign}_{row.id}.csv": row.id for row in rows.itertuples()}
    if there := next((path for path in lists if path.exists()), None):
        raise InputError(f"{there} is there already; name another folder by -o.")
    folder.mkdir(parents=True, exist_ok=True)
    for path, cluster in lists.items():
        part = drawn.loc[drawn["cluster"] == cluster, [card.id, "segment", "group"]]
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            part.map(disarm).to_csv(file, index=False)
    rows = rows.assign(file=[path.name for path in lists], sha256=[hash_file(p) for p in lists])
    made = Campaign(
        campaign=campaign, run_id=manifest.run_id, hold_back=hold_back, statuses=[*statuses],
        made=datetime.now(UTC).replace(microsecond=0), segments=rows.to_dict("records"),
    )  # fmt: skip
    record.parent.mkdir(exist_ok=True)
    write_text(record, made.model_dump_json(indent=1) + "\n")
    return made, check_balance(drawn, card)


def find_record(outputs: Path, campaign: str) -> Path:
    """Where a campaign's record lies in an output folder."""
    return outputs / CAMPAIGNS / f"{campaign}.json"


def list_campaigns(outputs: Path) -> list[str]:
    """The names of the campaigns that were drawn in an output folder."""
    return sorted(path.stem for path in (outputs / CAMPAIGNS).glob("*.json"))


def read_campaign(outputs: Path, campaign: str) -> Campaign:
    """The record of a campaign in an output folder; an InputError says which there are."""
    if campaign not in (known := list_campaigns(outputs)):
        there = words.join(known) or "none"
        raise InputError(f"campaign {campaign} is not known; drawn are {there}.")
    try:
        return Campaign.model_validate_json(find_record(outputs, campaign).read_bytes())
    except (OSError, ValidationError):
        told = f"the record of campaign {campaign} cannot be read"
        raise InputError(f"{told}; restore it, or see whether you may.") from None
