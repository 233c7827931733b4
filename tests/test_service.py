"""The service as a stranger meets it: answers, refusals, hot replacement, silence about data."""

import asyncio
import concurrent.futures
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import httpx
import pandas as pd
import pytest
from conftest import ROOT
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation.__main__ import main
from segmentation.customers.card import OURS
from segmentation.runs import folder as runs
from segmentation.serving import apart, load_model, payloads, service

HERE = Path(__file__).parent
CUSTOMER = {"Age": 20, "Annual Income (k$)": 30, "Spending Score (1-100)": 40}
FIELDS = {"cluster", "segment", "distance", "second", "confidence", "status", "why"}


def visit(app, **options):
    """A client that calls the service by a name of this machine."""
    return TestClient(app, base_url="http://localhost", **options)


@pytest.fixture(scope="module")
def app(mall_model):
    return service.build_app(mall_model)


@pytest.fixture(scope="module")
def client(app):
    with visit(app) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(mall_model):
    """A server process, for all that only ask it."""
    with running(mall_model) as started:
        yield started


@pytest.fixture
def folder(mall_model, tmp_path):
    """A copy of the model's run that a test may harm."""
    return shutil.copytree(mall_model, tmp_path / "run")


@pytest.fixture(scope="module")
def clustered(mall_model):
    return runs.Run(mall_model).read_table("clustered_data.csv", text=("CustomerID",))


def refuse(client, body, status=422, path="/predict"):
    reply = client.post(path, content=body)
    assert reply.status_code == status, reply.text
    return reply.json()


def as_json(table):
    return json.loads(table.to_json(orient="records", double_precision=15))


# Answers


def test_one_customer_is_answered(client):
    reply = client.post("/predict", json=CUSTOMER)
    answer = reply.json()
    assert set(answer) == FIELDS
    assert (answer["cluster"], answer["segment"]) == (1, "Younger, low annual income")
    assert (answer["second"], answer["status"]) == ("Older", "ok")
    assert 0.95 < answer["confidence"] <= 1  # far from any border: kept in all resamples
    assert answer["why"][0] == {"feature": "Age", "value": 20.0}
    assert reply.headers["x-segmentation-run"] == client.get("/model").json()["run_id"]


def test_every_clustered_row_comes_back_in_its_segment(client, clustered):
    rows = as_json(clustered)
    many = client.post("/predict", json=rows).json()
    assert [a["cluster"] for a in many] == list(clustered["cluster"])
    assert [a["segment"] for a in many] == list(clustered["segment"])
    assert [a["second"] for a in many] == list(clustered["second"])
    assert [a["status"] for a in many] == list(clustered["status"])
    for answer, row in zip(many, rows, strict=True):
        assert answer["distance"] == pytest.approx(row["distance"], rel=1e-9)
        assert answer["confidence"] == pytest.approx(row["confidence"], rel=1e-9, abs=1e-12)
        assert client.post("/predict", json=row).json() == answer


@pytest.mark.parametrize("path", ["/predict", "/predict_cluster"])
@pytest.mark.parametrize(
    "body",
    [
        {"Age": 20, "Annual_Income": 30, "Spending_Score": 40},
        {"Annual income": 30, "Spending score": 40, "Age": 20},
        {"spending score (1-100)": 40, "age": 20, "annual income (k$)": 30},
        {**CUSTOMER, "Genre": "Male", "CustomerID": "0007", "cluster": None, "segment": "x"},
    ],
)
def test_labels_aliases_and_any_order_work(client, path, body):
    assert client.post(path, json=body).json() == client.post("/predict", json=CUSTOMER).json()


def test_a_client_that_knows_only_three_features_works_unchanged(address):
    body = json.dumps(CUSTOMER).encode()
    asked = urllib.request.Request(
        f"{address}/predict_cluster", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked) as reply:
        assert json.load(reply)["cluster"] == 1


def test_a_missing_feature_follows_the_cards_policy(client):
    median = client.get("/model").json()["features"][0]["typical"]
    partly = {key: CUSTOMER[key] for key in list(CUSTOMER)[1:]}
    filled = client.post("/predict", json=partly | {"Age": median}).json()
    for body in (partly, partly | {"Age": None}):
        answer = client.post("/predict", json=body).json()
        assert {**answer, "why": 0} == {**filled, "why": 0}


def test_beyond_the_training_rows_is_outside_beyond_the_card_refused(client):
    assert client.post("/predict", json=CUSTOMER | {"Age": 100}).json()["status"] == "outside"
    told = refuse(client, json.dumps([CUSTOMER, CUSTOMER | {"Age": 1e12}]))
    assert told == {
        "detail": [
            {
                "row": 1,
                "field": "Age",
                "message": "is out of range",
                "allowed": "a number from 0 to 120 years",
            }
        ],
        "count": 1,
    }


# Campaigns


