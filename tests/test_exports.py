"""Five exports as people send them: understood, or refused with the mend that then helps."""

import json
import runpy

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from segmentation import ROOT, InputError
from segmentation.customers import Card, explain_card, read_card, read_customers

EXPORTS = ROOT / "tests/exports"
MAKE = runpy.run_path(str(EXPORTS / "make_exports.py"))
GROUPS = {
    "crm": (4, ["Alter", "Umsatz 2025 (€)", "Käufe", "Ø Zufriedenheit"], {}),
    "webshop": (4, ["Total Spent", "orders Count", "Avg Discount", "Return Rate"], {}),
    "telecom": (4, ["Tenure months", "Monthly bill", "Data GB", "Call minutes"], {}),
    "hotel": (3, ["Nights", "Spend", "Booked ahead (days)"], {}),
}


def find_groups(table, card, k):
    """The groups of a table by the card's own transformations and scikit-learn's K-means."""
    values = table[[*card.features]]
    values = values.fillna(values.median())
    for name, feature in card.features.items():
        if feature.transform == "log":
            values[name] = np.log1p(values[name])
        if feature.outliers == "clip":
            low, high = values[name].quantile([0.25, 0.75])
            values[name] = values[name].clip(low - 3 * (high - low), high + 3 * (high - low))
    return KMeans(k, n_init=20, random_state=0).fit_predict(
        (values - values.mean()) / values.std(ddof=0)
    )


@pytest.mark.parametrize("name", MAKE["MAKERS"])
def test_the_exports_are_those_that_the_generator_makes(name):
    assert MAKE["make_export"](name)[0] == (EXPORTS / name).read_bytes()


def test_the_shipped_examples_are_those_that_their_generator_makes(tmp_path):
    make = runpy.run_path(str(ROOT / "data/raw/make_examples.py"))
    made = make["make_customers"](np.random.default_rng(20260630))[0]
    orders = make["make_orders"](np.random.default_rng(20240701))[0]
    for rows, name in ((made, "webshop_customers.csv"), (orders, "webshop_orders.csv")):
        make["write_table"](rows, tmp_path / name)
        assert (tmp_path / name).read_bytes() == (ROOT / "data/raw" / name).read_bytes()


def test_the_web_shop_s_groups_are_found_through_its_card():
    card = read_card("data/webshop_customers.yaml")
    customers = read_customers(card)
    truth = json.loads((ROOT / "tests/webshop_truth.json").read_text("utf-8"))
    found = find_groups(customers.table, card, 5)
    assert adjusted_rand_score(truth, found) > 0.95
    assert "values are missing" in set(customers.quality["finding"])


def test_the_orders_become_customers_in_their_groups():
    card = read_card("data/webshop_orders.yaml")
    customers = read_customers(card)
    make = runpy.run_path(str(ROOT / "data/raw/make_examples.py"))
    truth = make["make_orders"](np.random.default_rng(20240701))[1]
    found = find_groups(customers.table, card, 4)
    assert adjusted_rand_score([truth[each] for each in customers.table[card.id]], found) > 0.95
    assert customers.quality["rows"].tolist() == [12175, 2, 150, 40]


@pytest.mark.parametrize("name", GROUPS)
def test_a_drafted_card_finds_the_planted_groups(name):
    k, features, says = GROUPS[name]
    card, reasons = explain_card(EXPORTS / f"{name}.csv")
    assert set(features) <= set(card.features)
    kept = {each: card.features[each] for each in features}
    card = card.model_copy(update={"features": kept} | says)
    customers = read_customers(card)
    truth = MAKE["make_export"](f"{name}.csv")[1]
    assert customers.total == len(truth)
    found = find_groups(customers.table, card, k)
    assert adjusted_rand_score(truth, found) > 0.9
    left_out = set(reasons.loc[reasons["role"] == "left out", "column"])
    personal = [c for c in reasons["column"] if any(w in c.lower() for w in ("mail", "phone"))]
    assert set(personal) <= left_out
    assert len(customers.quality)


def test_the_bank_is_refused_step_by_step_until_its_card_says_enough():
    source = EXPORTS / "bank.csv"
    with pytest.raises(InputError, match="it may be cp1252: run again with `--encoding cp1252`"):
        explain_card(source)
    values = {
        "title": "Bank",
        "table": "bank.csv",
        "id": "N° client",
        "encoding": "cp1252",
        "features": {"Âge": {}, "Revenu mensuel (€)": {}, "Opérations par mois": {}},
    }
    card = Card.model_validate(values).model_copy(update={"path": source.with_name("card.yaml")})
    with pytest.raises(InputError, match=r"3 ids stand twice \(lines 44, 101, 165\)"):
        read_customers(card)
    without = Card.model_validate(values | {"id": "row"})
    table = read_customers(without.model_copy(update={"path": card.path})).table
    assert len(table) == 203
    assert table["Revenu mensuel (€)"].iloc[0] == 3164.29
