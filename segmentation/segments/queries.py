"""The fitted model as expressions: customers are scored and measured where their table lies.

Every expression does what `scorer` does, operation by operation on float64, so that a row gets
the same segment to the last bit; only logarithms are the database's own, within a last digit.
"""

from __future__ import annotations

from functools import reduce
from operator import add, or_
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from segmentation import InputError
from segmentation.customers import columns as fields
from segmentation.customers import extracts
from segmentation.customers.card import OURS, Card, Descriptor, suggest
from segmentation.customers.database import write_number
from segmentation.segments.scorer import BORDERLINE, Scorer, find_limits

if TYPE_CHECKING:
    import ibis

BEYOND = 1e300  # larger than any squared distance
OWN = "segmentation_"
"""What the names of columns begin with that are there only on the way."""


def score_table(table: ibis.Table, scorer: Scorer, segments: list[dict[str, Any]]) -> ibis.Table:
    """The table with cluster, segment, distance, second, confidence and status behind its columns.

    The semantics are those of `Scorer.score` for rows that `count_problems` finds nothing wrong
    with; a tie goes to the lower position. Each step is a subquery, so that nothing is computed
    twice. `segments` are those of `segments.json`, by position.

    Raises
    ------
    InputError
        A column of the model is missing or not numeric, or a descriptor holds an unknown level.
    """
    kept = [name for name in table.columns if name not in OURS]
    if twice := [name for name in kept if name.casefold() in OURS]:
        raise InputError(f"column {twice[0]} is like one that is written; rename it in a view.")
    steps = _scale(_take(table.select(kept), scorer), scorer)
    steps = _find_nearest(steps, scorer)
    steps = _judge(steps, scorer)
    return steps.select(*kept, **_name(steps, segments))


# What is read ------------------------------------------------------------------------------


def find_columns(table: ibis.Table, card: Card, wanted: list[str]) -> dict[str, str]:
    """The column of the table that holds each wanted one of the card; numbers where it says so."""
    found = fields.match_columns(table.columns, card)
    for name in wanted:
        if name not in found:
            near = suggest(name, table.columns)
            raise InputError(f"column {name} is missing; {near}")
        if name in card.features and not table[found[name]].type().is_numeric():
            kind = table[found[name]].type()
            raise InputError(f"column {name} is {kind}, not a number; cast it in a view.")
    return {name: found[name] for name in wanted}


def read_levels(
    table: ibis.Table, column: str, descriptor: Descriptor
) -> dict[str | None, str | None]:
    """What each distinct cell of a descriptor means to the card; None is a gap.

    Raises
    ------
    InputError
        There are too many distinct cells, or one is unknown to the card.
    """
    counted = (
        table.select(cell=extracts.take_text(table[column]))
        .distinct()
        .limit(extracts.MOST_LEVELS + 1)
    )
    cells = [None if pd.isna(cell) else cell for cell in counted.execute()["cell"]]
    if len(cells) > extracts.MOST_LEVELS:
        raise InputError(
            f"column {column} has over {extracts.MOST_LEVELS:,} levels; group them in a view."
        )
    try:
        return {cell: fields.read_level(cell or "", descriptor) for cell in cells}
    except InputError as error:
        raise InputError(f"column {column}: every value {error}") from None


def _take(table: ibis.Table, scorer: Scorer) -> ibis.Table:
    """The table with raw values and codes of levels, −1 for one never seen."""
    found = find_columns(table, scorer.card, [*scorer.columns, *scorer.levels])
    values = {
        _x(i): extracts.take_number(table[found[name]]) for i, name in enumerate(scorer.columns)
    }
    codes = {_code(i): _encode(table, name, found, scorer) for i, name in enumerate(scorer.levels)}
    return table.mutate(**values, **codes).view()