@pytest.fixture
def drawn(folder, tmp_path):
    """A run beside which a campaign to the women of two segments is drawn; its lists in `lists`."""
    with (folder / "card.yaml").open("a") as card:
        card.write("contact: {Gender: [female]}\n")
    reseal(folder)
    words = ["--hold-back", "40%", "--segment", "0", "--segment", "1", "--run", str(folder)]
    assert main(["audience", "october", "-o", str(tmp_path / "lists"), *words]) == 0
    return folder


def test_a_campaign_tells_of_each_customer_what_its_lists_tell(drawn, tmp_path, clustered):
    client, rows = visit(service.build_app(drawn)), as_json(clustered)
    paths = (tmp_path / "lists").glob("*.csv")
    lists = [pd.read_csv(path, dtype=str) for path in paths]
    listed = pd.concat(lists).set_index("CustomerID")["group"].to_dict()
    assert {*listed.values()} == {"send", "hold back"}
    many = client.post("/predict?campaign=october", json=rows).json()
    told = {row["CustomerID"]: answer["group"] for row, answer in zip(rows, many, strict=True)}
    assert told == {each: listed.get(each) for each in told}
    assert any(a["cluster"] < 2 and a["status"] == "outside" for a in many)  # and gets nothing
    plain = client.post("/predict", json=rows).json()
    assert plain == [{k: v for k, v in answer.items() if k != "group"} for answer in many]


def test_a_group_is_of_the_id_as_the_table_has_it_and_of_who_may_be_written_to(drawn, clustered):
    client = visit(service.build_app(drawn))
    rows = client.post("/predict?campaign=october", json=as_json(clustered)).json()
    place = next(i for i, answer in enumerate(rows) if answer["group"] == "hold back")
    row = as_json(clustered)[place] | {"cluster": None, "segment": None}
    number = int(row.pop("CustomerID"))
    del row["Gender"]

    def ask(path="/predict_cluster?campaign=october", **more):
        reply = client.post(path, json=row | more)
        assert reply.status_code == 200
        return reply.json().get("group", "none told")

    for own in (number, f" {number} "):
        assert ask(customer_id=own, Genre="F") == "hold back"
    assert ask(CustomerID=number, Gender="Male") is ask(CustomerID=number) is None
    assert ask(CustomerID=number, Gender="both") is ask(CustomerID=number, Gender=["F"]) is None
    for own in (None, "", True, float(number), [number], {}):
        assert ask(CustomerID=own, Gender="F") is None
    assert ask(Gender="F") is None
    for path in ("/predict", "/predict?campaign="):
        assert ask(path, CustomerID=number, Gender="F") == "none told"


def test_a_campaign_that_is_not_known_is_told_which_there_are(drawn, client, caplog):
    with caplog.at_level("INFO", logger="segmentation.service"):
        told = client.post("/predict?campaign=secret-1", json=CUSTOMER)
        assert (told.status_code, told.json()["detail"]) == (
            404,
            "no campaign has this name; drawn are none.",
        )
        there = visit(service.build_app(drawn))
        for name in ("secret-2", "../october", "x" * 9_000):
            told = there.post("/predict", params={"campaign": name}, json=CUSTOMER)
            assert told.status_code == 404
            assert told.json() == {"detail": "no campaign has this name; drawn are october."}
        reply = there.post("/predict?campaign=october", json=CUSTOMER | {"CustomerID": "secret-3"})
        assert reply.json()["group"] is None
        (drawn.parent / "campaigns/october.json").write_text("{")
        harmed = there.post("/predict?campaign=october", json=CUSTOMER)
        assert (harmed.status_code, harmed.json()["mend"]) == (
            503,
            "restore it, or see whether you may",
        )
    shutil.copytree(drawn, other := drawn.parent / "other")
    (other / "card.yaml").unlink()
    harmed = visit(service.build_app(other)).post("/predict?campaign=october", json=CUSTOMER)
    assert harmed.status_code == 503
    assert "card.yaml" in harmed.json()["reason"]
    assert "secret" not in caplog.text
    assert "october" not in caplog.text
    told = there.get("/openapi.json").json()["paths"]["/predict"]["post"]["parameters"]
    assert [(each["name"], each["in"]) for each in told] == [("campaign", "query")]


# Refusals


AGE = {
    "is not a finite number": ['{"Age": NaN}', '{"Age": Infinity}', '{"Age": 1e999}'],
    "is not a number": [
        '{"Age": true}',
        '{"Age": "12"}',
        '{"Age": [1]}',
        f'{{"Age": 1{"0" * 400}}}',
    ],
    "is out of range": ['{"Age": -1}', f'{{"Age": 1{"0" * 30}}}'],
}
NO_JSON = [
    *("", "\ufeff", '{"Age": 1', '{"Age": 1}x', b"\xff\xfe{", b'{"Age": "\xe4"}', "[" * 100_000),
    *(f'{{"Age": {"9" * 5000}}}', '{"\\ud800": 1}'),
]
BODIES = [
    *((body, "Age", message) for message, bodies in AGE.items() for body in bodies),
    *((body, None, "the body is not JSON") for body in NO_JSON),
    *((body, None, "is not an object") for body in ("3", "null", '["x"]', "[[]]")),
    *((body, None, "has none of the features") for body in ("{}", '{"CustomerID": 1}')),
    ('{"Age": 1, "Agee": 2}', "Agee", "is not a known name; did you mean Age?"),
    ('{"Age": 1, "age": 2}', "age", "is not a known name; did you mean Age?"),
    ("[]", None, "the list has 0 rows"),
]


