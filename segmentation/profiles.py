"""What the segments are like: sizes, raw-unit statistics, effects, names, sentences."""

from __future__ import annotations

from itertools import combinations
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from tabulate import tabulate

from segmentation import stability
from segmentation.customers import Card
from segmentation.features import measure_association
from segmentation.kmeans import Floats
from segmentation.palette import PALETTE
from segmentation.selection import Selection, summarize_choice

SLIGHT, MARKER, EXTREME = 0.2, 0.5, 1.5
"""Distances from everyone's mean, in overall standard deviations: below the first a feature is
average, from the second on it marks a segment, from the third on it is very high or low."""

WORDS = {"age": {"below": "younger", "above": "older", "very": "much"}}
"""Words by label; every other feature is low or high in its label."""


ONE_SEGMENT = "One segment holds everyone, so nothing sets it apart."


class Segment(TypedDict, total=False):
    """One entry of `segments.json`; `centre` and `profile` are in raw units."""

    id: int
    name: str
    size: int
    share: float
    centre: dict[str, float]
    profile: dict[str, dict[str, float]]
    colour: str
    stability: dict[str, float | str]
    sentences: list[str]


def profile_features(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row per segment and feature, in raw units, of a table with a column `cluster`.

    Columns: cluster, size, share, variable, unit, mean, sd, min, q25, median, q75, max,
    overall_mean and effect = (mean − overall mean) / overall sd (divisor n).
    """
    used = table[table["cluster"].notna()]
    rows = []
    for cluster, members in used.groupby("cluster"):
        for name, feature in card.features.items():
            overall = used[name]
            spread = overall.std(ddof=0)
            gap = members[name].mean() - overall.mean()
            rows.append(
                {
                    "cluster": int(cluster),
                    "size": len(members),
                    "share": len(members) / len(used),
                    "variable": feature.label,
                    "unit": feature.unit,
                    **_describe(members[name]),
                    "overall_mean": overall.mean(),
                    "effect": gap / spread if spread else 0.0,
                }
            )
    return pd.DataFrame(rows)


def _describe(values: pd.Series) -> dict[str, float]:
    low, q25, median, q75, high = values.quantile([0, 0.25, 0.5, 0.75, 1])
    centre = {"mean": values.mean(), "sd": values.std(ddof=0)}
    return centre | {"min": low, "q25": q25, "median": median, "q75": q75, "max": high}


def profile_levels(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row per segment and level of each descriptor, of a table with a column `cluster`.

    Columns: cluster, size, share, variable, level, customers, level_share (of the segment),
    overall_share and lift = level_share / overall_share.
    """
    used = table[table["cluster"].notna()]
    rows = []
    for name, descriptor in card.descriptors.items():
        overall = used[name].fillna("missing").value_counts(normalize=True).sort_index()
        for cluster, members in used.groupby("cluster"):
            counts = members[name].fillna("missing").value_counts()
            for level, share in overall.items():
                customers = int(counts.get(level, 0))
                rows.append(
                    {
                        "cluster": int(cluster),
                        "size": len(members),
                        "share": len(members) / len(used),
                        "variable": descriptor.label,
                        "level": level,
                        "customers": customers,
                        "level_share": customers / len(members),
                        "overall_share": share,
                        "lift": customers / len(members) / share,
                    }
                )
    columns = ["cluster", "size", "share", "variable", "level", "customers"]
    return pd.DataFrame(rows, columns=[*columns, "level_share", "overall_share", "lift"])


def name_segments(profile: pd.DataFrame) -> dict[int, str]:
    """A plain name per cluster from its own marked features, unique within the run.

    Names that coincide are told apart by finer words, then by further features, then by number.
    """
    effects = profile.pivot(index="cluster", columns="variable", values="effect")
    effects = effects[list(dict.fromkeys(profile["variable"]))]
    rows = {int(str(cluster)): row for cluster, row in effects.iterrows()}
    if len(rows) == 1:
        return dict.fromkeys(rows, "All customers")
    names = {cluster: _phrase(row) for cluster, row in rows.items()}
    for more in range(len(effects.columns)):
        twice = [c for c in names if list(names.values()).count(names[c]) > 1]
        names |= {cluster: _phrase(rows[cluster], fine=True, more=more) for cluster in twice}
    return _number(names)


def _phrase(effects: pd.Series, *, fine: bool = False, more: int = 0) -> str:
    """Words for the marked features, and for so many more, in the card's order."""
    strongest = effects.abs().sort_values(ascending=False, kind="stable")
    said = strongest.index[: int((strongest >= MARKER).sum()) + more]
    phrase = ", ".join(_word(v, effects[v], fine=fine) for v in effects.index if v in said)
    return phrase[:1].upper() + phrase[1:] if phrase else "Near the average"


def _word(variable: str, effect: float, *, fine: bool) -> str:
    name = lower_first(variable)
    plain = WORDS.get(variable.casefold(), {"very": "very"})
    below, above = plain.get("below", f"low {name}"), plain.get("above", f"high {name}")
    if abs(effect) < SLIGHT:
        return f"average {name}"
    grade = "slightly " if abs(effect) < MARKER else ""
    if fine and abs(effect) >= EXTREME:
        grade = f"{plain['very']} "
    return grade + (above if effect > 0 else below)


def lower_first(label: str) -> str:
    """A label inside a sentence: 'Annual income' → 'annual income', but 'BMI' stays."""
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def _number(names: dict[int, str]) -> dict[int, str]:
    """Tell apart names that all features together do not."""
    seen: dict[str, int] = {}
    numbered = {}
    for cluster, name in names.items():
        seen[name] = seen.get(name, 0) + 1
        numbered[cluster] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return numbered


def list_segments(profile: pd.DataFrame, centres: pd.DataFrame) -> list[Segment]:
    """The core of `segments.json`: one entry per cluster, in the order of the model's positions.

    `centres` (k, p) holds the centroids in raw units, one row a position, raw column names.
    """
    names = name_segments(profile)
    segments: list[Segment] = []
    for cluster, rows in profile.groupby("cluster", sort=True):
        position = int(str(cluster))
        first = rows.iloc[0]
        figures = rows.set_index("variable")[["mean", "sd", "median", "effect"]]
        segments.append(
            {
                "id": position,
                "name": names[position],
                "size": int(first["size"]),
                "share": float(first["share"]),
                "centre": {str(c): float(v) for c, v in centres.loc[position].items()},
                "profile": {str(v): _floats(row) for v, row in figures.iterrows()},
                "colour": PALETTE[position % len(PALETTE)],
            }
        )
    return segments


def _floats(row: pd.Series) -> dict[str, float]:
    return {str(key): float(value) for key, value in row.items()}


def add_stability(segments: list[Segment], jaccards: Floats, within: Floats) -> list[Segment]:
    """The segments with their Jaccards (resamples, k) and SLSw (pairs, k) summed up."""
    means, dissolved = jaccards.mean(axis=0), stability.dissolutions(jaccards)
    return [
        {
            **segment,
            "stability": {
                "jaccard": float(means[position]),
                "band": stability.name_band(float(means[position])),
                "dissolved": int(dissolved[position]),
                "resamples": len(jaccards),
                "slsw": float(within[:, position].mean()),
            },
        }
        for position, segment in enumerate(segments)
    ]


def summarize_stability(segments: list[Segment]) -> str:
    """Which segments come back and which do not, in a sentence."""
    if len(segments) == 1:
        return "One segment holds everyone, so it always comes back."
    jaccards = {s["name"]: float(s["stability"]["jaccard"]) for s in segments}
    worst = min(segments, key=lambda s: jaccards[s["name"]])
    figures = worst["stability"]
    return (
        f"Mean Jaccards run from {min(jaccards.values()):.2f} to {max(jaccards.values()):.2f}; the "
        f"least certain segment, “{worst['name']}”, is {figures['band']} and dissolved in "
        f"{figures['dissolved']} of {figures['resamples']} resamples."
    )


def summarize_gorges(similarities: Floats) -> str:
    """How deep the gorge between members and others is, in a sentence."""
    if similarities.shape[1] == 1:
        return "With one segment everyone is its member."
    middle = float(((similarities > 1 / 3) & (similarities < 2 / 3)).mean())
    return (
        f"{middle:.0%} of the similarities lie in the middle third; natural segments pile up at "
        "both ends, with a gorge between."
    )


def name_clusters(table: pd.DataFrame, segments: list[Segment]) -> pd.DataFrame:
    """A profile with the segments' names in a second column `segment`."""
    names = {segment["id"]: segment["name"] for segment in segments}
    named = table.copy()
    named.insert(1, "segment", named["cluster"].map(names))
    return named


def tabulate_profile(profile: pd.DataFrame) -> pd.DataFrame:
    """For people: one row a segment, mean ± sd of each feature in raw units, everyone last."""
    rows = []
    for segment, figures in profile.groupby("segment", sort=False):
        first = figures.iloc[0]
        row = {
            "Segment": segment,
            "Customers": f"{first['size']}",
            "Share": f"{first['share']:.1%}",
        }
        rows.append(row | {_title(f): f"{f['mean']:.1f} ± {f['sd']:.1f}" for f in _each(figures)})
    everyone = profile.drop_duplicates("variable")
    total = int(profile.drop_duplicates("cluster")["size"].sum())
    row = {"Segment": "Everyone", "Customers": f"{total}", "Share": f"{1:.1%}"}
    rows.append(row | {_title(f): f"{f['overall_mean']:.1f}" for f in _each(everyone)})
    return pd.DataFrame(rows)


def _each(figures: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in figures.to_dict("records")]


def _title(figure: dict[str, Any]) -> str:
    return f"{figure['variable']} ({figure['unit']})" if figure["unit"] else str(figure["variable"])


def tabulate_levels(levels: pd.DataFrame) -> pd.DataFrame:
    """For people: one row a segment and descriptor, the share of each level, everyone last."""
    tables = []
    for variable, rows in levels.groupby("variable", sort=False):
        shares = rows.pivot(index="segment", columns="level", values="level_share")
        shares = shares.loc[rows["segment"].unique()]
        shares.loc["Everyone"] = rows.drop_duplicates("level").set_index("level")["overall_share"]
        shares.columns = [f"{variable}: {level}" for level in shares.columns]
        tables.append(shares.map("{:.1%}".format))
    return pd.concat(tables, axis=1).rename_axis("Segment").reset_index() if tables else levels


def describe_segment(name: str, profile: pd.DataFrame, levels: pd.DataFrame) -> list[str]:
    """A few sentences on one segment; every figure is a cell of its rows in the two profiles."""
    figures = _each(profile[profile["segment"] == name])
    means = ", ".join(
        f"{lower_first(f['variable'])} {f['mean']:.1f} {f['unit']}".rstrip()
        + f" (everyone {f['overall_mean']:.1f})"
        for f in figures
    )
    sentences = [
        f"{name}: {figures[0]['size']} customers, {figures[0]['share']:.1%} of all.",
        f"Means: {means}.",
    ]
    own = levels[levels["segment"] == name]
    for variable, rows in own.groupby("variable", sort=False):
        mix = ", ".join(
            f"{level['level']} {level['level_share']:.1%} (everyone {level['overall_share']:.1%})"
            for level in _each(rows)
        )
        sentences.append(f"{variable}: {mix}.")
    return sentences


def add_sentences(
    segments: list[Segment], profile: pd.DataFrame, levels: pd.DataFrame
) -> list[Segment]:
    """The segments with their sentences."""
    return [
        {**segment, "sentences": describe_segment(segment["name"], profile, levels)}
        for segment in segments
    ]


def join_profiles(profile: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    """Both profiles as one table, features first; cells that do not apply are empty."""
    return pd.concat([profile, levels], ignore_index=True).astype({"customers": "Int64"})


def explain_variance(table: pd.DataFrame, card: Card) -> pd.Series:
    """The share of each feature's variance that lies between the segments, by label (0…1)."""
    used = table[table["cluster"].notna()]
    values = used[list(card.features)]
    between = values.groupby(used["cluster"]).transform("mean").var(ddof=0)
    shares = (between / values.var(ddof=0)).fillna(0.0)
    return shares.rename(index={name: card.label(name) for name in card.features})


def summarize_map(table: pd.DataFrame, card: Card, axes: list[str]) -> str:
    """How much of the spread on the map's two axes lies between the segments, in a sentence."""
    if table["cluster"].nunique() == 1:
        return ONE_SEGMENT
    first, second = (card.label(name) for name in axes)
    shares = explain_variance(table, card)
    return (
        f"The segments account for {shares[first]:.0%} of the variance of {lower_first(first)} and "
        f"{shares[second]:.0%} of that of {lower_first(second)}."
    )


def summarize_separation(table: pd.DataFrame, card: Card) -> str:
    """On which feature the segments differ most and least, in a sentence."""
    if table["cluster"].nunique() == 1:
        return ONE_SEGMENT
    shares = explain_variance(table, card).sort_values(kind="stable")
    return (
        f"They differ most in {lower_first(str(shares.index[-1]))} ({shares.iloc[-1]:.0%} of its "
        f"variance lies between them) and least in {lower_first(str(shares.index[0]))} "
        f"({shares.iloc[0]:.0%})."
    )


def summarize_effects(profile: pd.DataFrame) -> str:
    """What each segment stands out in, in its own unit, in a phrase a segment."""
    if profile["cluster"].nunique() == 1:
        return ONE_SEGMENT
    phrases = []
    for segment, rows in profile.groupby("segment", sort=False):
        f = _each(rows.loc[[rows["effect"].abs().idxmax()]])[0]
        mean = f"{f['mean']:.1f} {f['unit']}".rstrip()
        phrases.append(
            f"{segment}: {lower_first(f['variable'])} {mean} (everyone {f['overall_mean']:.1f})"
        )
    return "; ".join(phrases) + "."


def summarize_overlap(profile: pd.DataFrame) -> str:
    """Which two segments are hardest to tell apart by one feature, in a sentence."""
    means = profile.pivot(index="segment", columns="variable", values="mean")
    spreads = profile.pivot(index="segment", columns="variable", values="sd")
    gaps = {}
    for a, b in combinations(means.index, 2):
        pooled = np.sqrt((spreads.loc[a] ** 2 + spreads.loc[b] ** 2) / 2).replace(0, np.nan)
        gaps[a, b] = ((means.loc[a] - means.loc[b]).abs() / pooled).fillna(0.0)
    if not gaps:
        return "With one segment nothing can overlap."
    a, b = min(gaps, key=lambda pair: float(gaps[pair].max()))
    widest = str(gaps[a, b].idxmax())
    return (
        f"Hardest to tell apart by one feature: “{a}” and “{b}”, whose means differ most in "
        f"{lower_first(widest)}, by {gaps[a, b][widest]:.1f} of their own standard deviations."
    )


def summarize_segments(segments: list[Segment]) -> str:
    """Who is in the segments, largest first, in a sentence."""
    listed = sorted(segments, key=lambda segment: -segment["size"])
    return "; ".join(f"{s['name']} ({s['size']}, {s['share']:.1%})" for s in listed) + "."


def summarize_descriptors(table: pd.DataFrame, card: Card) -> str:
    """How much each descriptor tells about the segment, in a sentence a descriptor."""
    used = table[table["cluster"].notna()]
    if used["cluster"].nunique() < 2 or not card.descriptors:
        return "There is no second segment, or no descriptor, to compare."
    sentences = []
    for name, descriptor in card.descriptors.items():
        v = measure_association(used["cluster"], used[name])
        word = "hardly differs" if v < 0.1 else "differs a little" if v < 0.3 else "differs clearly"
        sentences.append(f"{descriptor.label} {word} between the segments (Cramér's V {v:.2f}).")
    return " ".join(sentences)


def summarize_limits(profile: pd.DataFrame) -> str:
    """What the data cannot support, in two sentences with their figures."""
    smallest = profile.loc[profile["size"].idxmin()]
    rows = _each(profile[profile["cluster"] == smallest["cluster"]])
    widest = max(rows, key=lambda f: f["sd"] / (abs(f["mean"]) or 1))
    margin = 1.96 * widest["sd"] / np.sqrt(widest["size"])
    return (
        f"The smallest segment, {smallest['segment']}, has {smallest['size']} customers: its mean "
        f"{lower_first(widest['variable'])} is known to ± {margin:.1f} {widest['unit']}".rstrip()
        + ". One table at one time shows who is alike, not why, nor who will move."
    )


def write_summary(
    title: str, choice: Selection, profile: pd.DataFrame, segments: list[Segment]
) -> str:
    """The findings in plain text, with the statistics table (mean ± sd in raw units)."""
    rows = tabulate_profile(profile)
    table = tabulate(
        rows.to_numpy().tolist(),
        headers=list(rows.columns),
        tablefmt="simple",
        disable_numparse=True,
        stralign="right",
        colalign=("left",),
    )
    told = "\n\n".join("\n".join(segment["sentences"]) for segment in segments)
    return (
        "\n\n".join([title, summarize_choice(choice), table, told, summarize_limits(profile)])
        + "\n"
    )
