"""What a column's own values for nothing are, ids that numbers are: in memory and where it lies."""

import duckdb
import numpy as np
import pandas as pd
import pytest

from segmentation import InputError
from segmentation.customers import (
    Card,
    columns,
    open_customers,
    read_customers,
    table,
    text,
)
from segmentation.customers.card import keep_features, write_card

ROWS = 40
FRAME = pd.DataFrame(
    {
        "id": [f"c{i}" for i in range(ROWS)],
        "age": [999999 if i % 8 == 0 else 20 + i for i in range(ROWS)],
        "spend": [-1.0 if i % 10 == 0 else i * 1.5 for i in range(ROWS)],
        "visits": [float(i % 7) for i in range(ROWS)],
    }
)
FEATURES = {
    "age": {"missing_values": [999999], "range": [0, 120]},
    "rate": {"expression": "spend / visits"},
}
INPUTS = {"spend": {"missing_values": ["tbd", -1]}}


def make_card(folder, name, features=FEATURES, **fields):
    values = {"title": "Shop", "table": name, "id": "id", "features": features} | fields
    return Card.model_validate(values).model_copy(update={"path": folder / "card.yaml"})


def read_findings(customers):
    return {(*row,) for row in customers.quality.itertuples(index=False)}


@pytest.mark.parametrize("kind", ["csv", "xlsx", "parquet", "lying"])
def test_values_that_mean_nothing_are_missing_wherever_the_table_is(kind, tmp_path, monkeypatch):
    written = FRAME.astype({"spend": object})
    if kind == "csv":
        written.loc[written["spend"] == -1, "spend"] = ["-1", "TBD", "-1.00", "tbd"]
        written.to_csv(tmp_path / "table.csv", index=False)
    elif kind == "xlsx":
        FRAME.to_excel(tmp_path / "table.xlsx", index=False)
    else:
        duckdb.from_df(FRAME).write_parquet(str(tmp_path / "table.parquet"))
        monkeypatch.setattr(table, "LARGE_CELLS", 0 if kind == "lying" else 10**6)
    name = f"table.{'parquet' if kind == 'lying' else kind}"
    customers = read_customers(make_card(tmp_path, name, inputs=INPUTS))
    expected = FRAME.assign(
        age=FRAME["age"].where(FRAME["age"] < 999, np.nan),
        rate=(FRAME["spend"] / FRAME["visits"]).where(
            (FRAME["spend"] != -1) & (FRAME["visits"] > 0)
        ),
    )[["id", "age", "rate"]]
    found = customers.table.set_index("id").loc[expected["id"]].reset_index()
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    done = ("values that the card says mean nothing", "read as missing")
    assert {("age", done[0], 5, done[1]), ("spend", done[0], 4, done[1])} <= read_findings(
        customers
    )


def test_the_card_keeps_what_means_nothing():
    values = {"title": "Shop", "table": "t.csv", "features": FEATURES, "inputs": INPUTS}
    card = Card.model_validate(values)
    assert card.gaps == {"age": ["999999"], "spend": ["tbd", "-1"]}
    assert "'999999'" in write_card(card)
    more = card.model_copy(update={"features": card.features | {"spend": card.features["age"]}})
    assert keep_features(more, "age, rate").gaps["spend"] == ["999999"]
    with pytest.raises(ValueError, match="rate: say `missing_values:` of its expression's columns"):
        Card.model_validate(
            values | {"features": {"age": {}, "rate": FEATURES["rate"] | {"missing_values": [1]}}}
        )


@pytest.mark.parametrize("word", ["Unknown", "N.A.", "keine Angabe", "—", "NaT", "<NA>", "#VALUE!"])
def test_words_for_nothing_are_missing_among_numbers_alone(word, tmp_path):
    frame = FRAME.astype({"visits": object}).assign(kind="a")
    frame.loc[3, ["visits", "kind"]] = word
    frame.loc[3, "id"] = "-"
    frame.to_csv(tmp_path / "table.csv", index=False)
    features = {"visits": {}, "age": {}}
    customers = read_customers(make_card(tmp_path, "table.csv", features, descriptors={"kind": {}}))
    row = customers.table.iloc[3]
    assert (row["id"], row["kind"]) == ("-", word)
    assert customers.table["visits"].isna().sum() == 1
    assert ("visits", "values are missing", 1, "filled with the median") in read_findings(customers)


@pytest.mark.parametrize("word", ["Unknown", "n.a.", "nil", ".", "--"])
def test_good_ids_stay_ids(word):
    ids, notes = pd.Series(["c1", word], name="id"), text.Notes()
    columns._check_ids(columns.clean_ids(ids), notes)
    assert not notes.problems


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["17850.0", "17851.0", "17852"], ["17850", "17851", "17852"]),
        (["17850.0", "C17851", "17852"], ["17850.0", "C17851", "17852"]),
        (["007", "1E5", "12.50"], ["007", "1E5", "12.50"]),
    ],
)
def test_whole_ids_lose_their_fraction(ids, expected, tmp_path):
    assert columns.clean_ids(pd.Series(ids, dtype="str")).tolist() == expected
    frame = FRAME.head(len(ids)).assign(id=ids)
    duckdb.from_df(frame).write_parquet(str(tmp_path / "table.parquet"))
    card = make_card(tmp_path, "table.parquet", {"age": {}, "visits": {}})
    assert sorted(open_customers(card).to_pandas()["id"]) == sorted(expected)


def test_ids_that_are_floats_or_decimals_are_the_same_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "LARGE_CELLS", 0)
    for kind in ("DOUBLE", "DECIMAL(12, 2)", "BIGINT", "VARCHAR"):
        text_of = "(i + 17850)::DOUBLE" if kind == "VARCHAR" else "i + 17850"
        source = (
            f"SELECT ({text_of})::{kind} AS id, i % 9 AS age, i % 7 AS visits FROM range(30) t(i)"
        )
        duckdb.sql(source).write_parquet(str(tmp_path / "table.parquet"))
        card = make_card(tmp_path, "table.parquet", {"age": {}, "visits": {}})
        found = read_customers(card, check_ids=True).table["id"]
        assert sorted(found) == [f"{i + 17850}" for i in range(30)], kind


def test_a_said_value_does_not_hide_what_is_no_number(tmp_path):
    frame = FRAME.astype({"visits": object})
    frame.loc[2, "visits"] = "forty"
    frame.to_csv(tmp_path / "table.csv", index=False)
    card = make_card(tmp_path, "table.csv", {"visits": {"missing_values": ["tbd"]}, "age": {}})
    with pytest.raises(InputError, match="column visits: 1 values are not numbers"):
        read_customers(card)
