"""Reads every number of `summary.txt` and `report.html` again and looks for it in the tables.

Sentences are taken apart by their templates, so that each figure is compared with its own cell;
figures of the report outside sentences name their cell themselves.
"""

import json
import re
from datetime import date
from functools import cache
from string import Formatter
from urllib.parse import parse_qsl, unquote

import pandas as pd
from bs4 import BeautifulSoup, NavigableString

from segmentation import words
from segmentation.customers.card import load_card
from segmentation.reports.drawings import choose_map
from segmentation.segments import campaigns

NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?%?")


ROUNDED = ("total", "worth", "detectable", "band_from")
"""Figures that are told to two digits."""


def agrees(text, value, name=""):
    """Whether a text is the value, rounded to the decimals that it shows; texts are equal."""
    if isinstance(value, str):
        return text == value
    plain = re.sub("[€$£¥₹]", "", text.replace("−", "-"))
    found = re.fullmatch(r"(([-+]?)[\d,]+(?:\.(\d+))?)(%?)(?: .*)?", plain)
    if not found:
        return False
    points = text.endswith(" points") and name in ("difference", "detectable")
    if points or (name in ("low", "high") and text[0] in "+−"):  # of a rate
        value *= 100
    elif name in ROUNDED:
        value = float(f"{value:.2g}")
    number, sign, decimals, percent = found[1], found[2], len(found[3] or ""), found[4]
    percent = percent and name not in words.MEASURES  # whose own unit it is
    plus = "+" if sign == "+" else ""
    return number == f"{value * (100 if percent else 1):{plus}z,.{decimals}f}"


@cache
def compile_template(template):
    """A template as a pattern with a group a placeholder."""
    parts = Formatter().parse(template)
    return re.compile("".join(re.escape(t) + (f"(?P<{n}>.+?)" if n else "") for t, n, *_ in parts))


def read_table(path):
    """A CSV without the apostrophes that keep spreadsheets from running its texts."""
    armed = re.compile(r"^'(?='*[=+\-@\t\r])")
    table = pd.read_csv(path).map(lambda v: armed.sub("", v) if isinstance(v, str) else v)
    ids = [name for name in ("previous_cluster", "cluster") if name in table]
    return table.astype(dict.fromkeys(ids, "Int64"))


class Run:
    """A run's files as the checks look things up in them."""

    def __init__(self, folder):
        self.folder = folder
        self.manifest = self.read("run.json")
        self.segments = self.read("segments.json")
        self.selection = self.read("tables/selection.json")
        self.changes = self.read("tables/changes.json")
        self.tables = {path.name: read_table(path) for path in (folder / "tables").glob("*.csv")}
        self.profile = (
            self.tables["segment_profiles.csv"].astype({"unit": object}).fillna({"unit": ""})
        )
        self.find_rows = cache(self._find_rows)

    def read(self, name):
        return json.loads((self.folder / name).read_text("utf-8"))

    def rows(self, kind, segment):
        """The rows that a sentence of a kind may be about."""
        return self.find_rows(kind, segment["id"])

    def _find_rows(self, kind, number):
        (segment,) = [each for each in self.segments if each["id"] == number]
        own = self.profile[self.profile["segment"] == segment["name"]]
        is_level = own["level"].notna()
        if kind in ("feature", "level", "mix"):
            own = own[~is_level if kind == "feature" else is_level]
            return (own.assign(segments=len(self.segments))).to_dict("records")
        if kind == "rule":
            rules = self.tables["segment_rules.csv"]
            return rules[rules["cluster"] == segment["id"]].to_dict("records")
        facts = {**segment, **segment["stability"], "segment": segment["name"]}
        given = segment.get("given", {})
        failing = len(given.get("fails_in", ""))
        return [facts | given | {"segments": len(self.segments), "failing": failing}]


def check_sentence(sentence, kinds, rows_of):
    """Whether a sentence is what some template says of some row for which it is true."""
    for kind in kinds:
        for entry in words.read_words()["sentences"][kind]:
            found = compile_template(entry["say"]).fullmatch(sentence)
            for row in rows_of(kind) if found else []:
                known = all(name in row for name in found.groupdict())
                figures = found.groupdict().items()
                if known and all(agrees(text, row[n], n) for n, text in figures):
                    return is_true(entry["when"], row)
    return False


def is_true(when, row):
    """Whether a predicate holds, read anew: a range of a figure, both ends included."""
    return all(name in row and low <= row[name] <= high for name, (low, high) in when.items())


OF_SEGMENT = ("size", "name", "feature", "level", "mix", "rule", "stability")


