"""Tables unlike the bundled one, made from a seed, each with a card written for it."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

HOTEL = """
title: Hotel guests
table: hotel.csv
id: guest
features:
  nights: {label: Nights per year, unit: nights, range: [0, 366]}
  spend: {label: Spend per stay, unit: €, range: [0, 100000]}
"""

TELECOM = """
title: Mobile subscribers, all regions
table: telecom.csv
id: msisdn
as_of: 2026-10-31
owner: Customer insight, extension 4711
features:
  bill: {label: Monthly bill, unit: €, kind: spending}
  data: {label: Data volume, unit: GB}
  calls: {label: Call minutes, unit: min}
  texts: {label: Text messages}
  topup: {label: Days since last top-up, unit: days}
  tenure: {label: Tenure, unit: months}
  support: {label: Support calls}
  age: {label: Age, unit: years}
  income: {label: Household income, unit: k€}
descriptors:
  plan: {label: Plan}
  region: {label: Region}
  channel: {label: Channel}
"""

LONG = """
title: Members of the regional consumers' co-operative society who shopped in the last quarter
table: long.csv
id: member number
as_of: 2026-09-30
owner: The board's working group on members and their households, second floor
features:
  a: {label: Average value of a weekly basket of fresh and packaged goods, unit: euros a week}
  b: {label: Share of own-brand products among all products that were bought, unit: '%'}
  c: {label: Number of different departments visited in a typical month, unit: departments}
  d: {label: Distance from the member's home to the most visited branch, unit: kilometres}
  e: {label: Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunter, unit: ''}
descriptors:
  h: {label: Kind of household as the member described it when joining us}
segments:
  - name: Big baskets from afar
    when:
      Average value of a weekly basket of fresh and packaged goods: high
      Distance from the member's home to the most visited branch: high
    action: Offer them delivery to the village hall on market days.
  - name: Nobody is like this
    when: {Share of own-brand products among all products that were bought: very low}
"""

NOISE = """
title: Museum visitors
table: noise.csv
id: ticket
features:
  visits: {label: Visits, unit: a year}
  minutes: {label: Time inside, unit: minutes}
  shop: {label: Spent in the shop, unit: €}
  age: {label: Age, unit: years}
descriptors:
  language: {label: Language}
"""

TABLES = {"hotel": HOTEL, "telecom": TELECOM, "long": LONG, "noise": NOISE}


def write_tables(folder: Path) -> dict[str, Path]:
    """Write the four tables and cards; the cards' paths by name."""
    makers = {"hotel": make_hotel, "telecom": make_telecom, "long": make_long, "noise": make_noise}
    for name, make in makers.items():
        make(np.random.default_rng(7)).to_csv(folder / f"{name}.csv", index=False)
        (folder / f"{name}.yaml").write_text(TABLES[name], encoding="utf-8")
    return {name: folder / f"{name}.yaml" for name in makers}


def plant(rng: np.random.Generator, rows: int, centres: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows (n, p) of unit spread around centres (k, p), and the centre of each."""
    members = np.sort(rng.integers(len(centres), size=rows))
    return centres[members] + rng.normal(size=(rows, centres.shape[1])), members


def read_features(card: str) -> list[str]:
    return list(yaml.safe_load(card)["features"])


def make_hotel(rng: np.random.Generator) -> pd.DataFrame:
    values, _ = plant(rng, 120, np.array([[3.0, 3], [9, 10]]))
    frame = pd.DataFrame({"guest": [f"G{i:04}" for i in range(120)]})
    return frame.assign(nights=values[:, 0].clip(0).round(), spend=(120 * values[:, 1] + 900))


def make_telecom(rng: np.random.Generator) -> pd.DataFrame:
    names = read_features(TELECOM)
    centres = rng.choice([-2.0, 0, 0, 2], size=(9, 9))
    values, members = plant(rng, 360, centres)
    scales = np.array([12, 8, 90, 40, 15, 14, 1.5, 8, 12])
    means = np.array([38, 22, 260, 110, 50, 60, 5, 45, 52])
    frame = pd.DataFrame((means + scales * values).round(2), columns=names)
    frame.insert(0, "msisdn", [f"T{i:07}" for i in rng.permutation(360)])
    plans = np.array(["Basic", "Family", "Business", "Youth", "Unlimited"])
    frame["plan"] = np.where(rng.random(360) < 0.6, plans[members % 5], rng.choice(plans, 360))
    frame["region"] = rng.choice([f"Region {chr(65 + i)}" for i in range(12)], 360)
    frame["channel"] = rng.choice(["Shop", "Online", "Door to door"], 360, p=[0.5, 0.495, 0.005])
    return frame


def make_long(rng: np.random.Generator) -> pd.DataFrame:
    centres = np.array([[3.0, 0, 0, 3, 0], [-3, 3, 0, 0, 1], [0, -1, 3, -3, 0], [0, 0, -3, 0, 4]])
    values, members = plant(rng, 160, centres)
    frame = pd.DataFrame(
        values * [18, 7, 2, 4, 1000] + [95, 35, 8, 14, 5000], columns=list("abcde")
    )
    frame.insert(0, "member number", range(1, 161))
    kinds = np.array(["Two adults with children under eighteen years of age", "One adult", "Other"])
    frame["h"] = np.where(members == 1, kinds[0], rng.choice(kinds, 160))
    frame.loc[rng.choice(160, 12, replace=False), "h"] = None
    return frame.round(1)


def make_noise(rng: np.random.Generator) -> pd.DataFrame:
    spread = 0.5 + 0.5 * np.eye(4)
    values = rng.multivariate_normal(
        [6, 90, 25, 48], spread * np.outer(*[[1.5, 20, 8, 12]] * 2), 150
    )
    frame = pd.DataFrame(values.round(1), columns=read_features(NOISE))
    frame.insert(0, "ticket", range(150))
    return frame.assign(language=rng.choice(["English", "French", "Other"], 150, p=[0.6, 0.3, 0.1]))