@pytest.mark.parametrize(("body", "field", "message"), BODIES)
def test_bad_bodies_are_told_what_is_wrong(client, body, field, message):
    told = refuse(client, body)
    assert told["count"] == len(told["detail"]) == 1
    assert told["detail"][0]["field"] == field
    assert told["detail"][0]["message"].startswith(message)
    assert told["detail"][0]["allowed"]


def test_a_body_with_a_byte_order_mark_is_read(client):
    body = b"\xef\xbb\xbf" + json.dumps(CUSTOMER).encode()
    assert client.post("/predict", content=body).json()["cluster"] == 1


def test_many_problems_are_counted_and_nothing_is_echoed(client):
    secret = "jane.doe@example.org"
    rows = [{"Age": secret, "Income": f"<script>{secret}"}] * 5_000
    reply = client.post("/predict", json=rows)
    told = reply.json()
    assert reply.status_code == 422
    assert (len(told["detail"]), told["count"]) == (20, 10_000)
    assert secret not in reply.text
    assert len(reply.content) < 10_000
    long = client.post("/predict", json={"x" * 100_000: 1, "Age": 1})
    assert len(long.content) < 1_000


def test_very_many_unknown_names_are_not_described_each(client):
    for names in (900, 10_000):
        told = refuse(client, json.dumps({f"name {i}": 1 for i in range(names)}))
        assert len(told["detail"]) <= 20
        assert told["count"] == (names if names == 900 else 1)


def test_rows_of_ever_other_names_are_refused_before_they_are_all_matched(client):
    rows = [{f"age {j} {i}": 1 for i in range(4)} for j in range(8_000)]
    told = refuse(client, json.dumps(rows))
    assert told["detail"][0]["message"] == "the rows have very many different names"
    assert told["detail"][0]["row"] < 1_000
    some = [{"age": 30, f"x{j % 500}": 1} for j in range(10_000)]
    told = refuse(client, json.dumps(some))
    assert (told["count"], told["detail"][19]["row"]) == (10_000, 19)


def test_a_bad_row_far_down_is_told_by_its_number(client):
    rows = [{"Age": 30}] * 5_555 + [{"Age": "x"}] + [{"Age": 30}] * 3_000 + [{"Age": 500}]
    told = refuse(client, json.dumps(rows))
    assert [problem["row"] for problem in told["detail"]] == [5_555, 8_556]
    assert told["count"] == 2


def test_more_rows_than_a_request_may_have_are_refused(client):
    told = refuse(client, json.dumps([{"Age": 1}] * 10_001))
    assert told["detail"][0]["message"] == "the list has 10,001 rows"
    assert client.post("/predict", json=[{"Age": 30}] * 10_000).status_code == 200


def test_bodies_over_the_limit_are_refused_before_they_are_read(client):
    large = b"[" + b" " * service.LARGEST_BODY + b"]"
    assert "4 MB" in refuse(client, large, 413)["detail"]

    def drip():
        for _ in range(6):
            yield b" " * 1_000_000

    assert "4 MB" in refuse(client, drip(), 413)["detail"]
    reply = client.post("/predict_file", content=b"a", headers={"content-length": "200000000"})
    assert reply.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        *("/reports/../../etc/passwd", "/static/..%2f..%2fcards.py", "/static/%2e%2e/cards.py"),
        *("/static//etc/passwd", "/static/page.js%00.html", "/clusters/999", "/nothing"),
        *("/static/openapi.yaml", "/clusters/../run.json"),
    ],
)
def test_paths_lead_nowhere_but_to_what_is_served(client, path):
    reply = client.get(path)
    assert reply.status_code == 404
    assert set(reply.json()) == {"detail"}


def test_an_id_that_is_no_number_is_refused_without_an_echo(client):
    reply = client.get("/clusters/%3Cscript%3E")
    assert reply.status_code == 422
    assert "script" not in reply.text


@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from([*CUSTOMER, "age", "Gender", "x"]), inner, max_size=5
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_body_makes_an_error_of_ours(client, body):
    assert client.post("/predict", content=body).status_code in (200, 422)


def test_a_row_reads_alike_by_whatever_names(mall_model, clustered):
    reader = payloads.Reader(load_model(mall_model))
    raw = clustered.drop(columns=[*OURS])
    spelled = raw.rename(columns=str.upper)
    (plain, _, _, many), (other, *_) = (
        reader.read(json.dumps(as_json(t)).encode()) for t in (raw, spelled)
    )
    assert (plain == other).all()
    assert many


# Files


