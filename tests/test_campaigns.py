"""Campaigns: who is written to, who is held back, and that the draw is the same anywhere."""

import json
import shutil
import stat
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from segmentation import InputError
from segmentation.__main__ import main
from segmentation.customers import Card
from segmentation.runs import Run
from segmentation.segments import campaigns

PARTS = {"title": "t", "table": "", "id": "id", "features": {"a": {}, "b": {}}}
PARTS["descriptors"] = {"Opt-in": {}}


def make_card(**parts):
    return Card.model_validate(PARTS | parts)


def make_people(sizes, seed=0):
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    count = len(cluster)
    return pd.DataFrame({
        "id": [f"c{each}" for each in rng.permutation(10**6)[:count]],
        "a": rng.normal(size=count), "b": rng.lognormal(size=count),
        "Opt-in": rng.choice(["Yes", "No"], count), "cluster": cluster,
        "segment": [f"Segment {each}" for each in cluster], "status": "ok",
    })  # fmt: skip


@pytest.fixture
def out(recorded, tmp_path):
    """An output folder with one run."""
    shutil.copytree(recorded, tmp_path / "outputs/one")
    return tmp_path / "outputs"


def send(out, *words, name="october"):
    return main(["audience", name, "--run", str(out / "one"), "-o", str(out.parent / name), *words])


@pytest.mark.parametrize("share", [0.1, 0.2, 0.335, 0.5])
def test_the_share_held_back_is_met_within_one_customer(share):
    people = make_people([100, 101, 333, 1000, 7])
    drawn, rows = campaigns.draw_groups(people, make_card(), "october", share)
    counted = drawn[drawn["group"] == "hold back"].groupby("cluster").size()
    assert counted.reindex(rows["id"], fill_value=0).tolist() == rows["held_back"].tolist()
    assert (abs(rows["held_back"] - share * rows["customers"]) <= 0.5 + 1e-9).all()


def test_a_cutoff_gives_the_group_again_whoever_else_is_there():
    people = make_people([200, 300])
    drawn, rows = campaigns.draw_groups(people, make_card(), "october", 0.2)
    few = drawn.sample(50, random_state=1)
    cutoffs = few["cluster"].map(rows.set_index("id")["cutoff"])
    again = np.where(campaigns.hash_ids(few["id"], "october") < cutoffs, "hold back", "send")
    assert (again == few["group"]).all()
    other, _ = campaigns.draw_groups(people, make_card(), "november", 0.2)
    assert 0.2 < (other["group"] != drawn["group"]).mean() < 0.45  # 2 · 0.2 · 0.8 = 0.32


IDS = ["17", "c001", "Jürgen Ö", "客戶 7", "'=1+1", ""]


def test_javascript_draws_the_same():
    if not (node := shutil.which("node")):
        pytest.skip("node is not installed")
    guide = (ROOT / "docs/campaigns.md").read_text("utf-8")
    (code,) = [part.split("```")[0] for part in guide.split("```js\n")[1:]]
    code += f"\nconsole.log(JSON.stringify({json.dumps(IDS)}.map((id) => hashId(id, 'october'))))"
    done = subprocess.run([node, "--input-type=module"], input=code, capture_output=True, text=True)
    assert json.loads(done.stdout) == campaigns.hash_ids(pd.Series(IDS), "october").tolist()


def test_sql_draws_the_same():
    duckdb = pytest.importorskip("duckdb")
    guide = (ROOT / "docs/campaigns.md").read_text("utf-8")
    (query,) = [part.split("```")[0] for part in guide.split("```sql\n")[1:]]
    people = make_people([100, 50])
    drawn, rows = campaigns.draw_groups(people, make_card(), "october", 0.2)
    drawn = drawn.rename(columns={"id": "CustomerID"}).drop(columns="group")
    customers = drawn.merge(rows[["id", "cutoff"]], left_on="cluster", right_on="id")
    found = duckdb.query(query).df().set_index("CustomerID")["held_back"]
    assert found.sum() == rows["held_back"].sum() == 30
    hashed = campaigns.hash_ids(pd.Series(found.index), "october")
    cutoffs = customers.set_index("CustomerID").loc[found.index, "cutoff"]
    assert (found.to_numpy() == (hashed.to_numpy() < cutoffs.to_numpy())).all()


