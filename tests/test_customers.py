"""Reading a table through its card: what is understood, what is refused and how."""

import pandas as pd
import pytest

from segmentation import InputError
from segmentation.customers import table as customers
from segmentation.customers import text as tables

ROWS = "\n".join(f"{i:03d},{i},{i * i}" for i in range(1, 13))
GOOD = f"id,a,b\n{ROWS}\n"


def read(path, **options):
    return customers.read_customers(customers.read_card(path, **options))


def test_the_bundled_table(card, table):
    assert tables.hash_file(card.source).startswith("194975e1f84d29ee")
    assert list(table) == ["CustomerID", *card.features, "Gender"]
    assert table["CustomerID"].iloc[0] == "1"
    assert table["Gender"].value_counts().to_dict() == {"Female": 112, "Male": 88}
    assert table["Age"].dtype == float


def test_headers_and_codings_met_in_the_wild(card, tmp_path):
    rows = "".join(f"{i},{'01FM'[i % 4]},{20 + i},{30 + i},{40 + i}\n" for i in range(1, 21))
    (tmp_path / "wild.csv").write_text(
        f"CustomerID,Genre,age,Annual_Income,Spending_Score\n{rows}", "utf-8"
    )
    wild = card.model_copy(update={"table": "wild.csv", "path": tmp_path / "card.yaml"})
    table = customers.read_customers(wild)
    assert list(table) == ["CustomerID", *card.features, "Gender"]
    assert table["Gender"].tolist()[:4] == ["Male", "Female", "Male", "Female"]


def test_running_numbers_as_a_feature_are_told(write_card):
    rows = "".join(f"c{i},{i},{i % 7}\n" for i in range(1, 31))
    _, quality = customers.inspect_customers(customers.read_card(write_card("id,a,b\n" + rows)))
    assert quality["finding"].tolist() == ["running numbers, as of an id"]


def test_ids_stay_text(write_card):
    assert read(write_card(GOOD))["id"].iloc[0] == "001"


def test_headers_are_found_by_alias_case_and_space(write_card):
    path = write_card(
        GOOD.replace("id,a,b", " ID ,A,Bee"), features={"a": {}, "b": {"aliases": ["bee"]}}
    )
    assert list(read(path)) == ["id", "a", "b"]


def test_codings_become_levels(write_card):
    text = "id,a,b,g\n" + "\n".join(f"{i},{i},{i},{code}" for i, code in enumerate("FM01fmFMFM01"))
    levels = {"g": {"levels": {"Female": ["F", "0"], "Male": ["M", "1"]}}}
    table = read(write_card(text, descriptors=levels))
    assert list(table["g"][:6]) == ["Female", "Male"] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,a\n1,2\n", "column b is missing; known are id, a. Name it in the card's `aliases:`."),
        (GOOD.replace("id,a,b", "id,a,bb"), "column b is missing; did you mean bb? Name it"),
        (
            GOOD + "x,forty,9\n",
            "column a: 1 values are not numbers ('forty' in line 14); correct them",
        ),
        (GOOD + "x,inf,9\n", "column a: 1 values are not numbers ('inf' in line 14); correct them"),
        (GOOD + "001,1,9\n", "column id: 1 ids stand twice (line 14); keep one row a customer"),
        (GOOD + ",1,9\n", "column id: 1 ids are empty"),
        (GOOD + "x,-1,9\n", "column a: 1 values lie outside 0…99 years ('-1' in line 14)"),
        ("id,a,b\n1,2,3\n", "1 customers are too few; give at least 10."),
        ("", "table.csv is empty"),
        (GOOD.replace("2", "é").encode("latin-1"), "is not utf-8"),
    ],
)
def test_refusals_name_the_place_and_the_mend(text, message, write_card):
    path = write_card(text, features={"a": {"range": [0, 99], "unit": "years"}, "b": {}})
    with pytest.raises(InputError) as error:
        read(path)
    assert message in str(error.value)


def test_all_problems_are_told_at_once(write_card):
    with pytest.raises(InputError) as error:
        read(write_card(GOOD + "001,x,y\n"))
    assert str(error.value).count("\n") == 2


def test_an_unexplained_coding_is_refused_with_the_mend(write_card):
    text = "id,a,b,g\n" + "\n".join(f"{i},{i},{i},{1 + i % 2}" for i in range(12))
    levels = {"g": {"levels": {"Female": ["F"], "Male": ["M", "1"]}}}
    with pytest.raises(InputError, match=r"1 codings are unknown .*'2'.*`levels:` which of Female"):
        read(write_card(text, descriptors=levels))


def test_missing_values_follow_the_card(write_card):
    holed = GOOD + "x,,9\n"
    assert read(write_card(holed))["a"].isna().sum() == 1
    with pytest.raises(InputError, match="1 values are missing"):
        read(write_card(holed, features={"a": {"missing": "refuse"}, "b": {}}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"titel": "x"}, "titel is not known; did you mean title?"),
        ({"features": {"a": {}}}, "features: .*at least 2"),
        ({"decimal": ";"}, "decimal: "),
        ({"descriptors": {"g": {"range": [0, 1]}}}, "descriptors.g.range is not known"),
        ({"features": {"a": {"missing": "mean"}, "b": {}}}, "missing: Input should be 'median'"),
    ],
)
def test_a_wrong_card_is_refused(fields, message, write_card):
    with pytest.raises(InputError, match=message):
        customers.read_card(write_card(GOOD, **fields))


def test_a_card_that_is_no_yaml_names_the_line(tmp_path):
    (tmp_path / "card.yaml").write_text("title: x\n  table: [\n")
    with pytest.raises(InputError, match="not valid YAML at line 2"):
        customers.read_card(tmp_path / "card.yaml")


def test_features_by_name_or_label_keep_the_card_s_order():
    card = customers.read_card(
        "data/mall_customers.yaml", features="spending score, Annual Income (k$)"
    )
    assert list(card.features) == ["Annual Income (k$)", "Spending Score (1-100)"]


def test_descriptions_are_those_of_the_table(table, card):
    described = customers.describe_features(table, card).set_index("feature")
    assert described.loc["Annual income", "median"] == 61.5
    assert described["missing"].sum() == 0
    counted = customers.count_levels(table, card).set_index("level")
    assert counted["customers"].to_dict() == {"Female": 112, "Male": 88}


def test_sentences_hold_the_table_s_figures(table, card):
    assert "Age 36 years, Annual income 61.5 k$" in customers.summarize_customers(table, card)
    assert "no missing values" in customers.summarize_quality(table, card)
    assert "67 a feature, against the 70" in customers.summarize_support(table, card)
    assert "Age and Spending score, r = -0.33" in customers.summarize_correlations(table, card)
    means = table.groupby("Gender")["Age"].mean()
    assert f"Female {means['Female']:.1f}" in customers.summarize_groups(table, card)


def test_nothing_is_changed_in_the_caller_s_table(table, card):
    before = table.copy()
    customers.describe_features(table, card)
    customers.count_levels(table, card)
    pd.testing.assert_frame_equal(table, before)