def _encode(table: ibis.Table, name: str, found: dict[str, str], scorer: Scorer) -> ibis.Column:
    import ibis

    levels = read_levels(table, found[name], scorer.card.descriptors[name])
    codes = dict(zip(levels, scorer.encode(name, levels.values()).tolist(), strict=True))
    words, gap = extracts.take_text(table[found[name]]), codes.pop(None, -1)
    spelled = [(c, [w for w, own in codes.items() if own == c]) for c in sorted({*codes.values()})]
    branches = [(words.isin(those), code) for code, those in spelled]
    return ibis.cases((words.isnull(), gap), *branches, else_=-1).cast("int64")


# What is computed --------------------------------------------------------------------------


def _x(i: int) -> str:
    return f"{OWN}x{i}"


def _code(i: int) -> str:
    return f"{OWN}code{i}"


def _z(i: int) -> str:
    return f"{OWN}z{i}"


def _d(i: int) -> str:
    return f"{OWN}d{i}"


def _scale(table: ibis.Table, scorer: Scorer) -> ibis.Table:
    """The table with the columns that the distance sees: z-scores, then one-hot codes."""
    columns = [_scale_feature(table[_x(i)], scorer, i) for i in range(len(scorer.columns))]
    for i, (mean, spread) in enumerate(scorer.codes):
        hot, cold = (1 - mean) / spread, (0 - mean) / spread
        code = table[_code(i)]
        columns += [
            (code == level).ifelse(write_number(hot[level]), write_number(cold[level]))
            for level in range(len(mean))
        ]
    return table.mutate(**{_z(i): column for i, column in enumerate(columns)}).view()


def _scale_feature(values: ibis.Column, scorer: Scorer, i: int) -> ibis.Column:
    """Gaps filled, logarithm taken, clipped, scaled."""
    if scorer.logged[i]:
        values = (values >= write_number(0)).ifelse((values + write_number(1)).ln(), None)
    filled = values.coalesce(write_number(scorer._transform(scorer.typical)[i]))
    low, high = scorer.clip[:, i]
    if np.isfinite([low, high]).all():
        filled = filled.clip(lower=write_number(low), upper=write_number(high))
    return (filled - write_number(scorer.mean[i])) / write_number(scorer.spread[i])


def _find_nearest(table: ibis.Table, scorer: Scorer) -> ibis.Table:
    """The table with position and second, near and far: the two nearest centres, their distances.

    Differences are squared, not multiplied out: nothing cancels, and the sums are the scorer's.
    """
    import ibis

    places = range(len(scorer.centres))
    squares = {_d(j): _square(table, centre) for j, centre in enumerate(scorer.centres)}
    table = table.mutate(**squares).view()
    own = [table[_d(j)] for j in places]
    table = table.mutate(**{OWN + "near": ibis.least(*own)}).view()
    position = _find_place([table[_d(j)] == table[OWN + "near"] for j in places])
    table = table.mutate(**{OWN + "position": position}).view()
    if len(places) == 1:
        nothing = {OWN + "far": ibis.null("float64"), OWN + "second": ibis.null("int64")}
        return table.mutate(**nothing).view()
    others = [
        (table[OWN + "position"] == j).ifelse(write_number(BEYOND), table[_d(j)]) for j in places
    ]
    table = table.mutate(**{OWN + "far": ibis.least(*others)}).view()
    position = table[OWN + "position"]
    second = _find_place([(table[_d(j)] == table[OWN + "far"]) & (position != j) for j in places])
    return table.mutate(**{OWN + "second": second}).view()


def _square(table: ibis.Table, centre: Any) -> ibis.Column:
    gaps = [table[_z(f)] - write_number(value) for f, value in enumerate(centre)]
    return reduce(add, [gap * gap for gap in gaps])


def _find_place(holds: list[Any]) -> ibis.Column:
    """The lowest place whose condition holds; the last one's is not asked."""
    import ibis

    last = len(holds) - 1
    if not last:
        return ibis.literal(0, "int64")
    return ibis.cases(*[(hold, j) for j, hold in enumerate(holds[:-1])], else_=last).cast("int64")


