"""Write five exports as other systems write them, from a seed, byte for byte the same each time.

| file        | rows    | written as             | what a reader stumbles over                |
|-------------|---------|------------------------|--------------------------------------------|
| crm.csv     | 240     | UTF-8, BOM, `;`, CRLF  | decimal commas, 31.01.2024, ids 000123;    |
|             |         |                        | notes with `;`, quotes and line breaks;    |
|             |         |                        | n/a and -; a trailing empty column         |
| webshop.csv | 260     | UTF-8, `,`, LF         | $1,234.50, 12.5%, NA for Namibia, one      |
|             |         |                        | constant column, ids from 100001, e-mails  |
| bank.csv    | 200 + 3 | cp1252, tab, LF        | 12 345.67, 4'250.00, 22-digit accounts, a  |
|             |         |                        | heavy tail; three rows repeat one customer |
| telecom.csv | 280 + 1 | UTF-16, BOM, `;`, CRLF | an empty column, plan 1/2/3, gender 1/2, a |
|             |         |                        | line of totals at the end                  |
| hotel.csv   | 180     | UTF-8, `,`, LF         | two titles and a blank line first, mixed   |
|             |         |                        | dates, EUR 1.234,50, a name with one quote |

Every table has three or four groups of customers, planted six or more standard deviations apart.
No person, address or account in them exists.
"""

import csv
import io
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np

Rows = list[list[str]]
Made = tuple[bytes, list[int]]
"""The bytes of a file, and the planted group of each of its customers in row order."""

PRINTED = date(2026, 10, 1)
FIRST = ("Jürgen", "Anna", "Zoë", "Björn", "Ayşe", "Käthe", "Paul", "Mária", "Łukasz", "Lena")
LAST = ("Müller", "Groß", "Öztürk", "Schäfer", "Novák", "Lange", "Weiß", "Jäger", "Díaz", "Krüger")
PLAIN = str.maketrans("üëöäöÖşáŁóßíé", "ueoaoOsaLosie")


def plant(rng: np.random.Generator, sizes: list[int], centres: list, spreads: list) -> tuple:
    """Values (n, p) around the centres (k, p) in shuffled order, and the group of each row (n)."""
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    noise = rng.normal(size=(len(groups), len(spreads)))
    return np.array(centres)[groups] + noise * np.array(spreads), groups.tolist()


