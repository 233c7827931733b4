"""Write the two example tables of a web shop, from a seed, byte for byte the same each time.

`webshop_customers.csv`: 2,000 customers in five planted segments, five to six standard
deviations from the nearest other once spend is on its log scale. Messy as exports are, and the card
explains all of it: ages and discounts are missing, four firms spend, four resellers order and four
staff accounts save far more than anyone else, newsletter is coded, countries are written in two
ways, three headers are not the card's names. Two outcomes stand behind: who answered a letter in
May, and the margin. `make_july` gives the table of a month later, after a campaign.

`webshop_orders.csv`: two years of orders of 900 customers in four planted groups, with refunds,
orders of 0.00 and two orders that are dated after the day of the table.

The planted segment of each customer, in row order, goes to `tests/webshop_truth.json`;
`make_orders` hands back the group of each buyer. No customer in either table exists.
"""

import csv
import io
import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np

RAW = Path(__file__).parent
AS_OF = date(2026, 6, 30)

CUSTOMERS = 2000
SEGMENTS = {  # share, then the centres: log spend, orders, days since the last, discount, age
    "regulars": (0.22, 7.25, 19, 85, 8, 46),
    "bargain hunters": (0.26, 6.20, 16, 90, 21, 37),
    "lapsed": (0.19, 5.85, 10, 195, 10, 50),
    "rare and dear": (0.13, 7.20, 7, 120, 9, 62),
    "young and new": (0.20, 5.85, 8, 85, 9, 27),
}
SPREADS = (0.32, 2.4, 24, 3.2, 6.5)
COUNTRIES = {"DE": "Germany", "AT": "Austria", "CH": "Switzerland", "NL": "Netherlands"}
COUNTRIES |= {"BE": "Belgium", "FR": "France", "IT": "Italy", "DK": "Denmark"}
MOBILE = (0.4, 0.6, 0.4, 0.2, 0.85)
NEWSLETTER = (0.7, 0.8, 0.3, 0.4, 0.5)
ANSWERED, MARGIN = (0.16, 0.24, 0.04, 0.1, 0.12), (0.34, 0.22, 0.3, 0.38, 0.31)
ORDERED, LIFTED, LIFT = 0.15, "bargain hunters", 0.22
"""Who orders in July without a letter; the only group that a letter moves, and how far."""

GROUPS = {  # buyers, then typical orders, basket in €, days since the last order and the first
    "regulars": (220, 33, 28, 15, 640),
    "big baskets": (200, 10, 210, 75, 560),
    "lapsed": (240, 7, 60, 420, 650),
    "new": (240, 4.5, 55, 30, 125),
}
REFUNDS, GIFTS = 150, 40


def make_customers(rng: np.random.Generator) -> tuple[list[list[str]], list[int]]:
    """The header and 2,000 rows of customers, and the planted segment of each."""
    shares, *_ = zip(*SEGMENTS.values(), strict=True)
    sizes = np.round(CUSTOMERS * np.array(shares)).astype(int)
    truth = rng.permutation(np.repeat(np.arange(len(SEGMENTS)), sizes))
    centres = np.array([centre for _, *centre in SEGMENTS.values()])
    spend, orders, days, discount, age = (
        centres[truth] + rng.normal(size=(CUSTOMERS, len(SPREADS))) * SPREADS
    ).T
    spend = np.exp(spend)

    resellers, staff = (rng.choice(CUSTOMERS, 4, replace=False) for _ in range(2))
    firms = rng.choice(np.flatnonzero(spend > 1400), 4, replace=False)
    spend[firms] *= rng.uniform(6, 12, 4)
    orders[resellers] = rng.integers(60, 130, 4)
    discount[staff] = rng.uniform(80, 95, 4)

    codes = rng.choice(
        list(COUNTRIES), CUSTOMERS, p=[0.42, 0.16, 0.12, 0.1, 0.06, 0.06, 0.05, 0.03]
    )
    spelt = rng.random(CUSTOMERS) < 0.15
    device = np.where(rng.random(CUSTOMERS) < np.array(MOBILE)[truth], "mobile", "desktop")
    device[rng.random(CUSTOMERS) < 0.08] = "tablet"
    later = np.random.default_rng(20260701)  # so that the columns before stay as they were
    answered = later.random(CUSTOMERS) < np.array(ANSWERED)[truth]
    margin = spend * np.clip(np.array(MARGIN)[truth] + later.normal(0, 0.05, CUSTOMERS), 0, 1)
    columns = {
        "customer_id": [f"W{n:06}" for n in sorted(rng.choice(10**6, CUSTOMERS, replace=False))],
        "country": [
            COUNTRIES[code] if full else code for code, full in zip(codes, spelt, strict=True)
        ],
        "device": device.tolist(),
        "nl_flag": (rng.random(CUSTOMERS) < np.array(NEWSLETTER)[truth]).astype(int).tolist(),
        "age": leave_out(rng, np.clip(age.round(), 18, 95).astype(int).tolist(), 0.025),
        "revenue_eur": [f"{value:.2f}" for value in spend],
        "orders_per_year": np.clip(orders.round(), 1, None).astype(int).tolist(),
        "days_since_last_order": np.clip(days.round(), 0, None).astype(int).tolist(),
        "disc_pct": leave_out(rng, [f"{value:.1f}" for value in np.clip(discount, 0, 100)], 0.015),
        "answered_may": np.where(answered, "yes", "no").tolist(),
        "margin_eur": [f"{value:.2f}" for value in margin],
    }
    return [list(columns), *zip(*columns.values(), strict=True)], truth.tolist()