def test_a_file_comes_back_with_segment_columns(client, clustered, tmp_path):
    content = clustered.drop(columns=[*OURS]).to_csv(index=False).encode()
    plain = client.post("/predict_file", content=content)
    form = client.post("/predict_file", files={"file": ("../../x.csv", content, "text/csv")})
    assert plain.content == form.content
    assert plain.headers["content-type"].startswith("text/csv")
    (tmp_path / "scored.csv").write_bytes(plain.content)
    scored = pd.read_csv(tmp_path / "scored.csv")
    assert list(scored["cluster"]) == list(clustered["cluster"])
    one = client.post("/predict_file", params={"segment": "Older"}, content=content)
    assert one.headers["x-segmentation-rows"] == "200"
    assert one.text.count("\n") - 1 == (clustered["segment"] == "Older").sum()


LONG = "Age,Annual Income,Spending Score,Note\n20,30,40," + "x" * 200_000 + "\n500,30,40,\n"
WIDE = "Age,Annual Income,Spending Score" + ",x" * 3_000 + "\n20,30,40\n"


def test_a_long_cell_before_a_bad_value_is_no_error_of_ours(client):
    told = refuse(client, LONG, path="/predict_file")
    assert told["detail"][0] | {"message": "", "allowed": ""} == {
        **{"line": 3, "field": "Age", "message": "", "allowed": ""}
    }


@pytest.mark.parametrize("text", [WIDE, WIDE.replace(",", ";"), "Title\n" + WIDE])
def test_very_many_columns_are_refused_before_they_are_parsed(client, text):
    told = refuse(client, text, path="/predict_file")
    assert "3,003 columns" in told["detail"][0]["message"]


def test_a_full_disk_is_told_without_its_path(client, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    told = refuse(client, b"Age\n1\n", 507, path="/predict_file")
    assert "no such folder" not in str(told)


def test_a_disk_that_fills_while_a_file_is_scored_is_told_too(mall_model):
    few = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (200_000, 200_000))
    server = running(mall_model, preexec_fn=few)
    with server as address:
        for rows in (5_000, 50_000):  # what is written is too large, then what is sent
            content = "Age,Annual Income,Spending Score\n" + "20,30,40\n" * rows
            reply = httpx.post(f"{address}/predict_file", content=content, timeout=300)
            assert reply.status_code == 507
            assert reply.json()["detail"].startswith("there is no room")
        assert "Traceback" not in server.read_log()


def test_a_file_that_takes_too_long_is_ended(client, monkeypatch):
    monkeypatch.setattr(apart, "LONGEST", 0)
    told = refuse(client, b"Age,Annual Income,Spending Score\n20,30,40\n", 413, "/predict_file")
    assert "takes over" in told["detail"]
    assert "segmentation score" in told["detail"]
    assert not [child for child in multiprocessing.active_children() if child.join(60)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04rest", "is no readable Excel file; save it as CSV"),
        (b"{}", "is no CSV but JSON"),
        (b"a,b\n1,2\n", "column Age is missing"),
        (b"Age;Annual Income;Spending Score\n20;x;3\n", "values are not numbers"),
        ("Age,Annual Income,Spending Score\n20,ä,3\n".encode("latin-1"), "is not utf-8 in line 2"),
        (b"Age,Annual Income,Spending Score\n", "has no customers"),
    ],
)
def test_a_bad_file_is_refused_like_in_the_series(client, content, message):
    told = refuse(client, content, path="/predict_file")
    assert message in told["detail"][0]["message"]


def test_bad_rows_of_a_file_are_told_by_line(client):
    content = b"Age,Annual Income,Spending Score\n20,30,40\n\n500,30,40\n20,30,400\n"
    told = refuse(client, content, path="/predict_file")
    assert told["count"] == 2
    assert [(d["line"], d["field"]) for d in told["detail"]] == [
        (4, "Age"),
        (5, "Spending Score (1-100)"),
    ]


def test_a_form_without_a_file_is_refused(client):
    told = client.post("/predict_file", data={"a": "b"}, files={}).json()
    assert told["detail"][0]["message"]
    for rest in ("", "; boundary=x; charset=undefined", "; boundary=x; charset=rot13"):
        head = {"content-type": f"multipart/form-data{rest}"}
        body = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'
        assert client.post("/predict_file", content=body, headers=head).status_code == 422


# The model


def test_segments_and_model_are_described(client, mall_model):
    segments = client.get("/clusters").json()
    written = json.loads((mall_model / "segments.json").read_text("utf-8"))
    assert segments == written
    assert client.get("/clusters/2").json() == written[2]
    model = client.get("/model").json()
    assert (model["k"], model["verdict"], model["customers"]) == (4, "reproducible", 200)
    assert [f["range"] for f in model["features"]] == [[18, 70], [15, 137], [1, 99]]
    assert [f["limits"] for f in model["features"]] == [[0, 120], [0, 10000], [1, 100]]


