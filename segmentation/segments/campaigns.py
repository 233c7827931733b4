"""Campaigns: whom to write to, who is held back, and whether it worked."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from segmentation import InputError, words
from segmentation.customers import Card, cards, is_large, read_card
from segmentation.runs import Run, check_file, check_name, disarm, hash_file, write_text
from segmentation.segments import outcomes, value

DIGITS, END = 16, "g"
"""Hexadecimal digits of a hash that count; what no hash reaches."""

CAMPAIGNS, SEND, HOLD = "campaigns", "send", "hold back"
STATUSES = ("ok", "borderline")
ASSUMED = 0.1
"""The share that answers a letter, where nothing is known of it."""
DRAWN = ["id", "name", "customers", "held_back", "cutoff"]
PLANNED = ["cluster", "customers", "contactable", "send", "hold_back", "outcome", "kind", "unit"]
PLANNED += ["wanted", "base", "sd", "assumed", "detectable", "event", "worth", "worth_unit"]
RESULTS = ["campaign", "outcome", "kind", "unit", "wanted", "cluster", "segment", "drawn", "lost"]
RESULTS += ["moved", *outcomes.COMPARED, "differ", "word", "says"]
BALANCE = ["segment", "variable", "send", "hold_back", "difference", "limit", "fewest"]


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
    if card.id == cards.ROW:
        raise InputError("customers without ids make no list; name their column by `id:`.")
    used = customers[customers["cluster"].notna()]
    known = used.drop_duplicates("cluster").set_index("segment")["cluster"].astype(int)
    words = {str(each): each for each in known} | {name.casefold(): i for name, i in known.items()}
    for word in segments:
        if word.casefold() not in words:
            raise InputError(f"segment {word} is not known; {cards.suggest(word, known.index)}")
    wanted = {words[word.casefold()] for word in segments} or {*known}
    kept = used["cluster"].isin(wanted) & find_contactable(used, card, statuses)
    if not kept.any():
        raise InputError("nobody is left to write to; name other segments or statuses.")
    return used[kept]


def find_contactable(
    customers: pd.DataFrame, card: Card, statuses: Sequence[str] = STATUSES
) -> pd.Series:
    """Who is in a segment, of one of these statuses, and may be written to by `contact:`."""
    kept = customers["cluster"].notna() & customers["status"].isin(statuses)
    for name, levels in card.contact.items():
        allowed = {level.casefold() for level in levels}
        kept &= customers[name].astype(str).str.casefold().isin(allowed)
    return kept


def check_balance(drawn: pd.DataFrame, card: Card) -> pd.DataFrame:
    """How alike those held back are: in each segment the means of each feature.

    Columns: segment, variable, send, hold_back, difference (in standard deviations), limit: any
    difference beyond its own comes of chance in one draw of 20 (Bonferroni, normal, with the
    standard error sqrt(1/n + 1/m) of n and m customers), fewest: the smaller of n and m.
    """
    from scipy.stats import norm

    parts, rows = drawn.groupby("segment", sort=False), []
    farthest = norm.isf(0.025 / (parts.ngroups * len(card.features)))
    for name, part in parts:
        held = part["group"] == HOLD
        n, m = int(held.sum()), int((~held).sum())
        limit = farthest * np.sqrt(1 / max(n, 1) + 1 / max(m, 1))
        for column, feature in card.features.items():
            one, two = part.loc[~held, column], part.loc[held, column]
            spread = np.sqrt((one.var() + two.var()) / 2)
            apart = (two.mean() - one.mean()) / spread if spread > 0 else 0.0
            rows.append((name, feature.label, one.mean(), two.mean(), apart, limit, min(n, m)))
    return pd.DataFrame(rows, columns=BALANCE)


def plan_campaigns(
    clustered: pd.DataFrame,
    actions: pd.DataFrame,
    card: Card,
    *,
    outcome: str = "",
    hold_back: float = 0.2,
) -> pd.DataFrame:
    """How many of each segment may be written to, and what difference so many would show.

    Parameters
    ----------
    clustered : a row a customer. actions : see `value.plan_actions`.
    outcome : what a campaign is judged by, a column of the card's outcomes; without one that of the
        card's first campaign, its first outcome, else what a customer is worth, else a yes or no of
        which a tenth is assumed.
    hold_back : share that is held back, 0…1 (exclusive).

    Returns
    -------
    A row a segment: cluster, customers, contactable, send, hold_back (customers), outcome (its
    label), kind, unit, wanted, base (rate or mean now), sd (of a number), assumed (if the base is),
    detectable (the smallest difference that is found four times in five at 5 %, Bonferroni's over
    the segments, which is Holm's first step; missing where none is), event, worth, worth_unit: what
    that difference would bring if all contactable ones were written to. A yes counts as one more
    `event` or, where less is wanted, as a customer who stays; missing where that has no price.
    """
    names = [outcome, *card.campaigns.values(), *card.outcomes, value.find_value(card)]
    name = next(filter(None, names), "")
    judged: Any = card.outcomes.get(name) or card.measured.get(name)
    rate = judged is None or getattr(judged, "kind", "") == "yes/no"
    wanted, rows = getattr(judged, "wanted", "more"), []
    for action in actions.itertuples():
        own = clustered[clustered["cluster"] == action.cluster]
        may = round(find_contactable(own, card).mean() * action.customers) if len(own) else 0
        held = int(hold_back * may + 0.5)
        known = own[name].dropna() if judged else pd.Series([ASSUMED])
        found = {"send": may - held, "hold_back": held}
        found |= {"base": known.mean(), "sd": 0.0 if rate else known.std(ddof=0)}
        facts = {"base": found["base"], "sd": found["sd"], "tests": len(actions)}
        least = outcomes.find_detectable(may - held, held, **facts, wanted=wanted)
        found |= {"detectable": least, "customers": action.customers, "contactable": may}
        each, unit, event = 1.0, getattr(judged, "unit", ""), ""
        if rate:
            each, unit, event = _price_yes(action, own, card, judged)
        found |= {"event": event, "worth": least * may * each, "worth_unit": unit}
        rows.append({"cluster": action.cluster, **found})
    told = {"outcome": judged.label if judged else "", "assumed": judged is None}
    told |= {"kind": "yes/no" if rate else "number", "unit": "" if rate else judged.unit}
    told["wanted"] = wanted
    return pd.DataFrame(rows).assign(**told)[PLANNED]


def _price_yes(
    action: Any, own: pd.DataFrame, card: Card, judged: cards.Outcome | None
) -> tuple[float, str, str]:
    """What a yes is worth, its unit, and the event that it counts as."""
    name = value.find_value(card)
    if judged is not None and judged.wanted == "less" and name:
        return own[name].mean(), action.unit, ""
    return action.worth / action.customers, action.unit, action.event


def read_audience(run: Run, name: str) -> pd.DataFrame:
    """Whom a campaign was drawn from: their id, cluster, segment and group, as they were sent.

    They follow from its record in the output folder of `run` and from the run that this names; the
    lists are not needed. An InputError where one of the two is gone or was changed.
    """
    campaign = read_campaign(run.outputs, name)
    source = Run(run.outputs / campaign.run_id)
    mend = f"campaign {name} cannot be read back."
    check_file(source.folder, source.manifest, "tables/clustered_data.csv", mend=mend)
    card = read_card(source.folder / "card.yaml")
    texts = (card.id, *card.descriptors, "segment")
    customers = source.read_table("clustered_data.csv", text=texts)
    sent = customers.assign(group=find_groups(customers, card, campaign)).dropna(subset="group")
    held = sent[sent["group"] == HOLD].groupby("cluster").size()
    for each in campaign.segments:
        counted = (sent["cluster"] == each.id).sum(), held.get(each.id, 0)
        if counted != (each.customers, each.held_back):
            raise InputError(f"segment {each.name} is not as it was drawn; {mend}")
    return sent[[card.id, "cluster", "segment", "group"]].rename(columns={card.id: "id"})


def find_groups(customers: pd.DataFrame, card: Card, campaign: Campaign) -> pd.Series:
    """The group of each customer in a campaign that was drawn; None for whom it does not mean."""
    cutoffs = customers["cluster"].map({each.id: each.cutoff for each in campaign.segments})
    meant = find_contactable(customers, card, campaign.statuses) & cutoffs.notna()
    held = hash_ids(customers[card.id], campaign.campaign) < cutoffs.fillna("")
    return pd.Series(np.where(held, HOLD, SEND), customers.index, dtype=object).where(meant, None)


def check_campaigns(run: Run, card: Card) -> None:
    """Refuse by an InputError campaigns of the card that could not be read back."""
    if card.campaigns and is_large(card):
        told = "campaigns: a table that stays where it is is not read back"
        raise InputError(f"{told}; leave them out, and compare the groups where it is.")
    for name in card.campaigns:
        read_audience(run, name)


def judge_campaign(
    joined: pd.DataFrame, campaign: str, outcome: cards.Outcome, *, seed: int = 0
) -> pd.DataFrame:
    """What a campaign did, by segment as sent and (cluster missing) over all of them.

    Parameters
    ----------
    joined : a row a customer who was drawn: cluster, segment and group as sent, `found` (whether
        the id is), `now` (the cluster meanwhile) and `outcome`, each missing where not known.

    Returns
    -------
    campaign, the outcome's label, kind, unit and wanted, cluster, segment, drawn (customers), lost
    (ids not found), moved (of those found, into another segment), what `outcomes.compare_groups`
    gives (p by Holm over the segments), differ, word (worked, did harm, …: see `results` in
    words.yaml) and says (it in a sentence). Everyone's row has the segments' differences by their
    customers, and in differ the p of Cochran's test that they are the same.
    """
    parts = list(joined.groupby(["cluster", "segment"], sort=True))
    said = {"campaign": campaign, "outcome": outcome.label, "kind": outcome.kind}
    said |= {"unit": outcome.unit, "wanted": outcome.wanted}
    rows = []
    for (cluster, name), part in parts:
        sent = part["group"] == SEND
        known = part.loc[sent, "outcome"], part.loc[~sent, "outcome"]
        found = outcomes.compare_groups(*known, outcome, tests=len(parts), seed=seed)
        rows.append(said | {"cluster": cluster, "segment": name} | _count_moves(part) | found)
    told = pd.DataFrame(rows).reindex(columns=RESULTS)
    told["p"] = outcomes.adjust(told["p"])
    whole = said | {"segment": ""} | _count_moves(joined) | outcomes.pool_groups(told)
    told = pd.concat([pd.DataFrame([whole]), told], ignore_index=True)[RESULTS]
    kinds = words.read_words()["results"]
    told["word"] = [words.pick(kinds, find_gain(row))["word"] for row in told.to_dict("records")]
    facts = map(find_gain, told.to_dict("records"))
    told["says"] = [words.say("result" if row["segment"] else "campaign", row) for row in facts]
    return told.astype({"cluster": "Int64"})


def find_reach(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a plan with what its words rest on: rate, less, and reach, as of `find_gain`.

    The reach of a rate below a tenth is a share of a tenth: it may well be worth to look for more.
    """
    facts = {"rate": int(row["kind"] == "yes/no"), "less": int(row["wanted"] == "less")}
    facts |= {"assumed": int(row["assumed"])}
    reach = row["detectable"] / max(row["base"], ASSUMED) if facts["rate"] else np.nan
    return row | facts | {"reach": reach}


def find_gain(row: dict[str, Any]) -> dict[str, Any]:
    """A row of results with what its words rest on.

    Behind it rate (whether it is a yes/no), gain (the difference as it is wanted), reach (the
    detectable difference as a share of the mean of those held back) and apart (whether the
    interval leaves out no difference).
    """
    base = abs(row["held_mean"]) or np.nan
    gain = row["difference"] * (1 if row["wanted"] == "more" else -1)
    facts = {"rate": int(row["kind"] == "yes/no"), "gain": gain, "reach": row["detectable"] / base}
    return row | facts | {"apart": int(row["low"] > 0 or row["high"] < 0)}


def _count_moves(part: pd.DataFrame) -> dict[str, float]:
    known, lost = part[part["now"].notna()], int((part["found"] != True).sum())  # noqa: E712
    return {"drawn": len(part), "lost": lost, "moved": (known["now"] != known["cluster"]).mean()}


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
    statuses: Sequence[str] = STATUSES,
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