def _judge(table: ibis.Table, scorer: Scorer) -> ibis.Table:
    """The table with distance, confidence and status; empty cells where a row is dropped."""
    import ibis

    roots = {name: table[OWN + name].sqrt() for name in ("near", "far")}
    table = table.mutate(**{OWN + name: root for name, root in roots.items()}).view()
    near, far = table[OWN + "near"], table[OWN + "far"]
    shadow = write_number(2) * near / (near + far).nullif(write_number(0))
    confidence = write_number(1) - (far.isnull() | (near + far > 0)).ifelse(shadow, write_number(1))
    table = table.mutate(
        **{OWN + "confidence": confidence, OWN + "used": ~_is_dropped(table, scorer)}
    ).view()
    status = ibis.cases(
        (~table[OWN + "used"], "dropped"),
        (_is_outside(table, scorer), "outside"),
        (write_number(1) - table[OWN + "confidence"] > write_number(BORDERLINE), "borderline"),
        else_="ok",
    )
    names = [OWN + name for name in ("position", "second", "near", "confidence")]
    kept = {name: table[OWN + "used"].ifelse(table[name], None) for name in names}
    return table.mutate(**kept, **{OWN + "status": status}).view()


def _is_dropped(table: ibis.Table, scorer: Scorer) -> Any:
    """A value that the card's policies drop a customer for: a gap, or one beyond the fence."""
    import ibis

    signs: list[Any] = [ibis.literal(False)]
    for i, (low, high) in enumerate(scorer.fence.T):
        value = table[_x(i)]
        if scorer.needed[i]:
            signs.append(value.isnull())
        if np.isfinite([low, high]).all():
            ends = find_edges(low, high) if scorer.logged[i] else (low, high)
            beyond = ~value.between(*map(write_number, ends))
            signs.append(beyond.coalesce(False))
    return reduce(or_, signs)


def find_edges(low: float, high: float) -> tuple[float, float]:
    """The least and the largest value whose logarithm of 1 + value lies in low…high.

    A database's logarithm may round otherwise; with its edges as raw values, a fence drops the very
    rows that numpy's does.
    """
    with np.errstate(over="ignore", divide="ignore"):
        least, most = np.expm1([low, high])
        while np.log1p(least) >= low:
            least = np.nextafter(least, -np.inf)
        while np.log1p(least) < low:
            least = np.nextafter(least, np.inf)
        while np.log1p(most) <= high:
            most = np.nextafter(most, np.inf)
        while np.log1p(most) > high:
            most = np.nextafter(most, -np.inf)
    return float(least), float(most)


def _is_outside(table: ibis.Table, scorer: Scorer) -> Any:
    """Beyond what the training rows spanned: in a feature, in a level, in the distance."""
    signs = []
    for i, (low, high) in enumerate(scorer.bounds.T):
        signs.append((~table[_x(i)].between(write_number(low), write_number(high))).coalesce(False))
    signs += [table[_code(i)] < 0 for i in range(len(scorer.levels))]
    near, position = table[OWN + "near"], table[OWN + "position"]
    signs += [(position == j) & (near > write_number(r)) for j, r in enumerate(scorer.radius)]
    return reduce(or_, signs)


def _name(table: ibis.Table, segments: list[dict[str, Any]]) -> dict[str, ibis.Column]:
    """Our columns as people read them: ids and names for positions."""
    import ibis

    def look_up(place: str, key: str, kind: str) -> ibis.Column:
        values = [ibis.literal(segment[key], kind) for segment in segments]
        return ibis.cases(
            *[(table[OWN + place] == j, value) for j, value in enumerate(values)],
            else_=ibis.null(kind),
        )

    return {
        "cluster": look_up("position", "id", "int64"),
        "segment": look_up("position", "name", "string"),
        "distance": table[OWN + "near"],
        "second": look_up("second", "name", "string"),
        "confidence": table[OWN + "confidence"],
        "status": table[OWN + "status"],
    }