def check_segment(lines, run, segment):
    *sentences, role, action = lines
    told = [f"Role: {', '.join(segment['roles'])}.", *segment["actions"]]
    wrong = [] if [role, action] == told else [f"{role} {action}"]
    rows = lambda kind: run.rows(kind, segment)  # noqa: E731
    return wrong + [s for s in sentences if not check_sentence(s, OF_SEGMENT, rows)]


def check_certainty(text, run):
    """The verdict's sentence against its row, and what is suggested where there is none."""
    table = run.tables["k_selection.csv"]
    row = table[table["k"] == run.manifest["k"]].to_dict("records")[0]
    template = words.find_verdict(run.selection)["say"]
    found = re.match(compile_template(template).pattern, text)
    told = found.groupdict().items() if found else [("", "")]
    if not found or not all(agrees(t, row[name]) for name, t in told if name != "skewed"):
        return [text]
    cuts = table.dropna(subset="ari_mean").to_dict("records")
    known = ("", "No structure was found in this table.", "No cut was tried.")
    close = words.say("close", {})
    rest = re.split(r"(?<=\.) (?=[A-Z])", text[found.end() :].strip())
    wrong = [text] if (close in rest) != run.selection["close"] else []
    for sentence in rest:
        skew = compile_template(words.read_words()["sentences"]["skew"][0]["say"])
        good = sentence in (*known, close) or skew.fullmatch(sentence)
        if not good and not check_sentence(sentence, ["cut", "small group"], lambda _: cuts):
            wrong.append(sentence)
    return wrong


def check_choice(text, run):
    """ "4 segments, by the … rule. <certainty> <what the rules say>"."""
    k, rules = run.manifest["k"], run.manifest["rules"]
    by = f"by the {run.manifest['rule']} rule"
    by = by if rules[run.manifest["rule"]] == k else "as in the last run"
    by = "as asked" if run.manifest["asked"] else by
    head = f"{k} segment{'' if k == 1 else 's'}, {by}. "
    same, samples = run.selection["again"]
    again = " " + words.say("again", {"same": same, "samples": samples})
    if not text.endswith(again):
        return [text]
    text = text.removesuffix(again)
    told = re.search(r" (The rules disagree: .*|All \d+ rules say \d+\.)$", text)
    if not text.startswith(head) or not told:
        return [text]
    wrong = check_certainty(text[len(head) : told.start()], run)
    said = dict.fromkeys(rules)
    for names, answer in re.findall(r"([a-z, -]+?) says? (\d+)", told[1].partition(": ")[2]):
        said |= dict.fromkeys(re.split(r", | and ", names.removeprefix("none")), int(answer))
    said |= {n: int(a) for n, a in re.findall(r"([a-z-]+) (\d+)", told[1].partition("; ")[2])}
    if told[1].startswith("All"):
        said = dict.fromkeys(rules, int(told[1].split()[-1][:-1]))
        wrong += [told[1]] if f"All {len(rules)} rules" not in told[1] else []
    if "none says" in told[1] and f"none says {k};" not in told[1]:
        wrong.append(told[1])
    return wrong + [told[1]] * any(said[rule] != answer for rule, answer in rules.items())


def check_table(text, run):
    """The statistics of the summary, line by line."""
    _, _, *lines = text.splitlines()
    features = run.profile[run.profile["level"].isna()]
    wrong = []
    for line, name in zip(lines, [*features["segment"].unique(), "Everyone"], strict=True):
        cells = re.split(r"\s{2,}", line.strip().removeprefix(name).strip())
        own = features[features["segment"] == name]
        rows = (own if len(own) else features.drop_duplicates("variable")).to_dict("records")
        size, share = rows[0]["size"], rows[0]["share"]
        if not len(own):
            size, share = features.drop_duplicates("cluster")["size"].sum(), 1.0
        good = line.startswith(name) and agrees(cells[0], size) and agrees(cells[1], share)
        for cell, row in zip(cells[2:], rows, strict=True):
            typical, spread = ("median", ("q25", "q75")) if row["logged"] else ("mean", ("sd",))
            named = [typical, *spread] if len(own) else [f"overall_{typical}"]
            values, shown = [row[name] for name in named], re.split(r" ± | \(|…|\)$", cell)
            shown = [part for part in shown if part]
            good &= len(shown) == len(values) and all(map(agrees, shown, values))
        wrong += [] if good else [line]
    return wrong


