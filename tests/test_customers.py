"""Reading a table through its card: what is understood, what is refused and how."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation import InputError
from segmentation.customers import Card, cards, columns, read_card, read_customers
from segmentation.runs import hash_file

ROWS = "\n".join(f"{i:03d},{i},{i * i}" for i in range(1, 13))
GOOD = f"id,a,b\n{ROWS}\n"


def read(path, **options):
    return read_customers(read_card(path, **options)).table


def test_the_bundled_table(card, table):
    assert hash_file(card.source).startswith("194975e1f84d29ee")
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
    table = read_customers(wild).table
    assert list(table) == ["CustomerID", *card.features, "Gender"]
    assert table["Gender"].tolist()[:4] == ["Male", "Female", "Male", "Female"]


def test_running_numbers_as_a_feature_are_told(write_card):
    rows = "".join(f"c{i},{i},{i % 7}\n" for i in range(1, 31))
    customers = read_customers(read_card(write_card("id,a,b\n" + rows)))
    assert customers.quality["finding"].tolist() == ["running numbers, as of an id"]


def test_ids_stay_text(write_card):
    assert read(write_card(GOOD))["id"].iloc[0] == "001"


def test_headers_are_found_by_alias_case_and_space(write_card):
    path = write_card(
        GOOD.replace("id,a,b", " ID ,A,Bee"), features={"a": {}, "b": {"aliases": ["bee"]}}
    )
    assert list(read(path)) == ["id", "a", "b"]


def test_codings_become_levels(write_card):
    rows = "id,a,b,g\n" + "\n".join(f"{i},{i},{i},{code}" for i, code in enumerate("FM01fmFMFM01"))
    levels = {"g": {"levels": {"Female": ["F", "0"], "Male": ["M", "1"]}}}
    table = read(write_card(rows, descriptors=levels))
    assert list(table["g"][:6]) == ["Female", "Male"] * 3


@pytest.mark.parametrize(
    ("rows", "message"),
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
def test_refusals_name_the_place_and_the_mend(rows, message, write_card):
    path = write_card(rows, features={"a": {"range": [0, 99], "unit": "years"}, "b": {}})
    with pytest.raises(InputError) as error:
        read(path)
    assert message in str(error.value)


def test_all_problems_are_told_at_once(write_card):
    with pytest.raises(InputError) as error:
        read(write_card(GOOD + "001,x,y\n"))
    assert str(error.value).count("\n") == 2


def test_an_unexplained_coding_is_refused_with_the_mend(write_card):
    rows = "id,a,b,g\n" + "\n".join(f"{i},{i},{i},{1 + i % 2}" for i in range(12))
    levels = {"g": {"levels": {"Female": ["F"], "Male": ["M", "1"]}}}
    with pytest.raises(InputError, match=r"1 codings are unknown .*'2'.*`levels:` which of Female"):
        read(write_card(rows, descriptors=levels))


def test_missing_values_follow_the_card(write_card):
    holed = GOOD + "x,,9\n"
    assert read(write_card(holed))["a"].isna().sum() == 1
    with pytest.raises(InputError, match="1 values are missing"):
        read(write_card(holed, features={"a": {"missing": "refuse"}, "b": {}}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"map": ["a", "bee"]}, "map: bee is no column of a feature; known are a, b"),
        ({"features": {"a": {}, "b": {"expression": "a +"}}}, "'a \\+' cannot be read"),
        ({"titel": "x"}, "titel is not known; did you mean title?"),
        ({"features": {"a": {}}}, "features: .*at least 2"),
        ({"decimal": ";"}, "decimal: "),
        ({"descriptors": {"g": {"range": [0, 1]}}}, "descriptors.g.range is not known"),
        ({"features": {"a": {"missing": "mean"}, "b": {}}}, "missing: Input should be 'median'"),
    ],
)
def test_a_wrong_card_is_refused(fields, message, write_card):
    with pytest.raises(InputError, match=message):
        read_card(write_card(GOOD, **fields))


def test_a_card_that_is_no_yaml_names_the_line(tmp_path):
    (tmp_path / "card.yaml").write_text("title: x\n  table: [\n")
    with pytest.raises(InputError, match="not valid YAML at line 2"):
        read_card(tmp_path / "card.yaml")


def test_features_by_name_or_label_keep_the_card_s_order():
    card = read_card("data/mall_customers.yaml", features="spending score, Annual Income (k$)")
    assert list(card.features) == ["Annual Income (k$)", "Spending Score (1-100)"]


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "card.yaml").write_text("title: x\nfeatures:\n  a: {}\n  b: {}\n  a: {}\n")
    with pytest.raises(InputError, match="a stands a second time in line 5"):
        read_card(tmp_path / "card.yaml")


def test_all_of_a_small_table_is_seen(card):
    customers = read_customers(card)
    assert (customers.total, customers.sampled) == (200, False)
    assert customers.view == "Seen here: all 200 customers."
    assert card.titles["Annual Income (k$)"] == "Annual income (k$)"
    assert card.labels["Gender"] == "Gender"


def test_a_gap_in_a_descriptor_is_none(write_card):
    rows = "id,a,b,g,h\n" + "\n".join(
        f"{i},{i},{i * i},{c},{c}" for i, c in enumerate(["F", ""] * 6)
    )
    said = {"g": {}, "h": {"levels": {"F": []}}}
    table = read(write_card(rows, descriptors=said))
    assert table["g"].tolist() == table["h"].tolist() == ["F", None] * 6
    assert [str(kind) for kind in table.dtypes] == ["str", "float64", "float64", "object", "object"]


# Cards are written and read ----------------------------------------------------------------

WORDS = st.text("ab ÄÖ€%:#'\"-1{}[]&*!|>\\", min_size=1, max_size=8).map(lambda word: f"x{word}")
COLUMN = st.fixed_dictionaries(
    {},
    optional={
        "label": WORDS,
        "aliases": st.lists(WORDS | st.just("2024-01-01") | st.just("yes"), max_size=2),
        "unit": WORDS,
        "kind": st.sampled_from(["age", ""]),
        "range": st.just([0, 1e20]),
        "transform": st.just("log"),
        "weight": st.floats(0.5, 2),
    },
)


@given(
    features=st.dictionaries(WORDS, COLUMN, min_size=2, max_size=4),
    fields=st.fixed_dictionaries(
        {"title": WORDS, "table": WORDS},
        optional={
            "id": WORDS,
            "as_of": st.dates(),
            "decimal": st.sampled_from(",."),
            "descriptors": st.just({"kind": {"levels": {"no": ["0", "n"]}, "weight": 0.5}}),
            "segments": st.just([]),
        },
    ),
    dropped=st.booleans(),
)
def test_a_written_card_reads_the_same(tmp_path_factory, features, fields, dropped):
    try:
        card = Card.model_validate({**fields, "features": features})
        card = cards.keep_features(card, ",".join([*features][:2])) if dropped else card
    except (ValueError, InputError):
        return
    path = tmp_path_factory.mktemp("card") / "card.yaml"
    path.write_text(cards.write_card(card), "utf-8")
    assert read_card(path) == card.model_copy(update={"path": path})


def test_the_bundled_cards_are_written_and_read(tmp_path):
    for name in ("mall_customers", "webshop_customers", "webshop_orders"):
        card = read_card(f"data/{name}.yaml")
        (tmp_path / "card.yaml").write_text(cards.write_card(card), "utf-8")
        again = read_card(tmp_path / "card.yaml")
        assert again == card.model_copy(update={"path": again.path})
        few = cards.keep_features(card, ",".join([*card.features][:2]))
        (tmp_path / "card.yaml").write_text(cards.write_card(few), "utf-8")
        assert read_card(tmp_path / "card.yaml").features == few.features


# Features by expression --------------------------------------------------------------------

SHOP = {
    "yearly_spend": {"label": "Yearly spend", "aliases": ["revenue"]},
    "per order": {"expression": "Yearly spend / (Orders + 0)", "unit": "€"},
}


def write_shop(write_card, features=SHOP, **fields):
    rows = "".join(f"c{i},{i * 10 + 0.5},{i % 4}\n" for i in range(12))
    return write_card("id,revenue,orders\n" + rows, features=features, **fields)


def test_a_feature_by_expression_is_computed_from_columns(write_card):
    card = read_card(write_shop(write_card))
    assert card.sources == ["yearly_spend", "Orders"]
    table = read_customers(card).table
    spend, orders = np.arange(12) * 10 + 0.5, np.arange(12) % 4
    expected = [s / o if o else np.nan for s, o in zip(spend, orders, strict=True)]
    np.testing.assert_array_equal(table["per order"], expected)
    given = {"yearly_spend": spend, "Orders": orders}
    np.testing.assert_array_equal(columns.compute_features(card, given)["per order"], expected)


def test_an_expression_outlives_the_features_in_it(write_card):
    path = write_shop(write_card, SHOP | {"other": {"expression": "orders * -2"}})
    card = read_card(path, features="per order, other")
    assert {*card.features} == {"per order", "other"}
    path.write_text(cards.write_card(card), "utf-8")
    assert read_card(path) == card
    expected = read_customers(read_card(write_shop(write_card))).table["per order"]
    np.testing.assert_array_equal(read_customers(card).table["per order"], expected)


@pytest.mark.parametrize(
    ("expression", "sources"),
    [
        ("Income (k$) / Age of car", ["Income (k$)", "Age of car"]),
        ("-Age + 2.5e1*( `a-b` - Age )", ["Age", "a-b"]),
        ("age / 12", ["Age"]),
    ],
)
def test_names_in_an_expression(expression, sources):
    features = {"Income (k$)": {}, "Age": {}, "x": {"expression": expression}}
    card = Card.model_validate({"title": "t", "table": "t.csv", "features": features})
    assert {*card.sources} == {*sources, "Income (k$)", "Age"}


@pytest.mark.parametrize(
    "expression", ["a b(c)", "a ** 2", "a // b", "1 + 2", "a.b[0]", "(a", "`a", "lambda: a", "a, b"]
)
def test_what_is_no_arithmetic_is_no_expression(expression, write_card):
    features = {"a": {}, "c": {}, "x": {"expression": expression}}
    try:
        card = read_card(write_card(GOOD, features=features))
    except InputError:
        return
    with pytest.raises(InputError, match="is missing"):
        read_customers(card)


def test_an_unknown_column_in_an_expression_is_refused_with_the_nearest(write_card):
    with pytest.raises(InputError, match="column ordres is missing; did you mean orders"):
        read(write_shop(write_card, SHOP | {"x": {"expression": "1 / ordres"}}))