def test_groups_under_five_are_withheld(folder):
    edit(folder, "segments.json", lambda segments: segments[3].update(size=4))
    told = visit(service.build_app(folder)).get("/clusters").json()
    assert [s["centre"] is None and s["profile"] is None for s in told] == [False] * 3 + [True]


def reseal(folder):
    run = runs.Run(folder)
    run.seal(run.manifest)


def edit(folder, name, change):
    """Change a JSON file of a run as the run itself might have written it."""
    path = folder / name
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")
    if name != "run.json":
        reseal(folder)


def edit_figures(folder, name, value):
    """Put a value into the first centre, or into the first feature's figures."""

    def change(figures):
        if name == "centres":
            figures["centres"][0][0] = value
        else:
            figures["features"][0][name] = value

    edit(folder, "artifacts/segmenter.json", change)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


HARMS = {
    "no published run": shutil.rmtree,
    "no JSON": lambda f: (f / "run.json").write_text("{"),
    "a list": lambda f: (f / "run.json").write_text("[]"),
    "no model": lambda f: (f / "artifacts/segmenter.json").unlink(),
    "a harmed model": lambda f: cut(f / "artifacts/segmenter.joblib"),
    "harmed segments": lambda f: cut(f / "segments.json"),
    "failed": lambda f: edit(f, "run.json", lambda m: m.update(status="failed")),
    "no verdict": lambda f: edit(f, "run.json", lambda m: m.pop("verdict")),
    "no input": lambda f: edit(f, "run.json", lambda m: m.pop("input")),
    "odd files": lambda f: edit(f, "run.json", lambda m: m.update(files=[1])),
    "centres that are no numbers": lambda f: edit_figures(f, "centres", float("nan")),
    "centres beyond all numbers": lambda f: edit_figures(f, "centres", 1e300),
    "centres of other features": lambda f: edit(
        f, "artifacts/segmenter.json", lambda m: m["centres"][0].append(0.0)
    ),
    "scales of nothing": lambda f: edit_figures(f, "scale", 0),
    "other segments than centres": lambda f: edit(f, "segments.json", lambda m: m.pop()),
    "segments of one id": lambda f: edit(f, "segments.json", lambda m: m[1].update(id=0)),
    "no card": lambda f: edit(f, "artifacts/segmenter.json", lambda m: m.pop("card")),
    "odd segments": lambda f: edit(f, "segments.json", lambda m: m.clear()),
    "no centres": lambda f: ((f / "artifacts/segmenter.json").unlink(), reseal(f)),
}


@pytest.mark.parametrize("harm", HARMS)
def test_without_a_sound_model_the_service_says_so_and_stays(folder, harm):
    HARMS[harm](folder)
    client = visit(service.build_app(folder), raise_server_exceptions=False)
    reply = client.get("/health")
    assert reply.status_code == 503
    assert reply.json()["reason"]
    assert reply.json()["mend"]
    assert client.post("/predict", json=CUSTOMER).status_code == 503
    assert client.get("/").status_code == client.get("/openapi.json").status_code == 200


def test_an_odd_run_id_stands_in_a_header(folder):
    edit(folder, "run.json", lambda m: m.update(run_id="10 €\r\nX-Odd: 1"))
    reply = visit(service.build_app(folder)).post("/predict", json=CUSTOMER)
    assert reply.status_code == 200
    assert "x-odd" not in reply.headers
    assert reply.headers["x-segmentation-run"].isascii()


def test_without_its_tables_a_run_has_no_map_but_answers(folder):
    cut(folder / "tables/clustered_data.csv")
    client = visit(service.build_app(folder))
    assert client.get("/map").status_code == 503
    assert client.post("/predict", json=CUSTOMER).status_code == 200


def test_what_cannot_be_loaded_is_tried_again(folder, monkeypatch):
    shelf = service.Shelf(folder)
    old = shelf.loaded
    monkeypatch.setattr(service, "RETRIES_EVERY", 0.0)
    (folder / "run.json").touch()
    with monkeypatch.context() as broken:
        broken.setattr(service, "load_model", lambda _: 1 / 0)
        shelf.look()
    assert shelf.loaded is old
    assert shelf.refused == folder.name
    assert "ZeroDivisionError" in shelf.reason
    shelf.look()
    assert shelf.loaded is not old
    assert not shelf.reason


def publish_copy(source, outputs, run_id, *, name=None, harm=None):
    """A run published under another id, `latest` pointing to it."""
    copy = shutil.copytree(source, outputs / run_id)
    manifest = runs.Run(copy).manifest.model_copy(update={"run_id": run_id})
    if name:
        segments = json.loads((copy / "segments.json").read_text("utf-8"))
        segments = [s | {"name": f"{name} {s['name']}"} for s in segments]
        (copy / "segments.json").write_text(json.dumps(segments), "utf-8")
    runs.Run(copy).seal(manifest)
    if harm:
        harm(copy)
    point(outputs, run_id)


def point(outputs, run_id):
    """Let `latest` lead to a run."""
    link = outputs / ".next"
    link.symlink_to(run_id)
    link.replace(outputs / "latest")