def check_limits(text, run):
    sentence, _, rest = text.partition(" One table at one time")
    features = run.profile[run.profile["level"].isna()]
    rows = [
        row | {"segments": len(run.segments), "variable": words.lower_first(row["variable"])}
        for row in features[features["size"] == features["size"].min()].to_dict("records")
    ]
    good = rest == " shows who is alike, not why, nor who will move."
    return [] if good and check_sentence(sentence, ["limits"], lambda _: rows) else [text]


def check_summary(text, run):
    """What in `summary.txt` does not agree with the tables."""
    title, choice, table, *told, limits = text.rstrip("\n").split("\n\n")
    wrong = [title] * (title != run.manifest["title"]) + check_choice(choice, run)
    wrong += check_table(table, run) + check_limits(limits, run)
    for block, segment in zip(told, run.segments, strict=True):
        wrong += check_segment(block.splitlines(), run, segment)
    return wrong


# The report --------------------------------------------------------------------------------


def look_up(place, run):
    """The value of a cell by the place that the report names."""
    name, _, rest = place.partition("?")
    where, column = dict(parse_qsl(rest.partition("#")[0])), unquote(rest.partition("#")[2])
    if name == "run.json/quality":
        return run.manifest["quality"][int(where["number"])][column]
    if name.endswith(".json"):
        by_id = {str(segment["id"]): segment for segment in run.segments}
        source = run.manifest if name == "run.json" else by_id[where["id"]]
        for step in re.split(r"\.", column):
            source = source[step]
        return source
    rows = run.tables[name]
    for key, value in where.items():
        rows = rows[rows[key].astype(str) == value]
    assert len(rows) == 1, place
    return rows[column].iloc[0]


@cache
def list_texts(run):
    """Texts that are data, not figures: names, labels, units, dates, places."""
    profile, manifest = run.profile, run.manifest
    texts = {
        *profile["segment"],
        *profile["variable"],
        *profile["unit"],
        *profile["level"].dropna(),
    }
    texts |= {words.lower_first(label) for label in profile["variable"]}
    texts |= {words.write_title(row["variable"], row["unit"]) for _, row in profile.iterrows()}
    texts |= {note[key] for note in manifest["quality"] for key in ("column", "finding", "done")}
    texts |= {manifest["title"], manifest["run_id"], manifest["owner"], *manifest["warnings"]}
    texts |= {manifest["input"]["path"], manifest["input"]["sha256"], "SHA-256"}
    texts |= {segment.get("title", segment["name"]) for segment in run.segments}
    if "cuts.csv" in run.tables:
        texts |= {*run.tables["alternatives.csv"]["choice"]}
        texts |= {f"{k} segments" for k in run.tables["cuts.csv"]["k"]}
    texts |= {run.changes["previous"], *run.tables["changes.csv"]["previous_segment"].dropna()}
    started = manifest["started"][:10]
    days = [d for d in (run.changes.get("previous_day"), manifest["as_of"], started) if d]
    dates = [f"{date.fromisoformat(day).day} {date.fromisoformat(day):%B %Y}" for day in days]
    return texts | {
        *dates,
        f"Customer segments, report of {dates[-1]}",
        f"compared with {dates[0]}",
    }


def check_told(text, run, cluster=None):
    """A sentence of the report: about the map, a segment's rule, the verdict or the limits."""
    rules = [row for s in run.segments for row in run.rows("rule", s)]
    again = dict(zip(("same", "samples"), run.selection["again"], strict=True))
    good = (
        not NUMBER.search(text)
        or check_sentence(text, ["rule"], lambda _: rules)
        or check_sentence(text, ["again"], lambda _: [again])
        or not check_limits(text, run)
        or not check_certainty(text, run)
        or check_sentence(text, EVENTS, lambda kind: list_events(run, kind))
        or text in list_roles(run)
        or check_sentence(text, ["worth", "plan"], lambda _: list_plans(run, cluster))
        or check_sentence(text, ["result", "campaign"], lambda _: list_results(run))
        or check_sentence(text, ["grown"], lambda _: list_shown(run, "changes.csv"))
        or check_sentence(text, ["moved"], lambda _: list_moves(run))
        or check_sentence(text, ["movement"], lambda _: [run.changes])
        or check_sentence(text, ["beyond"], lambda _: [{"beyond": count_beyond(run)}])
        or check_sentence(text, ["others"], lambda _: [{"others": len(run.segments) - 8}])
        or check_sentence(text, ["check"], lambda _: list_checks(run))
        or check_sentence(text, ["doubt"], lambda _: list_doubts(run))
        or check_sentence(text, ["divide"], lambda _: list_cuts(run))
        or check_sentence(lower_first(text), ["headline"], lambda _: list_headlines(run))
        or check_sentence(text, ["headline"], lambda _: list_headlines(run))
    )
    return [] if good else [text]


