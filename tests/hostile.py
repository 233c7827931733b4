"""A customer table that means harm: every text in it and in its card wants to be more than text."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from segmentation.customers.card import clean_text

SCRIPT = "</script><script>alert('pwned')</script>"
COLUMNS = {
    "=cmd|' /C calc'!A0": {"label": f"Spend {SCRIPT} <img src=x onerror=alert(1)>", "unit": "$"},
    "<b onmouseover=alert(2)>": {"label": "[Age](javascript:alert(3)) $x_1$ `a|b`", "unit": "%{y}"},
    "@SUM(1)": {"label": "عمر العميل 💸 {mean} \\frac{1}{2} ‮ abc " + "long " * 6, "unit": "</td>"},
}
LEVELS = [SCRIPT, '=HYPERLINK("https://evil.example")', "![x](https://evil.example/p.png)", "-2+3"]
PARAMETERS = {"k": 3, "k_max": 3, "resamples": 20}
"""What the series is asked for with this table."""


def write_hostile(folder: Path) -> Path:
    """Write the table of 120 customers and its card; the card's path."""
    rng = np.random.default_rng(5)
    values = np.vstack([rng.normal(centre, 1, (40, 3)) for centre in (0, 6, 12)]).round(2)
    frame = pd.DataFrame(values, columns=list(COLUMNS))
    frame.insert(0, "+id", [f"=1+{i}<script>id{i}</script>" for i in range(120)])
    frame["<i>kind"] = rng.choice(LEVELS, 120)
    frame["e-mail"] = [f"person{i}@mail.example" for i in range(120)]
    frame.to_csv(folder / "hostile.csv", index=False)
    card = {
        "title": f"{SCRIPT} & [x](javascript:alert(4)) $a_b$ {{{{ 7 * 7 }}}}",
        "table": "hostile.csv",
        "id": "+id",
        "owner": f"{SCRIPT} <a href=https://evil.example>owner</a>",
        "features": COLUMNS,
        "descriptors": {"<i>kind": {"label": f"Kind {SCRIPT}"}},
        "segments": [
            {
                "name": f"=EVIL() {SCRIPT}",
                "when": {clean_text(COLUMNS["@SUM(1)"]["label"]): "high"},
                "action": f"Click [here](https://evil.example) {SCRIPT}",
            }
        ],
    }
    path = folder / "hostile.yaml"
    path.write_text(yaml.safe_dump(card, allow_unicode=True), encoding="utf-8")
    return path