def write_rows(rows: Rows, delimiter: str, end: str = "\n") -> str:
    """The rows as CSV text, quoted only where a cell needs it."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    return text.getvalue()


def draw_names(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """First and last names, and the local part of an e-mail address."""
    firsts, lasts = rng.choice(FIRST, count), rng.choice(LAST, count)
    names = [f"{first} {last}" for first, last in zip(firsts, lasts, strict=True)]
    return [(n, f"{n.replace(' ', '.').translate(PLAIN).lower()}{i}") for i, n in enumerate(names)]


def draw_days(rng: np.random.Generator, count: int, furthest: int) -> list[date]:
    """Days up to `furthest` days before the print."""
    return [PRINTED - timedelta(days=int(d)) for d in rng.integers(1, furthest, count)]


def blank(rng: np.random.Generator, cells: list[str], count: int, *marks: str) -> list[str]:
    """The cells with `count` of them replaced by the marks of a missing value, in turn."""
    cells = list(cells)
    for turn, place in enumerate(rng.choice(len(cells), count, replace=False)):
        cells[place] = marks[turn % len(marks)]
    return cells


def join_columns(columns: dict[str, list[str]]) -> Rows:
    """The header and the rows of some columns."""
    return [list(columns), *map(list, zip(*columns.values(), strict=True))]


def format_numbers(values: np.ndarray, pattern: str, low: float = 0, high: float = 1e9) -> list:
    """Values (n) as text, kept between `low` and `high`."""
    return [format(value, pattern) for value in np.clip(values, low, high).tolist()]


NOTES = (
    'Sagte am Telefon: "Bitte erst im Mai"; Rückruf vereinbart',
    "Umzug gemeldet;\nneue Anschrift folgt",
    'Reklamation; erledigt\n\nGutschein "DANKE10" verschickt',
    "Möchte keine Werbung",
    "=2+3 laut Altsystem; bitte prüfen",
    "Wünscht <b>Rechnung</b> & Lieferschein",
)


def make_crm(rng: np.random.Generator) -> Made:
    """A German CRM: four groups by age, turnover, orders and satisfaction."""
    sizes, count = [70, 65, 60, 45], 240
    centres = [[31, 420, 5, 4.3], [58, 1450, 9, 4.2], [44, 880, 20, 2.9], [36, 2150, 17, 4.1]]
    (age, turnover, orders, mark), groups = split(plant(rng, sizes, centres, [5, 150, 2.2, 0.3]))
    names = draw_names(rng, count)
    numbers = np.sort(rng.choice(np.arange(101, 9900), count, replace=False))
    lands = ["Thüringen", "Baden-Württemberg", "Bayern", "Köln/Düsseldorf", "Sachsen"]
    notes = np.where(rng.random(count) < 0.3, rng.choice(NOTES, count), "")
    comma = [text.replace(".", ",") for text in format_numbers(turnover, ".2f", 20)]
    marks = [text.replace(".", ",") for text in format_numbers(mark, ".1f", 1, 5)]
    columns = {
        "Kundennummer": [f"{number:06}" for number in numbers],
        "Name": [name for name, _ in names],
        "E-Mail": [f"{mail}@example.org" for _, mail in names],
        "Telefon": blank(rng, [f"+49 30 23125 {n}" for n in range(100, 100 + count)], 25, "-", ""),
        "Kunde seit": [f"{day:%d.%m.%Y}" for day in draw_days(rng, count, 2500)],
        "Alter": blank(rng, format_numbers(age, ".0f", 18), 7, "n/a"),
        "Umsatz 2025 (€)": blank(rng, comma, 4, "n/a", "-"),
        "Käufe": format_numbers(orders, ".0f", 1),
        "Ø Zufriedenheit": blank(rng, marks, 9, "-"),
        "Newsletter": rng.choice(["ja", "nein"], count, p=[0.6, 0.4]).tolist(),
        "Region": blank(rng, rng.choice(lands, count).tolist(), 6, "-", "n/a"),
        "Notizen": notes.tolist(),
        "": [""] * count,
    }
    return write_rows(join_columns(columns), ";", "\r\n").encode("utf-8-sig"), groups


def make_webshop(rng: np.random.Generator) -> Made:
    """A web shop: four groups by spend (log), orders, discount and returns."""
    sizes, count = [80, 70, 60, 50], 260
    centres = [[5.2, 4, 6, 5], [6.9, 16, 8, 12], [6.1, 13, 24, 6], [7.6, 5, 9, 24]]
    (spend, orders, cut, back), groups = split(plant(rng, sizes, centres, [0.3, 1.8, 3.2, 3]))
    names = draw_names(rng, count)
    codes = rng.choice(["US", "DE", "NA", "GB", "ZA"], count, p=[0.4, 0.2, 0.1, 0.2, 0.1])
    seconds = rng.integers(0, 86400, count).tolist()
    stamps = [
        datetime(day.year, day.month, day.day) + timedelta(seconds=second)
        for day, second in zip(draw_days(rng, count, 300), seconds, strict=True)
    ]
    columns = {
        "Customer ID": [str(100001 + place) for place in range(count)],
        "Email Address": [f"{mail}@example.com" for _, mail in names],
        "Last order at": [f"{stamp.isoformat()}Z" for stamp in stamps],
        "COUNTRY Code": codes.tolist(),
        "Currency": ["USD"] * count,
        "Total Spent": [f"${text}" for text in format_numbers(np.exp(spend), ",.2f")],
        "orders Count": format_numbers(orders, ".0f", 1),
        "Avg Discount": blank(rng, [f"{t}%" for t in format_numbers(cut, ".1f")], 6, ""),
        "Return Rate": [f"{text}%" for text in format_numbers(back, ".1f")],
        "accepts Marketing": rng.choice(["TRUE", "FALSE"], count).tolist(),
        "Device": rng.choice(["Mobile", "desktop", "Tablet"], count, p=[0.6, 0.3, 0.1]).tolist(),
    }
    return write_rows(join_columns(columns), ",").encode("utf-8"), groups


def make_bank(rng: np.random.Generator) -> Made:
    """A bank: three groups by age, income, operations and years; the balance has a heavy tail."""
    sizes, count = [80, 70, 50], 200
    centres = [[29, 2900, 42, 4], [47, 6400, 30, 13], [68, 4100, 12, 27]]
    (age, income, moves, years), groups = split(plant(rng, sizes, centres, [5, 650, 5, 3]))
    balance = np.array([1500, 9000, 24000])[groups] + 3000 * rng.standard_t(1.3, count)
    towns = ["Genève", "Neuchâtel", "Orléans", "Sète", "Besançon"]
    columns = {
        "N° client": [f"CL{n}" for n in rng.choice(np.arange(20000, 90000), count, replace=False)],
        "N° de compte": ["".join(map(str, digits)) for digits in rng.integers(0, 10, (count, 22))],
        "Agence": rng.choice(towns, count).tolist(),
        "Âge": format_numbers(age, ".0f", 18),
        "Revenu mensuel (€)": [
            text.replace(",", "'") for text in format_numbers(income, ",.2f", 600)
        ],
        "Solde (€)": [t.replace(",", " ") for t in format_numbers(balance, ",.2f", -1e7)],
        "Opérations par mois": format_numbers(moves, ".0f", 0),
        "Ancienneté (années)": format_numbers(years, ".0f", 0),
        "Crédit": rng.choice(["0", "1"], count, p=[0.7, 0.3]).tolist(),
    }
    rows = join_columns(columns)
    again = [41, 97, 160]  # the rows behind which the row of one customer stands once more
    for place in reversed(again):
        rows.insert(place + 2, list(rows[31]))
        groups.insert(place + 1, groups[30])
    return write_rows(rows, "\t").encode("cp1252"), groups


def make_telecom(rng: np.random.Generator) -> Made:
    """A phone company: four groups by tenure, bill, data and minutes; its last line is a sum."""
    sizes, count = [90, 80, 60, 50], 280
    centres = [[14, 18, 6, 90], [62, 32, 9, 340], [30, 54, 42, 150], [80, 60, 30, 420]]
    (tenure, bill, data, calls), groups = split(plant(rng, sizes, centres, [8, 5, 5, 42]))
    plans = np.where(rng.random(count) < 0.7, np.array([1, 2, 3, 3])[groups], 2)
    numbers = rng.choice(np.arange(7000000, 8000000), count, replace=False)
    columns = {
        "Subscriber": [str(number) for number in numbers],
        "Gender": [str(code) for code in rng.integers(1, 3, count)],
        "Age": format_numbers(rng.normal(45, 12, count), ".0f", 18, 90),
        "Plan": [str(code) for code in plans],
        "Region": rng.choice(["North", "East", "South", "West"], count).tolist(),
        "Channel": rng.choice(["Shop", "Online", "Partner"], count).tolist(),
        "Renewed on": [day.isoformat() for day in draw_days(rng, count, 720)],
        "Promo code": [""] * count,
        "Tenure months": format_numbers(tenure, ".0f", 1),
        "Monthly bill": format_numbers(bill, ".2f", 5),
        "Data GB": format_numbers(data, ".1f", 0.1),
        "Call minutes": format_numbers(calls, ".0f", 0),
        "Support calls": [str(number) for number in rng.poisson(1.4, count)],
        "Device": rng.choice(["Phone", "Phone and tablet", "Router"], count).tolist(),
    }
    sums = {name: sum(map(float, columns[name])) for name in ("Monthly bill", "Data GB")}
    totals = {"Subscriber": "Total", **{name: f"{value:.2f}" for name, value in sums.items()}}
    rows = [*join_columns(columns), [totals.get(name, "") for name in columns]]
    text = write_rows(rows, ";", "\r\n")
    return b"\xff\xfe" + text.encode("utf-16-le"), groups


def make_hotel(rng: np.random.Generator) -> Made:
    """A hotel: three groups by nights, spend and days booked ahead."""
    sizes, count = [70, 60, 50], 180
    centres = [[5, 700, 60], [14, 2100, 24], [27, 3600, 90]]
    (nights, spend, ahead), groups = split(plant(rng, sizes, centres, [2.2, 260, 11]))
    names = [name for name, _ in draw_names(rng, count)]
    names[77] = '"Lucky, Dana'  # stands in the file as """Lucky, Dana"
    styles = rng.choice(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y"], count, p=[0.6, 0.25, 0.15])
    days = draw_days(rng, count, 365)
    swap = str.maketrans(",.", ".,")
    lands = ["Germany", "Austria", "Côte d'Ivoire", "Korea, Republic of", "Namibia"]
    columns = {
        "Guest no": [f"H-{n:05}" for n in rng.choice(np.arange(99999), count, replace=False)],
        "Guest name": names,
        "Nationality": rng.choice(lands, count, p=[0.4, 0.3, 0.1, 0.1, 0.1]).tolist(),
        "Loyalty tier": rng.choice(["Basic", "Silver", "Gold"], count, p=[0.6, 0.3, 0.1]).tolist(),
        "Last stay": [f"{day:{style}}" for day, style in zip(days, styles, strict=True)],
        "Nights": format_numbers(nights, ".0f", 1),
        "Spend": [f"EUR {t.translate(swap)}" for t in format_numbers(spend, ",.2f", 60)],
        "Booked ahead (days)": blank(rng, format_numbers(ahead, ".0f", 0), 4, ""),
        "Rating": format_numbers(rng.normal(8, 0.8, count), ".1f", 1, 10),
    }
    title = "Guest report; printed 2026-10-01\nAll houses, all currencies in EUR\n\n"
    return (title + write_rows(join_columns(columns), ",")).encode("utf-8"), groups


def split(planted: tuple) -> tuple:
    """The columns of planted values, and the groups."""
    return planted[0].T, planted[1]


MAKERS: dict[str, Callable[[np.random.Generator], Made]] = {
    "crm.csv": make_crm,
    "webshop.csv": make_webshop,
    "bank.csv": make_bank,
    "telecom.csv": make_telecom,
    "hotel.csv": make_hotel,
}


def make_export(name: str) -> Made:
    """One export by its file name: its bytes and the planted groups."""
    return MAKERS[name](np.random.default_rng([2026, list(MAKERS).index(name)]))


if __name__ == "__main__":
    for name in MAKERS:
        (Path(__file__).parent / name).write_bytes(make_export(name)[0])