def keep_segment(scored: ibis.Table, cluster: int) -> ibis.Table:
    """The customers of one segment.

    Planners move a filter below what it asks for, and would write the whole model into it; they
    do not move it below a random number.
    """
    import ibis

    drawn = scored.mutate(**{OWN + "drawn": ibis.random()})
    kept = drawn.filter((drawn.cluster == cluster) & (drawn[OWN + "drawn"] >= 0))
    return kept.drop(OWN + "drawn")


# What is counted and measured --------------------------------------------------------------


def count_problems(table: ibis.Table, scorer: Scorer) -> pd.DataFrame:
    """One row a feature, from one pass over the table: column, missing, below, above, customers.

    `below` and `above` count values beyond the hard limits, infinite ones among them.
    """
    found = find_columns(table, scorer.card, [*scorer.columns, *scorer.levels])
    figures: dict[str, Any] = {"rows": table.count()}
    for i, name in enumerate(scorer.columns):
        low, high = find_limits(scorer.card.features[name])
        values = extracts.take_number(table[found[name]])
        figures |= {
            f"missing{i}": values.isnull().sum(),
            f"below{i}": (values < write_number(low)).sum(),
            f"above{i}": (values > write_number(high)).sum(),
        }
    counts = table.aggregate(**figures).execute().iloc[0].fillna(0).astype(int)
    columns = {"column": scorer.columns}
    for kind in ("missing", "below", "above"):
        columns[kind] = [counts[f"{kind}{i}"] for i in range(len(scorer.columns))]
    return pd.DataFrame(columns).assign(customers=counts["rows"])


def count_statuses(scored: ibis.Table) -> pd.DataFrame:
    """How many customers each cluster and status has: cluster, status, customers."""
    return scored.group_by("cluster", "status").aggregate(customers=scored.count()).execute()


def measure_segments(scored: ibis.Table, card: Card) -> pd.DataFrame:
    """One row per cluster and feature, and with an empty cluster per feature of everyone.

    Columns as of `profiles.measure_features`; dropped customers are left out. See
    `extracts.measure_columns` for what is exact.
    """
    found = find_columns(scored, card, list(card.features))
    numbers = {name: extracts.take_number(scored[found[name]]) for name in card.features}
    return extracts.measure_columns(scored, numbers, by="cluster")


def count_levels(scored: ibis.Table, card: Card) -> pd.DataFrame:
    """One row per cluster and level that it has: cluster, variable, level, customers.

    An empty cluster stands for everyone, the level `missing` for a gap; levels as the card reads
    them. Dropped customers are left out.
    """
    columns = ["cluster", "variable", "level", "customers"]
    parts = [_count_levels(scored, card, name)[columns] for name in card.descriptors]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _count_levels(scored: ibis.Table, card: Card, name: str) -> pd.DataFrame:
    column = find_columns(scored, card, [name])[name]
    levels = read_levels(scored, column, card.descriptors[name])
    cells = scored.select("cluster", cell=extracts.take_text(scored[column]))
    counts = cells.group_by("cluster", "cell").aggregate(customers=cells.count()).execute()
    counts["level"] = [levels[None if pd.isna(cell) else cell] for cell in counts["cell"]]
    if not card.descriptors[name].levels:
        counts["level"] = _pool(counts)
    used = counts[counts["cluster"].notna()].fillna({"level": "missing"})
    everyone = used.groupby("level", as_index=False)["customers"].sum().assign(cluster=pd.NA)
    each = used.groupby(["cluster", "level"], as_index=False)["customers"].sum()
    return pd.concat([everyone, each]).astype({"cluster": "Int64"}).assign(variable=name)


def _pool(counts: pd.DataFrame) -> pd.Series:
    """The levels, the rare ones of very many as “Other”, as `customers` reads them."""
    totals = counts.groupby("level")["customers"].sum().sort_values(ascending=False, kind="stable")
    if len(totals) <= fields.MANY_LEVELS:
        return counts["level"]
    kept = totals.index[: fields.MANY_LEVELS - 1]
    return counts["level"].where(counts["level"].isna() | counts["level"].isin(kept), "Other")