def lower_first(text):
    return text[:1].lower() + text[1:]


def list_plans(run, cluster):
    actions, plans = (
        run.tables[name][run.tables[name]["cluster"].astype(str) == cluster].to_dict("records")
        for name in ("actions.csv", "campaigns.csv")
    )
    blank = {"unit": "", "event": ""}
    return [blank | clean(row) for row in [*actions, *map(campaigns.find_reach, plans)]]


def list_results(run):
    rows = run.tables["campaign_results.csv"]
    known = zip(list_shown(run, "campaign_results.csv"), rows.to_dict("records"), strict=True)
    return [{"unit": ""} | clean(campaigns.find_gain(row)) | shown for shown, row in known]


def clean(row):
    return {name: value for name, value in row.items() if value == value}


def list_shown(run, name):
    """The rows of a table with the names by which the page shows segments."""
    shown = {s["name"]: s.get("title", s["name"]) for s in run.segments}
    known = run.tables[name].replace({"segment": shown, "previous_segment": shown})
    return [clean(row) for row in known.astype(object).to_dict("records")]


def list_moves(run):
    drift = run.tables["drift.csv"].query("kind == 'feature'").astype({"unit": object})
    rows = drift.fillna({"unit": ""}).to_dict("records")
    return [row | {"variable": words.lower_first(row["variable"]), "shift": abs(row["shift"])}
            for row in rows]  # fmt: skip


def list_checks(run):
    """What each check of the first lines may rest on, counted anew."""
    border, told = run.tables["borderline.csv"], run.selection.get("shares", {})
    same = sum(n for answer, n in told.items() if answer.split()[0] == str(run.manifest["k"]))
    edged = border["borderline"].sum() / border["customers"].sum()
    least = min((s["stability"] for s in run.segments if "stability" in s),
                key=lambda each: each["jaccard"], default={})  # fmt: skip
    return [
        {"of repeats": 1, **least},
        {"of borderline": 1, "share": edged},
        {"same": same, "samples": sum(told.values())},
    ]


def count_beyond(run):
    """The customers that no frame of the maps holds, of segments of five or more."""
    card = load_card(run.folder / "card.yaml")
    shown = sorted(run.segments, key=lambda s: -s["size"])
    large = {s["id"] for s in shown if s["size"] >= 5}
    rows = run.tables["clustered_data.csv"]
    rows = rows[rows["cluster"].isin(large)]
    plane = choose_map(rows, card)
    rows = rows.dropna(subset=plane)
    out = pd.Series(data=False, index=rows.index)
    for name in plane:
        if card.features[name].transform != "log":
            low, high = rows[name].quantile([0.004, 0.996])
            far = (high - low) / 4
            out |= (rows[name] < low - far) | (rows[name] > high + far)
    return int(out.sum())


def list_doubts(run):
    rows = run.tables["alternatives.csv"]
    ends = [rows[rows["moved"] == end] for end in (rows["moved"].max(), rows["moved"].min())]
    return [
        {"choices": len(rows), "most": most, "moved": rows["moved"].max()}
        | {"least": least, "share": rows["moved"].min()}
        for most in ends[0]["choice"] for least in ends[1]["choice"]
    ]  # fmt: skip


def list_cuts(run):
    cuts = run.tables["k_selection.csv"].dropna(subset="ari_mean")
    return cuts[cuts["ari_mean"] == cuts["ari_mean"].max()].to_dict("records")


