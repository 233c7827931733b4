"""The fitted model as expressions: customers are scored and measured where their table lies.

Every expression does what `scorer` does, operation by operation on float64, so that a row gets
the same segment to the last bit; only logarithms are the database's own, within a last digit.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add, or_
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from segmentation import InputError
from segmentation.customers import Card, cards, columns, database, text
from segmentation.segments import profiles
from segmentation.segments.scorer import Floats, Scorer

if TYPE_CHECKING:
    import ibis

BEYOND = 1e300  # larger than any squared distance
OWN = "segmentation_"  # so begin columns that are there only on the way
number = database.write_number


def score_table(table: ibis.Table, scorer: Scorer, segments: list[dict[str, Any]]) -> ibis.Table:
    """The table with cluster, segment, distance, second, confidence and status behind its columns.

    The semantics are those of `Scorer.score` for rows within the hard limits; a tie goes to the
    lower position. Each step is a subquery, so that nothing is computed twice. `segments` are
    those of `segments.json`, by position.

    Raises
    ------
    InputError
        A column of the model is missing or not numeric, or a descriptor holds an unknown level.
    """
    kept = [name for name in table.columns if name not in cards.OURS]
    if twice := [name for name in kept if name.casefold() in cards.OURS]:
        raise InputError(f"column {twice[0]} is like one that is written; rename it in a view.")
    steps = _find_nearest(_scale(_take(table.select(kept), scorer), scorer), scorer)
    steps = _judge(_find_second(steps), scorer)
    return steps.select(*kept, **_name(steps, segments))


def _own(table: ibis.Table, kind: str) -> list[ibis.Column]:
    """Our columns of a kind, by position."""
    names = [name for name in table.columns if name.rstrip("0123456789") == OWN + kind]
    return [table[name] for name in names]


def _put(table: ibis.Table, *done: str, **made: Any) -> ibis.Table:
    """The table with columns of ours, as a subquery of its own; those of a list are numbered.

    Without those of the kinds that are `done`: MySQL would write them to disk in each step.
    """
    named: dict[str, Any] = {}
    for kind, own in made.items():
        listed = enumerate(own) if isinstance(own, list) else [("", own)]
        named |= {f"{OWN}{kind}{place}": column for place, column in listed}
    gone = {column.get_name() for kind in done for column in _own(table, kind)}
    kept = [name for name in table.columns if name not in gone | named.keys()]
    return table.select(*kept, **named).view()


# What is read ------------------------------------------------------------------------------


def find_columns(table: ibis.Table, card: Card, wanted: list[str]) -> dict[str, str]:
    """The column of the table that holds each wanted one of the card; numbers where it says so."""
    found = columns.match_columns(table.columns, card)
    found |= {name: name for name in card.features if name in table.columns}
    for name in wanted:
        if name not in found:
            raise InputError(f"column {name} is missing; {cards.suggest(name, table.columns)}")
        kind = table[found[name]].type()
        if name not in card.descriptors and not kind.is_numeric():
            raise InputError(f"column {name} is {kind}, not a number; cast it in a view.")
    numbers = {name: found[name] for name in wanted if name not in card.descriptors}
    for name, rows in database.count_texts(table, numbers).items():
        raise InputError(f"column {name} holds {rows:,} texts; store numbers, NULL for a gap.")
    return {name: found[name] for name in wanted}


def take_features(table: ibis.Table, card: Card, wanted: list[str]) -> dict[str, ibis.Column]:
    """Features as float64, those by expression computed unless the table holds them already."""
    made = {n: e for n, e in card.expressions.items() if n in wanted and n not in table.columns}
    plain = [name for name in wanted if name not in made]
    parts = [name for expression in made.values() for name in expression.columns]
    found = find_columns(table, card, [*dict.fromkeys([*plain, *parts])])
    gaps = {name: columns.list_numbers(said) for name, said in card.gaps.items()}
    numbers = {
        name: database.take_number(table[own], gaps.get(name, ())) for name, own in found.items()
    }
    for name, expression in made.items():
        numbers[name] = expression.compute(numbers, divide=database.divide_columns, number=number)
    return {name: numbers[name] for name in wanted}


def read_levels(
    table: ibis.Table, column: str, descriptor: cards.Descriptor
) -> dict[str | None, str | None]:
    """What each distinct cell of a descriptor means to the card; None is a gap.

    Raises
    ------
    InputError
        There are too many distinct cells, or one is unknown to the card.
    """
    distinct = table.select(cell=database.take_text(table[column])).distinct()
    found = distinct.limit(database.MOST_LEVELS + 1).execute()["cell"]
    cells = [None if pd.isna(cell) else cell for cell in found]
    if len(cells) > database.MOST_LEVELS:
        raise InputError(
            f"column {column} has over {database.MOST_LEVELS:,} levels; group them in a view."
        )
    try:
        return {cell: columns.read_level(cell or "", descriptor) for cell in cells}
    except InputError as error:
        raise InputError(f"column {column}: every value {error}") from None


def _take(table: ibis.Table, scorer: Scorer) -> ibis.Table:
    """The table with raw values and codes of levels, −1 for one never seen."""
    found = find_columns(table, scorer.card, [*scorer.levels])
    values = [*take_features(table, scorer.card, scorer.columns).values()]
    return _put(table, x=values, code=[_encode(table, n, found[n], scorer) for n in scorer.levels])


def _encode(table: ibis.Table, name: str, column: str, scorer: Scorer) -> ibis.Column:
    import ibis

    levels = read_levels(table, column, scorer.card.descriptors[name])
    codes = dict(zip(levels, scorer.encode(name, levels.values()).tolist(), strict=True))
    words, gap = database.take_text(table[column]), codes.pop(None, -1)
    spelled = [(c, [w for w, own in codes.items() if own == c]) for c in sorted({*codes.values()})]
    branches = [(words.isin(those), code) for code, those in spelled]
    return ibis.cases((words.isnull(), gap), *branches, else_=-1).cast("int64")


# What is computed --------------------------------------------------------------------------


def _scale(table: ibis.Table, scorer: Scorer) -> ibis.Table:
    """The table with the columns that the distance sees: z-scores, then one-hot codes."""
    scaled = [_scale_feature(values, scorer, i) for i, values in enumerate(_own(table, "x"))]
    for codes, (mean, spread) in zip(_own(table, "code"), scorer.codes, strict=True):
        hot, cold = (1 - mean) / spread, (0 - mean) / spread
        pairs = enumerate(zip(hot, cold, strict=True))
        scaled += [(codes == level).ifelse(number(yes), number(no)) for level, (yes, no) in pairs]
    return _put(table, z=scaled)


def _scale_feature(values: ibis.Column, scorer: Scorer, i: int) -> ibis.Column:
    """Gaps filled, logarithm taken, clipped, scaled."""
    if scorer.logged[i]:
        values = (values >= number(0)).ifelse((values + number(1)).ln(), None)
    filled = values.coalesce(number(scorer.filler[i]))
    low, high = scorer.clip[:, i]
    if np.isfinite([low, high]).all():
        filled = filled.clip(lower=number(low), upper=number(high))
    return (filled - number(scorer.mean[i])) / number(scorer.spread[i])


def _find_nearest(table: ibis.Table, scorer: Scorer) -> ibis.Table:
    """The table with position and near: the nearest centre, the square of its distance.

    Differences are squared, not multiplied out: nothing cancels, and the sums are the scorer's.
    """
    squares = []
    for centre in scorer.centres:
        pairs = zip(_own(table, "z"), centre, strict=True)
        gaps = [column - number(value) for column, value in pairs]
        squares.append(reduce(add, [gap * gap for gap in gaps]))
    return _find_least(_put(table, "z", d=squares), "near", "position")


def _find_second(table: ibis.Table) -> ibis.Table:
    """The table with second and far of the same, empty where there is one centre."""
    import ibis

    squares, position = _own(table, "d"), table[OWN + "position"]
    if len(squares) == 1:
        return _put(table, far=ibis.null("float64"), second=ibis.null("int64"))
    pairs = enumerate(squares)
    others = [(position == j).ifelse(number(BEYOND), square) for j, square in pairs]
    return _find_least(_put(table, d=others), "far", "second", "d")


def _find_least(table: ibis.Table, least: str, place: str, *done: str) -> ibis.Table:
    """The table with the least of the k figures `d` and the lowest position that has it."""
    import ibis

    squares = _own(table, "d")
    table = _put(table, **{least: ibis.least(*squares) if len(squares) > 1 else squares[0]})
    holds = [(figure == table[OWN + least], j) for j, figure in enumerate(_own(table, "d"))]
    return _put(table, *done, **{place: ibis.cases(*holds)})


def _judge(table: ibis.Table, scorer: Scorer) -> ibis.Table:
    """The table with distance, confidence and status; empty cells where a row is dropped."""
    import ibis

    table = _put(table, **{end: table[OWN + end].sqrt() for end in ("near", "far")})
    near, far = table[OWN + "near"], table[OWN + "far"]
    shadow = number(2) * near / (near + far).nullif(number(0))
    shadow = (far.isnull() | (near + far > 0)).ifelse(shadow, number(1))
    table = _put(table, "x", "far", shadow=shadow, used=~_is_dropped(table, scorer))
    table = _put(table, confidence=_interpolate(table[OWN + "shadow"], scorer.curve))
    used, names = table[OWN + "used"], ("position", "second", "near", "confidence")
    status = ibis.cases(
        (~used, "dropped"),
        (_is_outside(table, scorer), "outside"),
        (table[OWN + "shadow"] > number(scorer.borderline), "borderline"),
        else_="ok",
    )
    kept = {name: used.ifelse(table[OWN + name], None) for name in names}
    return _put(table, status=status, **kept)


def _interpolate(values: ibis.Column, curve: Floats) -> Any:
    """A column between the knots of a curve (2, m), constant beyond them, as `numpy.interp`."""
    import ibis

    (x, y), slopes = curve, np.diff(curve[1]) / np.diff(curve[0])
    lines = [
        (values < number(end), number(slope) * (values - number(start)) + number(height))
        for end, slope, start, height in np.array([x[1:], slopes, x[:-1], y[:-1]]).T.tolist()
    ]
    first, last = number(float(y[0])), number(float(y[-1]))
    low = values < number(float(x[0]))
    return ibis.cases((values.isnull(), None), (low, first), *lines, else_=last)


def _is_dropped(table: ibis.Table, scorer: Scorer) -> Any:
    """A value that the card's policies drop a customer for: a gap, or one beyond the fence."""
    import ibis

    signs: list[Any] = [ibis.literal(False)]
    for i, value in enumerate(_own(table, "x")):
        low, high = scorer.fence[:, i]
        if scorer.needed[i]:
            signs.append(value.isnull())
        if np.isfinite([low, high]).all():
            ends = find_edges(low, high) if scorer.logged[i] else (low, high)
            signs.append(_is_beyond(value, *ends))
    return reduce(or_, signs)


