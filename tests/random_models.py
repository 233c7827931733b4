"""Models and customers from a seed: every policy, gaps, outliers, ties, levels never seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from modelling import build_model, name_customers

from segmentation.customers import read_card, read_customers
from segmentation.segments import Scorer, assign_customers, build_figures
from segmentation.segments.scorer import STATUSES
from segmentation.serving import Model

POLICIES = [
    *({}, {"transform": "log"}, {"outliers": "clip"}, {"transform": "log", "outliers": "clip"}),
    *({"missing": "drop"}, {"outliers": "drop"}, {"transform": "log", "outliers": "drop"}),
]


def make_model(seed: int) -> Scorer:
    """A scorer of one to six segments on two to four features and perhaps a descriptor."""
    rng = np.random.default_rng(seed)
    k, p = int(rng.integers(1, 7)), int(rng.integers(2, 5))
    policies = [POLICIES[i] for i in rng.integers(len(POLICIES), size=p)]
    levels = ["Bonn", "Köln", "O'Hara", None][: int(rng.choice([0, 2, 4]))]
    features = [_make_feature(rng, f"f {i}", policy) for i, policy in enumerate(policies)]
    codes = [_make_codes(rng, levels)] if levels else []
    width = p + len(levels)
    descriptors = {"city": {"weight": 1.0 if levels else 0.0}, "plan": {}}
    parts = {f"f {i}": policy for i, policy in enumerate(policies)}
    figures: dict[str, Any] = {
        "features": features,
        "codes": codes,
        "centres": (rng.integers(-2, 3, (k, width)) / 2).tolist(),
        "radius": rng.uniform(1.5, 3, k).tolist(),
        "card": {"title": "t", "id": "id", "features": parts, "descriptors": descriptors},
    }
    return Scorer(figures)


def _make_feature(rng: np.random.Generator, name: str, policy: dict[str, str]) -> dict[str, Any]:
    logged, outliers = "transform" in policy, policy.get("outliers")
    around = 3.0 if logged else 10.0
    ends = [around - 2.0, float(np.log1p(12.0)) if logged else 12.0]  # a value lies on the fence
    mean, scale = (2.0, 0.7) if logged else (8.0, rng.choice([2.0, 3.0]))
    return {
        **{"column": name, "fill": 8.0, "transform": "log" if logged else "none"},
        "clip": ends if outliers == "clip" else None,
        "fence": ends if outliers == "drop" else None,
        **{"mean": mean, "scale": float(scale), "range": [0.0, float(rng.integers(15, 25))]},
    }


def _make_codes(rng: np.random.Generator, levels: list[str | None]) -> dict[str, Any]:
    return {"column": "city", "levels": levels, "mean": rng.random(len(levels)), "scale": 0.9}


def make_customers(seed: int, scorer: Scorer, rows: int = 60) -> pd.DataFrame:
    """Customers for a model: whole numbers (many ties), fractions, gaps, far ones, odd levels."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"id": [f"c{i}" for i in range(rows)]})
    for i, name in enumerate(scorer.columns):
        values = rng.integers(0, 20, rows).astype(float)
        if i % 2:
            values += rng.random(rows)
        values[rng.random(rows) < 0.05] = 1e7
        values[rng.random(rows) < 0.1] = np.nan
        table[name] = values if np.isnan(values).any() or i % 2 else values.astype(int)
    table["city"] = rng.choice(["Bonn", "Köln", "O'Hara", " Bonn", "Ulm", None], rows)
    return table.assign(plan=rng.choice(["a", "b", None], rows), status="theirs")


def list_segments(scorer: Scorer) -> list[dict[str, Any]]:
    """Names and ids as in `segments.json`; ids are no positions."""
    return [{"id": j + 3, "name": f"Segment “{j}” o'"} for j in range(len(scorer.centres))]