def leave_out(rng: np.random.Generator, cells: list, share: float) -> list:
    """The cells with a share of them empty."""
    gone = set(rng.choice(len(cells), round(share * len(cells)), replace=False).tolist())
    return ["" if place in gone else cell for place, cell in enumerate(cells)]


def make_july(
    rng: np.random.Generator, june: list[list[str]], truth: list[int], written: set[str]
) -> list[list[str]]:
    """The table of a month later, with who ordered in July; `written` are those who got a letter.

    Three in a hundred have left, as many came; spend and orders wander; a letter moves one group.
    """
    header, *rows = june
    place = {name: header.index(name) for name in header}
    lifted, table = list(SEGMENTS).index(LIFTED), []
    for row, group in zip(rows, truth, strict=True):
        chance = ORDERED + LIFT * (group == lifted and row[0] in written)
        ordered, cells = rng.random() < chance, list(row)
        paid = float(cells[place["revenue_eur"]]) * np.exp(rng.normal(0, 0.05))
        days = 0 if ordered else int(cells[place["days_since_last_order"]]) + 4
        cells[place["revenue_eur"]] = f"{paid:.2f}"
        cells[place["days_since_last_order"]] = max(0, days + int(rng.integers(0, 28)) * ordered)
        if rng.random() < 0.03:
            cells[0], ordered = f"X{cells[0][1:]}", rng.random() < ORDERED
        table.append([*cells, "yes" if ordered else "no"])
    return [[*header, "ordered_july"], *table]


def make_orders(rng: np.random.Generator) -> tuple[list[list[str]], dict[str, int]]:
    """The header and about 12,000 rows of orders, and the planted group of each buyer."""
    truth = rng.permutation(np.repeat(np.arange(len(GROUPS)), [n for n, *_ in GROUPS.values()]))
    buyers = [f"C{number:04}" for number in range(1, len(truth) + 1)]
    orders = [
        order
        for buyer, group in zip(buyers, truth, strict=True)
        for order in draw_orders(rng, buyer, *list(GROUPS.values())[group][1:])
    ]
    orders.sort()
    for place in rng.choice(len(orders), GIFTS, replace=False):
        orders[place] = (*orders[place][:2], 0.0)
    orders += [(AS_OF + timedelta(days=ahead), buyers[57 * ahead], 49.9) for ahead in (2, 15)]
    rows = [(day, f"{100001 + n}", buyer, paid) for n, (day, buyer, paid) in enumerate(orders)]
    paid_for = [n for n, (*_, paid) in enumerate(orders[:-2]) if paid > 0]
    for place in rng.choice(paid_for, REFUNDS, replace=False):
        day, order, buyer, paid = rows[place]
        back = min(day + timedelta(days=int(rng.integers(1, 15))), AS_OF)
        rows.append((back, order, buyer, -paid * rng.choice([1, 1, 0.5])))
    rows.sort()
    table = [[order, buyer, f"{day}", f"{paid:.2f}"] for day, order, buyer, paid in rows]
    header = ["order_id", "customer_id", "ordered_on", "amount"]
    return [header, *table], dict(zip(buyers, truth.tolist(), strict=True))


def draw_orders(
    rng: np.random.Generator, buyer: str, count: float, basket: float, last: float, first: float
) -> list[tuple[date, str, float]]:
    """The orders of one buyer: the last, the first, and the others anywhere between."""
    number = max(1, round(rng.normal(count, 0.18 * count)))
    last = max(0, round(rng.normal(last, 4 + 0.12 * last)))
    first = min(729, max(last, round(rng.normal(first, 30))))
    days = [last, first, *rng.integers(last, first + 1, max(0, number - 2))][:number]
    usual = basket * np.exp(rng.normal(0, 0.2))
    paid = (usual * np.exp(rng.normal(0, 0.3, number))).round(2)
    return [
        (AS_OF - timedelta(days=int(d)), buyer, float(p)) for d, p in zip(days, paid, strict=True)
    ]


def write_table(rows: list[list[str]], path: Path) -> None:
    """Write rows as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    path.write_bytes(text.getvalue().encode("utf-8"))


if __name__ == "__main__":
    customers, segments = make_customers(np.random.default_rng(20260630))
    write_table(customers, RAW / "webshop_customers.csv")
    write_table(make_orders(np.random.default_rng(20240701))[0], RAW / "webshop_orders.csv")
    truth = json.dumps(segments, separators=(",", ":")) + "\n"
    (RAW.parents[1] / "tests" / "webshop_truth.json").write_bytes(truth.encode())