def wait_for(found, seconds=120):
    until = time.monotonic() + seconds
    while not (seen := found()) and time.monotonic() < until:
        time.sleep(0.05)
    return seen


def test_a_new_run_is_picked_up_in_one_step_and_a_bad_one_refused(mall_model, tmp_path):
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    with visit(service.build_app(outputs / "latest")) as client:
        assert client.get("/health").status_code == 503
        publish_copy(mall_model, outputs, "first")
        assert wait_for(lambda: client.get("/health").status_code == 200)
        publish_copy(mall_model, outputs, "second", name="New")

        def ask():
            reply = client.post("/predict", json=CUSTOMER)
            run, segment = reply.headers["x-segmentation-run"], reply.json()["segment"]
            assert segment.startswith("New ") == (run == "second")
            return run == "second"

        assert wait_for(ask)
        publish_copy(mall_model, outputs, "third", harm=lambda copy: cut(copy / "segments.json"))
        told = wait_for(lambda: (h := client.get("/health").json())["refused_run"] and h)
        assert (told["run_id"], told["refused_run"], told["watching"]) == ("second", "third", True)
        point(outputs, "latest")  # a loop of links
        told = wait_for(
            lambda: (h := client.get("/health").json())["refused_run"] == "latest" and h
        )
        assert (told["run_id"], told["watching"]) == ("second", True)
        publish_copy(mall_model, outputs, "fourth")
        assert wait_for(lambda: client.get("/health").json()["run_id"] == "fourth")
        assert client.get("/health").json()["refused_run"] is None


def test_without_a_thread_to_look_by_the_next_look_finds_it(mall_model, tmp_path, monkeypatch):
    shutil.copytree(mall_model, tmp_path / "first")
    look, fails = service.run_in_threadpool, iter([True, True])

    async def find_none(*arguments):
        if next(fails, False):
            raise RuntimeError("can't start new thread")
        return await look(*arguments)

    monkeypatch.setattr(service, "run_in_threadpool", find_none)
    monkeypatch.setattr(service, "LOOKS_EVERY", 0.01)
    with visit(service.build_app(tmp_path / "latest")) as client:
        point(tmp_path, "first")
        assert wait_for(lambda: client.get("/health").status_code == 200)
        assert client.get("/health").json()["watching"]


# Where it runs


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.0.0.1:8000", 200), ("[::1]:8000", 200), ("LOCALHOST", 200), ("a.example.com", 200)),
        *(("shop.example.org", 200), ("example.com", 400), ("shop.example.org.evil.net", 400)),
        *(("127.0.0.1.evil.net", 400), ("", 400), ("localhost, evil.net", 400)),
    ],
)
def test_only_the_hosts_own_names_are_answered(mall_model, host, status):
    client = visit(service.build_app(mall_model, ["*.example.com", "shop.example.org"]))
    for path in ("/", "/clusters", "/static/page.js", "/nothing"):
        wanted = 404 if (path, status) == ("/nothing", 200) else status
        assert client.get(path, headers={"Host": host}).status_code == wanted
    everyone = visit(service.build_app(mall_model, ["*"]))
    assert everyone.get("/clusters", headers={"Host": "evil.net"}).status_code == 200


@pytest.mark.parametrize("host", ["http://a.example.com", "a.example.com:80", "a.*", "*a"])
def test_a_host_that_can_never_match_is_refused(mall_model, host, capfd):
    assert main(["serve", "--run", str(mall_model), "--allowed-host", host]) == 2
    assert f"{host} is no host; give a name without a port" in capfd.readouterr().err


def test_a_server_of_ones_own_reads_the_run_from_the_environment(mall_model, monkeypatch):
    monkeypatch.setenv("SEGMENTATION_RUN", str(mall_model))
    monkeypatch.setenv("SEGMENTATION_ALLOWED_HOST", "a.example.com b.example.com")
    client = visit(service.create_app())
    assert client.get("/health").json()["run_id"] == runs.Run(mall_model).manifest.run_id
    assert client.get("/health", headers={"Host": "b.example.com"}).status_code == 200
    assert client.get("/health", headers={"Host": "evil.net"}).status_code == 400


def test_the_image_takes_in_all_that_is_installed():
    built = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    lies = built.get("package-dir", {})
    packages = {lies.get(name, name).split(".")[0] for name in built["packages"]}
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    taken = {line[1:] for line in lines if line.startswith("!")}
    assert taken >= {*packages, "pyproject.toml", "README.md", "LICENSE", "requirements.lock"}
    image = (ROOT / "Dockerfile").read_text("utf-8")
    assert "--require-hashes" in image
    assert image.index("USER segmentation") < image.index("ENTRYPOINT")


# Watching