def score_in_pandas(table: pd.DataFrame, scorer: Scorer) -> pd.DataFrame:
    """What `score_table` must give, by `Scorer.score`."""
    read = table.assign(city=table["city"].str.strip())
    scores, segments = scorer.score(*scorer.take(read)), list_segments(scorer)
    ids = [s["id"] for s in segments]
    names = np.array([s["name"] for s in segments] + [None], dtype=object)
    result = table.drop(columns="status")
    result["cluster"] = pd.array([ids[j] if j >= 0 else None for j in scores.position], "Int64")
    result["segment"], result["distance"] = names[scores.position], scores.distance
    result["second"], result["confidence"] = names[scores.second], scores.confidence
    return result.assign(status=np.array(STATUSES)[scores.status])


def put_table(database: Any, table: pd.DataFrame, name: str = "customers") -> Any:
    """A table of DuckDB with these rows; a gap is NULL or NaN as it comes."""
    database.con.register("given", table)
    database.con.execute(f"CREATE OR REPLACE TABLE {name} AS FROM given")
    return database.table(name)


# A shop whose card has every policy --------------------------------------------------------

SHOP = """
title: A shop
table: shop.parquet
id: id
features:
  spent: {transform: log, outliers: drop}
  visits: {outliers: clip, label: Visits a year}
  age: {missing: drop, range: [0, 120]}
  basket: {transform: log, outliers: clip, weight: 2}
descriptors:
  city: {weight: 1.0, levels: {Bonn: [BN], Köln: [K]}}
  plan: {}
"""


def make_shop(rows: int, seed: int = 0) -> pd.DataFrame:
    """Customers with gaps, outliers and spellings of their own; age as a whole number or NULL."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "id": [f"c{i}" for i in range(rows)],
            "spent": rng.lognormal(3, 1, rows).round(2),
            "Visits a year": rng.poisson(6, rows).astype(float),
            "age": pd.array(rng.integers(18, 90, rows), "Int64"),
            "basket": rng.integers(1, 60, rows),
            "city": rng.choice(["BN", "köln", "Köln", None], rows, p=[0.5, 0.3, 0.15, 0.05]),
            "plan": rng.choice(["a", "b c", None], rows, p=[0.5, 0.4, 0.1]),
            "note": "=1+1",
        }
    )
    table.loc[:3, "spent"], table.loc[4:6, "Visits a year"] = 1e7, 300.0
    table.loc[rng.random(rows) < 0.05, "Visits a year"] = np.nan
    table.loc[rng.random(rows) < 0.05, "age"] = pd.NA
    return table


def fit_shop(folder: Path, rows: int, k: int = 4) -> tuple[Model, pd.DataFrame, pd.DataFrame]:
    """A model of the shop, the file's table as written and as the series clusters it."""
    table = make_shop(rows)
    table.to_parquet(folder / "shop.parquet", index=False)
    (folder / "shop.yaml").write_text(SHOP, "utf-8")
    card = read_card(folder / "shop.yaml")
    customers = read_customers(card).table
    figures = build_figures(build_model(customers, card, k), customers, card)
    clustered = assign_customers(figures, customers, card)
    scorer = Scorer(figures)
    segments = list_segments(scorer)
    named = name_customers(clustered, segments)
    return Model(folder, {"run_id": "shop"}, scorer, segments), table, named


TOLD = ("cluster", "segment", "second", "status")


def check_alike(told: pd.DataFrame, clustered: pd.DataFrame) -> None:
    """Row by row by id: the same segments and statuses, distances but for the last digits."""
    told, wanted = told.set_index("id"), clustered.set_index("id")
    told = told.loc[wanted.index]
    for name in TOLD:
        given, asked = told[name].astype(object), wanted[name].astype(object)
        assert list(given.where(given.notna(), None)) == list(asked.where(asked.notna(), None))
    for name in ("distance", "confidence"):
        np.testing.assert_allclose(
            told[name].to_numpy(float, na_value=np.nan), wanted[name].to_numpy(float), rtol=1e-9
        )