def test_another_process_draws_the_same():
    code = "import pandas, sys; from segmentation.segments.campaigns import hash_ids;"
    code += "print(*hash_ids(pandas.Series(sys.argv[1:]), 'october'))"
    command = [sys.executable, "-c", code, *IDS[:2]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == campaigns.hash_ids(pd.Series(IDS[:2]), "october").tolist()


def test_the_lists_hold_every_customer_once_and_the_record_none(out, capsys):
    assert send(out, "--status", "ok,borderline,outside") == 0
    printed = capsys.readouterr().out
    clustered = Run(out / "one").read_table("clustered_data.csv", text=("CustomerID",))
    lists = sorted((out.parent / "october").iterdir())
    written = pd.concat([pd.read_csv(path, dtype=str) for path in lists])
    assert sorted(written["CustomerID"]) == sorted(clustered["CustomerID"])
    assert list(written) == ["CustomerID", "segment", "group"]
    own = clustered.set_index("CustomerID")["segment"]
    assert (written["segment"].to_numpy() == own.loc[written["CustomerID"]].to_numpy()).all()
    assert {stat.S_IMODE(path.stat().st_mode) for path in lists} == {0o600}
    text = (out / "campaigns/october.json").read_text("utf-8")
    record = json.loads(text)
    assert (
        sum(each["held_back"] for each in record["segments"])
        == (written["group"] == "hold back").sum()
    )
    assert [each["file"] for each in record["segments"]] == [path.name for path in lists]
    assert "CustomerID" not in text + printed
    assert printed.splitlines()[-1] == str(out.parent / "october")


def test_only_whom_the_card_allows_and_of_the_segments_named():
    people, card = make_people([60, 40]), make_card(contact={"Opt-in": [True]})
    people.loc[:4, "status"] = "outside"
    chosen = campaigns.choose_audience(people, card, ["segment 0"], ["ok"])
    wanted = people.iloc[5:60]
    assert chosen["id"].tolist() == wanted.loc[wanted["Opt-in"] == "Yes", "id"].tolist()
    assert set(campaigns.choose_audience(people, make_card(), ["1"], ["ok"])["cluster"]) == {1}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--segment", "Oldr"], "segment Oldr is not known; did you mean "),
        (["--hold-back", "30"], "must lie between 0% and 100% (20% or 0.2), got 30."),
        (["--status", "gone"], "nobody is left to write to"),
    ],
)
def test_what_makes_no_list_is_refused_and_nothing_written(out, words, told, capsys):
    assert send(out, *words) == 2
    assert told in capsys.readouterr().err
    assert not (out / "campaigns").exists()
    assert not (out.parent / "october").exists()


def test_a_campaign_is_drawn_once_and_replaces_nothing(out, capsys):
    assert send(out) == 0
    before = {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file()}
    assert send(out, "--hold-back", "50%") == 2
    assert "campaign october is there already" in capsys.readouterr().err
    assert send(out, name="latest") == 2
    assert "the campaign must be up to 64 letters" in capsys.readouterr().err
    (out / "campaigns/october.json").unlink()
    assert send(out) == 2
    assert "october_0.csv is there already; name another folder by -o." in capsys.readouterr().err
    after = {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file()}
    assert after == {p: b for p, b in before.items() if p.name != "october.json"}


def test_customers_without_ids_make_no_list():
    people = make_people([20]).rename(columns={"id": "row"})
    with pytest.raises(InputError, match="customers without ids make no list"):
        campaigns.choose_audience(people, make_card(id="row"), [], ["ok"])


def test_a_contact_that_is_no_descriptor_is_refused():
    with pytest.raises(ValueError, match="contact: Optin is no descriptor; did you mean Opt-in"):
        make_card(contact={"Optin": ["yes"]})


def test_an_unfair_draw_is_seen_and_a_fair_one_seldom_called_so():
    card, called = make_card(), 0
    for seed in range(200):
        people = make_people([100, 60, 40], seed)
        drawn, _ = campaigns.draw_groups(people, card, f"campaign {seed}", 0.3)
        balance = campaigns.check_balance(drawn, card)
        called += (balance["difference"].abs() > balance["limit"]).any()
    assert called <= 20  # 10 expected of 200 at 5 %; 21 and more in one of a thousand such tests
    drawn.loc[drawn["group"] == "hold back", "a"] += 2
    balance = campaigns.check_balance(drawn, card).set_index(["variable", "segment"])
    assert (balance.loc["a", "difference"] > balance.loc["a", "limit"]).all()