def _is_beyond(value: Any, low: float, high: float) -> Any:
    return (~value.between(number(low), number(high))).coalesce(False)


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
    """Too far from the nearest centre, or of a level never seen."""
    signs: list[Any] = [codes < 0 for codes in _own(table, "code")]
    near, position = table[OWN + "near"], table[OWN + "position"]
    signs += [(position == j) & (near > number(r)) for j, r in enumerate(scorer.radius)]
    return reduce(or_, signs)


def _name(table: ibis.Table, segments: list[dict[str, Any]]) -> dict[str, ibis.Column]:
    """Our columns as people read them, ids and names for positions; each with its type."""

    def look_up(place: str, key: str, kind: str) -> ibis.Column:
        values = [(j, segment[key]) for j, segment in enumerate(segments)]
        return database.recast(table[OWN + place].cases(*values), kind)

    return {
        "cluster": look_up("position", "id", "int64"),
        "segment": look_up("position", "name", "string"),
        "distance": database.recast(table[OWN + "near"], "float64"),
        "second": look_up("second", "name", "string"),
        "confidence": database.recast(table[OWN + "confidence"], "float64"),
        "status": database.recast(table[OWN + "status"], "string"),
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


# Centres and limits of all customers -------------------------------------------------------


def move_centres(table: ibis.Table, scorer: Scorer) -> Iterator[tuple[float, float, Floats]]:
    """Lloyd's steps, each one aggregate query: the inertia before, the share of it that is gained
    by moving the centres alone, and the centres (k, q) after it.

    Nearest is told by the linear form |c|² − 2 c·x; the sum of |x|² is of the first step. A centre
    that nobody is nearest to stays.
    """
    scaled, centres, total = _scale(_take_used(table, scorer), scorer), scorer.centres, None
    z = [column.get_name() for column in _own(scaled, "z")]
    while True:
        forms = []
        for centre in centres:
            parts = [scaled[c] * number(-2 * value) for c, value in zip(z, centre, strict=True)]
            forms.append(reduce(add, parts, number(float(centre @ centre))))
        steps = _find_least(_put(scaled, d=forms), "near", "position")
        sums = {name: steps[name].sum() for name in [*z, OWN + "near"]}
        if total is None:
            sums["squares"] = reduce(add, [column * column for column in _own(steps, "z")]).sum()
        found = steps.group_by(OWN + "position").aggregate(customers=steps.count(), **sums)
        found = found.to_pandas().set_index(OWN + "position")
        total = found["squares"].sum() if total is None else total
        inertia, moved = float(found[OWN + "near"].sum() + total), centres.copy()
        moved[found.index] = found[z].div(found["customers"], axis=0)
        ways = ((moved - centres) ** 2).sum(axis=1)[found.index]
        yield inertia, float(ways @ found["customers"]) / inertia if inertia else 0.0, moved
        centres = moved


def _take_used(table: ibis.Table, scorer: Scorer) -> ibis.Table:
    """The customers whom the card's policies do not drop, with raw values and codes."""
    taken = _take(table, scorer)
    return taken.filter(~_is_dropped(taken, scorer)) if scorer.fenced else taken


def measure_ranges(table: ibis.Table, scorer: Scorer) -> list[tuple[float, float]]:
    """The least and the largest value of each feature, of all customers used."""
    used = _take_used(table, scorer)
    columns = _own(used, "x")
    ends = [column.min() for column in columns] + [column.max() for column in columns]
    found = used.aggregate(**{f"end{i}": end for i, end in enumerate(ends)}).execute()
    low, high = found.iloc[0].to_numpy(np.float64).reshape(2, -1).tolist()
    return [*zip(low, high, strict=True)]


# What is measured ----------------------------------------------------------------------------


def measure_segments(scored: ibis.Table, card: Card) -> pd.DataFrame:
    """One row per cluster and feature, and with an empty cluster per feature of everyone.

    Columns as of `profiles.measure_features`; dropped customers are left out. See
    `database.measure_columns` for what is exact.
    """
    numbers = take_features(scored, card, list(card.measured))
    measures = database.measure_columns(scored, numbers)
    everyone = measures[measures["cluster"].isna()].set_index("variable")
    seen = {}
    for i, (name, feature) in enumerate(card.features.items()):
        logged = feature.transform == "log"
        quartiles = everyone.loc[name, ["q25", "q75"]].astype(float)
        low, high = profiles.find_fences(feature, *(np.log1p(quartiles) if logged else quartiles))
        values = (numbers[name] + 1).ln() if logged else numbers[name]
        clipped = values.clip(number(low), number(high)) if np.isfinite(low) else values
        seen[f"x{i}"] = scored["cluster"].notnull().ifelse(clipped, None)
    table = scored.select(cluster="cluster", **seen)
    asked = {f"{x}mean": table[x].mean() for x in seen}
    asked |= {f"{x}sd": table[x].std(how="pop") for x in seen}
    both = database.aggregate_by_cluster(table, asked)
    named = zip(card.features, seen, strict=True)
    own = {name: both[["cluster", f"{x}mean", f"{x}sd"]] for name, x in named}
    names = ["cluster", "seen_mean", "seen_sd"]
    parts = [part.set_axis(names, axis=1).assign(variable=name) for name, part in own.items()]
    return measures.merge(pd.concat(parts), "left", on=["cluster", "variable"])


def count_levels(scored: ibis.Table, card: Card) -> pd.DataFrame:
    """One row per cluster and level that it has: cluster, variable, level, customers.

    An empty cluster stands for everyone, the level `missing` for a gap; levels as the card reads
    them. Dropped customers are left out.
    """
    parts, notes = {}, text.Notes()
    for name, descriptor in card.descriptors.items():
        column = find_columns(scored, card, [name])[name]
        cells = scored.select("cluster", cell=database.take_text(scored[column]))
        counts = cells.group_by("cluster", "cell").aggregate(customers=cells.count()).execute()
        counts = counts.sort_values("cell", ignore_index=True)
        words = counts["cell"].astype(object).fillna("").rename(name)
        levels = columns.parse_levels(words, descriptor, notes, counts=counts["customers"])
        parts[name] = counts.assign(level=levels)
    notes.check(card.name)
    return profiles.sum_levels(parts)