def test_every_reply_has_an_id_and_safe_headers(client):
    reply = client.get("/clusters", headers={"X-Request-ID": "abc-1"})
    assert reply.headers["x-request-id"] == "abc-1"
    odd = client.get("/clusters", headers={"X-Request-ID": "<script>"})
    assert re.fullmatch("[0-9a-f]{32}", odd.headers["x-request-id"])
    for path in ("/", "/docs", "/clusters", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    for path in ("/", "/docs"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy


def test_log_and_metrics_hold_no_customer_data(client, caplog):
    with caplog.at_level("INFO", logger="segmentation.service"):
        client.post("/predict", json=CUSTOMER | {"CustomerID": "secret-77"})
        client.post("/predict?secret-78=1", json={"secret-79": 1})
        client.get("/secret-80")
    lines = [record.getMessage() for record in caplog.records]
    assert [re.sub(r" [\d.]+ ms \w+$", "", line) for line in lines] == [
        "POST /predict 200",
        "POST /predict 422",
        "GET other 404",
    ]
    metrics = client.get("/metrics").text
    assert "secret" not in metrics
    assert 'segmentation_customers_total{status="ok"}' in metrics
    assert 'segmentation_requests_total{method="POST",route="/predict",status="422"}' in metrics


def test_the_documentation_asks_for_nothing_elsewhere(client):
    page = client.get("/docs").text
    names = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert names
    assert all(client.get(f"/{name}").status_code == 200 for name in names)


def test_the_documented_paths_are_those_that_are_served(client):
    api = client.get("/openapi.json").json()
    own = {"/", "/docs", "/map", "/metrics", "/static/style.css"}
    served = {route.path for route in service.router.routes} - own
    assert set(api["paths"]) == served
    example = api["components"]["schemas"]["Customer"]["example"]
    answer = api["components"]["schemas"]["Answer"]["example"]
    assert client.post("/predict", json=example).json() == answer


# The real server


class running:
    """A server process on a free port; its address."""

    def __init__(self, run, *options, script=("-m", "segmentation"), **how):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [*script, "serve", "--run", run, "--port", self.port, *options]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        command = [sys.executable, *map(str, command)]
        self.process = subprocess.Popen(command, stderr=self.log, **how)

    def __enter__(self):
        address = f"http://127.0.0.1:{self.port}"

        def answers():
            try:
                urllib.request.urlopen(f"{address}/health")
            except urllib.error.HTTPError:
                return True
            except OSError:
                return False
            return True

        assert wait_for(answers, 300)
        return address

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def read_log(self):
        self.log.seek(0)
        return self.log.read()


@pytest.mark.parametrize("examples", [1, pytest.param(30, marks=pytest.mark.long)])
def test_the_api_keeps_to_its_schema_whatever_is_sent(examples, address, tmp_path):
    options = ["--checks=all", "--mode=all", "--seed=1", "--workers=1"]
    options += [f"--max-examples={examples}"]
    options += ["--generation-database=none", "--report-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "csv_hook", "PYTHONPATH": str(HERE)},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]


def test_two_hundred_at_once_get_their_own_answers(address, clustered):
    rows = as_json(clustered)
    with httpx.Client(
        limits=httpx.Limits(max_connections=200), timeout=300
    ) as http, concurrent.futures.ThreadPoolExecutor(50) as pool:  # fmt: skip
        replies = list(pool.map(lambda row: http.post(f"{address}/predict", json=row), rows))
    assert [reply.json()["cluster"] for reply in replies] == list(clustered["cluster"])


def accepts(host, port):
    try:
        socket.create_connection((host, port)).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("path", "status"), [("/predict", 413), ("/nothing", 404), ("/clusters", 405)]
)
def test_a_client_reads_the_answer_to_a_body_that_is_too_large(address, path, status):
    with pytest.raises(urllib.error.HTTPError) as refused:  # it sends all, then reads
        urllib.request.urlopen(f"{address}{path}", b" " * 14_000_000, timeout=60)
    assert refused.value.status == status
    assert json.load(refused.value)["detail"]


def connect(address, head):
    """A connection on which a request has begun."""
    line = socket.create_connection(address.removeprefix("http://").split(":"), timeout=60)
    line.sendall(f"{head}\r\nHost: localhost\r\n".encode())
    return line


def test_who_waits_to_be_asked_for_a_large_body_is_told_at_once(address):
    with connect(address, "POST /predict HTTP/1.1") as line:
        line.sendall(b"Content-Length: 14000000\r\nExpect: 100-continue\r\n\r\n")
        assert line.recv(99).startswith(b"HTTP/1.1 413")


def test_a_body_that_comes_too_slowly_ends_in_408(app, monkeypatch):
    monkeypatch.setattr(service, "PATIENCE", 0.01)

    async def drip():
        yield b"{"
        await asyncio.sleep(60)

    async def post():
        local = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=local, base_url="http://localhost") as http:
            return await http.post("/predict", content=drip())

    # in a thread of its own: a browser's loop may run in this one
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        reply = pool.submit(asyncio.run, post()).result()
    assert (reply.status_code, reply.headers["connection"]) == (408, "close")


def test_connections_that_stand_still_make_room_and_are_closed(mall_model):
    bounds = "server.MOST_CONNECTIONS = 20", "server.SWEEP = 20", "service.PATIENCE = 600"
    server = running(mall_model, script=run_with(*bounds))
    with server as address, ExitStack() as stack:
        lines = [stack.enter_context(connect(address, "POST /predict HTTP/1.1")) for _ in range(60)]
        with connect(address, "POST /predict HTTP/1.1") as slow:  # its body is not the head's
            slow.sendall(b"Content-Length: 99\r\n\r\n{")
            for _ in range(3):
                assert httpx.post(f"{address}/predict", json=CUSTOMER).status_code == 200
            held = Path(f"/proc/{server.process.pid}/fd")
            assert len([*held.iterdir()]) < 60
            for line in lines:
                with suppress(ConnectionError):
                    assert line.recv(1) == b""
            slow.sendall(b" " * 98)
            assert slow.recv(12) == b"HTTP/1.1 422"


def test_who_goes_away_in_the_midst_is_no_error_of_ours(mall_model):
    server = running(mall_model)
    with server as address:
        for path in ("/predict", "/predict_file"):
            with connect(address, f"POST {path} HTTP/1.1") as line:
                line.sendall(b"Content-Length: 99\r\n\r\n{")
            assert wait_for(lambda path=path: f"POST {path} 400" in server.read_log())
        assert "Traceback" not in server.read_log()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)],
)
def test_a_stop_lets_what_is_being_answered_finish(mall_model, number, code):
    server = running(mall_model)
    with server as address:
        host, port = address.removeprefix("http://").split(":")
        body = json.dumps(CUSTOMER).encode()
        with socket.create_connection((host, int(port))) as line:
            head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            line.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n" + body[:10])
            with line.makefile("rb") as reply:
                assert reply.readline() == b"HTTP/1.1 100 Continue\r\n"  # it reads the body
                server.process.send_signal(number)
                assert wait_for(lambda: not accepts(host, int(port)))
                line.sendall(body[10:])
                assert b'"cluster":1' in reply.read()
        assert server.process.wait(120) == code
        assert "Traceback" not in server.read_log()