def list_headlines(run):
    """Every headline that the tables bear out, found by trying all pairs and prefixes."""
    k, rows = len(run.segments), []
    facts = {"k": k, "customers": sum(s["size"] for s in run.segments)}
    parts = run.tables["segment_values.csv" if k > 1 else "value_bands.csv"]
    if len(parts):
        worth = run.tables["segment_values.csv"].iloc[0]
        each = parts.assign(size=parts["size"] if k > 1 else parts["customers"])
        each["worth"] = each["total"] / each["size"]
        each = each.sort_values("worth", ascending=False)
        few, much = (each[n].cumsum() / each[n].sum() for n in ("size", "total"))
        lead = {"few": words.write_fraction(few[(much - few).idxmax()])}
        lead |= {"much": words.write_fraction(much[(much - few).idxmax()])}
        lead |= {"lead": (much - few).max(), "of_value": words.lower_first(worth["variable"])}
        rows.append(facts | lead)
    rows += [facts | {"moved_points": row["points"]} | row
             for row in list_shown(run, "changes.csv") if "points" in row]  # fmt: skip
    features = run.profile[run.profile["level"].isna()]
    typical = {}
    for row in features.to_dict("records"):
        kind = "median" if row["logged"] else "mean"
        typical[row["cluster"], row["variable"]] = row["effect"], row | {"kind": kind}
    for (one, variable), (high, row) in typical.items():
        for (two, other), (low, under) in typical.items():
            if one != two and variable == other and high > low:
                ends = {"variable": words.lower_first(variable), "gap": high - low}
                bare = under if row["unit"] in words.MONEY else row
                plain = row | {"unit": row["unit"] if bare is under else ""}
                ends |= {"high": words.write_figure(row["kind"], plain)}
                ends |= {"low": words.write_figure(row["kind"], under)}
                rows.append(facts | ends)
                rows += [
                    facts | ends | {"alike": 1, "shared": words.lower_first(label)}
                    for (cluster, label), (effect, _) in typical.items()
                    if cluster == one and abs(effect - typical[two, label][0]) <= 0.35
                ]
    return [*rows, facts]


EVENTS = ("emerged", "disappeared", "split", "merged")


def list_events(run, kind):
    """The rows that a sentence on a transition may be about, the names on the other side joined."""
    rows = pd.DataFrame(list_shown(run, "changes.csv"), columns=run.tables["changes.csv"].columns)
    rows = rows.query("transition == @kind")
    if kind not in ("split", "merged"):
        return rows.to_dict("records")
    one, other, joined = "previous_cluster", "segment", "parts"
    if kind == "merged":
        one, other, joined = "cluster", "previous_segment", "sources"
    events = []
    for _, group in rows.groupby(one):
        kept = group["cluster"] == group["previous_cluster"]
        names = words.join(f"“{name}”" for name in group.loc[~kept, other])
        events.append(dict(group.iloc[0]) | {joined: names, "kept": int(kept.any())})
    return events


def list_roles(run):
    """The sentences on changed roles, where the roles are those of the segments."""
    own = {s["name"]: (", ".join(s["roles"]), " ".join(s["actions"])) for s in run.segments}
    shown = {s["name"]: s.get("title", s["name"]) for s in run.segments}
    roles = run.changes.get("roles", [])
    return [
        r["sentence"].replace(r["segment"], shown[r["segment"]], 1)
        for r in roles if own[r["segment"]] == (r["role"], r["action"])
    ]  # fmt: skip


def check_report(soup, run):
    """What in the report's page does not agree with the tables."""
    alts = [wrong for image in soup.find_all("img") for wrong in check_told(image["alt"], run)]
    return alts + [wrong for node in list_nodes(soup) for wrong in check_node(node, run)]


def check_node(node, run):
    """What in one text of the page does not agree: a figure, (part of) a sentence, or data."""
    figure = node.find_parent(attrs={"data-cell": True})
    sentence = node.find_parent(class_="sentence")
    text = " ".join(node.split())
    if figure is not None:
        place = figure["data-cell"]
        value = look_up(place, run)
        held = type(value)(figure.get("value") or figure["data-value"])
        column = unquote(place.rpartition("#")[2])
        name = "mean" if place.startswith("segment_prototypes.csv") else column
        good = held == value and agrees(text, value, name)
        return [] if good else [text]
    if sentence is not None:
        column = node.find_parent("article")  # of a segment: the sentence is about it
        cluster = column and column["data-segment"]
        return check_told(" ".join(sentence.get_text().split()), run, cluster)
    if place := node.find_parent(attrs={"data-cut": True}):  # a line of a segment's name
        cuts = run.tables["cuts.csv"].set_index(["k", "segment"])["name"]
        name = cuts[tuple(int(part) for part in place["data-cut"].split("/"))]
        return [] if text.removesuffix(" …") in name else [text]
    return [] if text in list_texts(run) else [text]


def parse(page):
    return BeautifulSoup(page, "html.parser")


def list_mutations(text):
    """The text again and again, one figure's last digit changed each time."""
    for found in NUMBER.finditer(text):
        last = max(i for i in range(found.start(), found.end()) if text[i].isdigit())
        changed = str((int(text[last]) + 1) % 10)
        yield found[0], text[:last] + changed + text[last + 1 :]


def list_nodes(soup):
    """The texts of the page that hold a figure, without the numbers along an axis."""
    found = soup.body.find_all(string=NUMBER)
    texts = [node for node in found if isinstance(node, NavigableString)]
    return [node for node in texts if not node.find_parent(class_="axes")]