def run_with(*bounds):
    """A script that serves with other bounds than usual."""
    rooms, start = "from segmentation.serving import server, service", "raise SystemExit(main())"
    return "-c", "; ".join([rooms, *bounds, "from segmentation.__main__ import main", start])


def test_batches_on_their_way_at_a_stop_are_all_answered(mall_model):
    body = json.dumps([CUSTOMER] * 10_000).encode()
    begun = threading.Barrier(21, timeout=60)

    def ask(address):
        with connect(address, "POST /predict HTTP/1.1") as line:
            line.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode())
            begun.wait()
            line.sendall(body)
            with line.makefile("rb") as reply:
                return reply.readline(), reply.read().count(b'"cluster":1')

    bounds = "server.LINGER = 60", "server.GRACE = 120"  # however busy the machine is
    server = running(mall_model, script=run_with(*bounds))
    with server as address:
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            asked = [pool.submit(ask, address) for _ in range(20)]
            begun.wait()
            server.process.terminate()
            replies = [each.result() for each in asked]
        assert replies == [(b"HTTP/1.1 200 OK\r\n", 10_000)] * 20


def test_a_file_that_is_being_scored_holds_up_no_stop(mall_model, tmp_path):
    rows = "20;30;40\n" * 3_000_000
    content = f"Age;Annual Income;Spending Score\n{rows}".encode()
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    server = running(mall_model, script=run_with("server.GRACE = 1"), env=environment)
    with server as address, concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.post, f"{address}/predict_file", content=content, timeout=300)
        assert wait_for(lambda: [*tmp_path.glob("segmentation-*/.scored.csv.partial")])
        server.process.terminate()
        assert server.process.wait(60) == 143
        assert asked.result().status_code == 503
        assert "was stopped" in asked.result().json()["reason"]
        assert "Traceback" not in server.read_log()
        assert not [*tmp_path.glob("segmentation-*")]


def test_modules_of_the_current_folder_take_no_effect_on_a_file(mall_model, tmp_path):
    script, folder = tmp_path / "start.py", tmp_path / "work"
    start = "from segmentation.__main__ import main\nif __name__ == '__main__':\n    main()"
    script.write_text(start, "utf-8")
    folder.mkdir()
    for name in ("csv", "pandas", "signal"):
        (folder / f"{name}.py").write_text("raise SystemExit('a stranger')", "utf-8")
    server = running(mall_model, script=[script], cwd=folder)
    with server as address:
        content = b"Age,Annual Income,Spending Score\n20,30,40\n"
        reply = httpx.post(f"{address}/predict_file", content=content, timeout=300)
        assert reply.status_code == 200
        assert "a stranger" not in server.read_log()


def test_a_port_that_is_taken_is_told(mall_model, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--run", str(mall_model), "--port", port]) == 2
    told = capfd.readouterr().err
    assert f"127.0.0.1:{port}: " in told
    assert "name another by --host or --port" in told
    assert "Traceback" not in told
