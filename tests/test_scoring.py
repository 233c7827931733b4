"""Files through `segmentation score`: whole or not at all, the series' answers, streamed."""

import copy
import dataclasses
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from segmentation import InputError
from segmentation.__main__ import main
from segmentation.customers.card import OURS
from segmentation.runs import folder as runs
from segmentation.serving import Unwritable
from segmentation.serving import batch as scoring

HEADER = "CustomerID,Gender,Age,Annual Income (k$),Spending Score (1-100)\n"
ADDED = ["cluster", "segment", "distance", "second", "confidence", "status"]


@pytest.fixture(scope="module")
def model(mall_model):
    return scoring.load_model(mall_model)


@pytest.fixture(scope="module")
def clustered(mall_model):
    return runs.Run(mall_model).read_table("clustered_data.csv", text=("CustomerID",))


def score(model, tmp_path, content, name="customers.csv", out="scored.csv", **options):
    source = tmp_path / name
    if isinstance(content, pd.DataFrame):
        content.to_parquet(source, index=False)
    else:
        source.write_bytes(content if isinstance(content, bytes) else content.encode())
    tally = scoring.score_file(source, tmp_path / out, model, **options)
    return tally, tmp_path / out


def read(path):
    return pd.read_csv(path, dtype={"CustomerID": str}, keep_default_na=False, na_values=[""])


def test_every_clustered_row_comes_back_in_its_segment(mall_model, clustered, tmp_path, capsys):
    source, target = mall_model / "tables" / "clustered_data.csv", tmp_path / "scored.csv"
    assert main(["score", str(source), "-o", str(target), "--run", str(mall_model)]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[-1] == str(target)
    assert "200 customers by the model of" in told
    assert "65  32.5%  Older" in told
    scored = read(target)
    assert list(scored.columns) == list(clustered.columns)
    for name in ("CustomerID", "Gender", "cluster", "segment", "second", "status"):
        assert list(scored[name]) == list(clustered[name])
    for name in ("distance", "confidence"):
        np.testing.assert_allclose(scored[name], clustered[name], rtol=1e-9, atol=1e-12)


def test_parquet_in_and_out_says_the_same(model, clustered, tmp_path):
    tally, target = score(model, tmp_path, clustered, name="a.parquet", out="b.parquet")
    scored = pd.read_parquet(target)
    assert list(scored["cluster"]) == list(clustered["cluster"])
    assert tally.rows == 200
    assert tally.segments == {0: 65, 1: 57, 2: 40, 3: 38}
    assert tally.statuses["borderline"] == (clustered["status"] == "borderline").sum()


def test_other_columns_and_texts_stay_as_they_are(model, tmp_path):
    text = HEADER.replace("\n", ",e-mail,Note\n") + '007,F,20,30.50,40,a@b.example,"x, ""y"""\n'
    _, target = score(model, tmp_path, text)
    assert (
        target.read_text("utf-8")
        .splitlines()[1]
        .startswith('"007","F",20,30.5,40,"a@b.example","x, ""y""",1,')
    )


def test_texts_that_a_spreadsheet_would_run_are_disarmed(model, tmp_path):
    text = HEADER.replace("\n", ",=Note\n") + "1,F,20,30,40,=cmd|' /C calc'!A0\n2,F,20,30,40,-5.2\n"
    _, target = score(model, tmp_path, text)
    scored = read(target)
    assert list(scored["'=Note"]) == ["'=cmd|' /C calc'!A0", "-5.2"]


def test_one_segment_makes_a_list_for_a_campaign(model, clustered, tmp_path):
    content = clustered.drop(columns=[*OURS]).to_csv(index=False)
    for wanted in ("older", "0"):
        tally, target = score(model, tmp_path, content, segment=wanted)
        assert list(read(target)["CustomerID"]) == list(
            clustered.loc[clustered["segment"] == "Older", "CustomerID"]
        )
        assert tally.rows == 200
    with pytest.raises(InputError, match=r"segment Oldre is not known; did you mean Older\?"):
        score(model, tmp_path, content, segment="Oldre")


PLAIN = HEADER + "1,F,20,30,40\n2,M,55,,10\n3,F,33,120,90.5\n"


def test_links_are_followed_and_modes_kept(model, tmp_path):
    (tmp_path / "kept.csv").touch(0o600)
    (tmp_path / "link.csv").symlink_to("kept.csv")
    score(model, tmp_path, PLAIN, out="link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "kept.csv").stat().st_mode & 0o777 == 0o600
    assert len(read(tmp_path / "kept.csv")) == 3
    (tmp_path / "folder").mkdir()
    with pytest.raises(Unwritable):
        score(model, tmp_path, PLAIN, out="folder")
    assert (tmp_path / "folder").is_dir()


def test_a_pipe_and_a_device_get_the_rows_alone(model, mall_model, tmp_path):
    score(model, tmp_path, PLAIN, out="file.csv")
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(pipe.read_bytes)
        score(model, tmp_path, PLAIN, out="pipe.csv")
        assert got.result(timeout=60) == (tmp_path / "file.csv").read_bytes()
    assert pipe.is_fifo()
    source = tmp_path / "plain.csv"
    source.write_text(PLAIN)
    command = [sys.executable, "-m", "segmentation", "score", source, "-o", "/dev/stdout"]
    command += ["--run", mall_model]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    assert len(done.stdout.splitlines()) == 4
    assert not done.stderr


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        "Export of October\n\n" + PLAIN,
        PLAIN + "Total,,108,150,140\n",
        PLAIN.replace("1,F", "\n1,F") + ",,,,\n",
        PLAIN.replace("\n", "\r\n"),
        "\ufeff" + PLAIN,
        PLAIN.replace("20,30", "20,$30").replace("120", "$120"),
        PLAIN.replace(",,", ",n/a,"),
        PLAIN.replace(",,", ", ,").replace("F,20,", "F, 20 ,"),
        PLAIN.replace("33,120", '33,"1.2e2"'),
        PLAIN.replace("Age", "AGE").replace("Annual Income (k$)", "annual_income"),
        PLAIN.encode("utf-16"),
        PLAIN.replace(",", ";").replace("90.5", "90,5"),
    ],
)
def test_whatever_the_series_reads_is_read_alike(model, tmp_path, text):
    _, plain = score(model, tmp_path, PLAIN, out="plain.csv")
    _, other = score(model, tmp_path, text, out="other.csv")
    columns = ["CustomerID", "Gender", *ADDED]
    pd.testing.assert_frame_equal(read(plain)[columns], read(other)[columns])


CELLS = [
    *("20", " 20", "20.0", "2e1", "+20", "-", "", "n/a", "NaN", "inf", "1e999", "0x14", "2_0"),
    *("20,0", "1,234", "$20", "20%", "٢٠", "−5", "--5", "20 000", "=1+1", "1d1", "twenty", "1e"),
]


@pytest.mark.parametrize("cell", CELLS)
def test_stream_and_series_read_a_cell_alike(model, tmp_path, cell):
    """The quick reader takes a cell as the series does, or leaves it to the series."""
    source = tmp_path / "customers.csv"
    source.write_text(f'Age,Annual Income,Spending Score\n30,40,50\n"{cell}",40,50\n', "utf-8")

    def values(reader):
        try:
            return np.hstack([[*batch.numbers.values()] for batch in reader(source, model)])
        except scoring._NotPlain:
            return "left"
        except InputError:
            return "refused"

    quick, slow = values(scoring._stream), values(scoring._read_whole)
    if not isinstance(quick, str):
        np.testing.assert_array_equal(quick, slow)
    else:
        assert quick == "left"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "customers.csv is empty"),
        (HEADER.replace("\n", ",x" * 3_000) + "\n", "3,005 columns"),
        (HEADER, "customers.csv has no customers"),
        ("a,b\n1,2\n", "customers.csv: column Age is missing"),
        (HEADER + "1,F,x,30,40\n", r"column Age: 1 values are not numbers \('x' in line 2\)"),
        (HEADER + "1,F,20,30\n2,F,20,30,40,50,60\n", "rows have more cells than the header's 5"),
        (HEADER + "1,F,20,30,40\n\n2,F,500,-1,40\n", "customers.csv, line 4, Age: is out of range"),
        (HEADER + '1,"F\nF",20,30,40\n2,F,-1,30,40\n', "customers.csv, line 4, Age"),
        ("PK\x03\x04", "is no CSV but an Excel or zip file"),
    ],
)
def test_a_refused_file_writes_nothing_and_keeps_the_last(model, tmp_path, text, message):
    (tmp_path / "scored.csv").write_text("the last good list")
    with pytest.raises(InputError, match=message):
        score(model, tmp_path, text)
    assert (tmp_path / "scored.csv").read_text() == "the last good list"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["customers.csv", "scored.csv"]


def test_many_problems_are_counted(model, tmp_path):
    with pytest.raises(InputError) as refused:
        score(model, tmp_path, HEADER + "1,F,500,30,40\n" * 100)
    assert len(str(refused.value).splitlines()) == 21
    assert str(refused.value).endswith("… and 80 more.")


def test_a_place_that_cannot_be_written_is_told(model, tmp_path):
    with pytest.raises(InputError, match=r"no/scored\.csv: No such file or directory"):
        score(model, tmp_path, PLAIN, out="no/scored.csv")
    with pytest.raises(InputError, match="would overwrite its own source"):
        score(model, tmp_path, PLAIN, out="customers.csv")


def test_the_command_refuses_in_a_line(tmp_path, capsys):
    options = ["-o", str(tmp_path / "x.csv"), "--run", str(tmp_path)]
    assert main(["score", str(ROOT / "data/raw/Mall_Customers.csv"), *options]) == 2
    told = capsys.readouterr().err
    assert told == f"{tmp_path}: no published run there; run `segmentation run` first.\n"


@pytest.mark.long
def test_other_cards_score_their_own_customers(play_once, tmp_path):
    folder = play_once("webshop", "data/webshop_customers.yaml", k=4)
    clustered = runs.Run(folder).read_table("clustered_data.csv")
    target = tmp_path / "scored.csv"
    scoring.score_file(folder / "tables/clustered_data.csv", target, scoring.load_model(folder))
    scored = pd.read_csv(target)
    assert list(scored["cluster"]) == list(clustered["cluster"])
    assert list(scored["status"]) == list(clustered["status"])


CODED = """
title: Coded
table: coded.csv
id: id
features: {spent: {transform: log, outliers: drop}, age: {missing: drop, range: [0, 120]}}
descriptors: {city: {weight: 1.0, levels: {Bonn: [BN], Köln: [K]}}, plan: {}}
"""


@pytest.fixture(scope="module")
def coded(tmp_path_factory, play_once):
    folder = tmp_path_factory.mktemp("coded")
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "id": [f"c{i}" for i in range(300)],
            "spent": rng.lognormal(3, 1.2, 300).round(2),
            "age": np.where(rng.random(300) < 0.04, np.nan, rng.integers(18, 80, 300)),
            "city": rng.choice(["BN", "köln", ""], 300, p=[0.5, 0.45, 0.05]),
            "plan": rng.choice(["a", "b"], 300),
        }
    )
    frame.loc[:3, "spent"] = 1e7
    frame.to_csv(folder / "coded.csv", index=False)
    (folder / "coded.yaml").write_text(CODED, "utf-8")
    return play_once("coded", folder / "coded.yaml", k=3), folder / "coded.csv"


def test_policies_and_codings_hold_as_in_the_series(coded, tmp_path):
    folder, source = coded
    clustered = runs.Run(folder).read_table("clustered_data.csv")
    assert {"dropped", "ok"} <= set(clustered["status"])
    target = tmp_path / "scored.csv"
    scoring.score_file(source, target, scoring.load_model(folder))
    scored = pd.read_csv(target)
    assert list(scored["status"]) == list(clustered["status"])
    pd.testing.assert_series_equal(
        scored["cluster"].astype("Int64"), clustered["cluster"], check_names=False
    )


def test_the_service_answers_the_same_under_policies_and_codings(coded):
    from fastapi.testclient import TestClient

    from segmentation.serving import service

    folder, _ = coded
    clustered = runs.Run(folder).read_table("clustered_data.csv")
    client = TestClient(service.build_app(folder), base_url="http://localhost")
    rows = json.loads(clustered.to_json(orient="records", double_precision=15))
    answers = client.post("/predict", json=rows).json()
    assert [a["status"] for a in answers] == list(clustered["status"])
    told = [a["cluster"] for a in answers]
    assert pd.array(told, dtype="Int64").equals(clustered["cluster"].array)
    dropped = answers[told.index(None)]
    assert dropped == dict.fromkeys(dropped, None) | {"status": "dropped"}
    assert any(r["feature"] == "city" for a in answers for r in a["why"] or [])
    odd = client.post("/predict", json={"age": 30, "spent": 5, "city": "Ulm"}).json()
    assert odd["detail"] == [
        {"row": 0, "field": "city", "message": "is not a known level", "allowed": "Bonn, Köln"}
    ]
    for city in ("bn", "Bonn", None):
        reply = client.post("/predict", json={"age": 30, "spent": 5, "city": city})
        assert reply.status_code == 200


def test_an_unknown_coding_in_a_file_is_refused(coded, tmp_path):
    folder, _ = coded
    with pytest.raises(InputError, match="column city: every value must be one of Bonn, Köln"):
        score(scoring.load_model(folder), tmp_path, "id,spent,age,city\n1,5,30,Ulm\n")


def test_a_long_file_is_streamed_in_constant_memory(mall_model, tmp_path):
    """Four times the rows take hardly more memory."""
    peaks = []
    for rows in (150_000, 600_000):
        source = tmp_path / f"{rows}.csv"
        source.write_text(HEADER + "123456,Female,20,30,40\n" * rows)
        code = (
            "import resource, sys; from segmentation.__main__ import main;"
            "code = main(sys.argv[1:]);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
        )
        command = ["score", str(source), "-o", str(tmp_path / "o.csv"), "--run", str(mall_model)]
        done = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 60_000  # KiB; the larger file has 14 MB, its columns far more
    assert (tmp_path / "o.csv").stat().st_size > 40_000_000


def test_another_encoding_or_sheet_has_the_same_way_out(model, tmp_path):
    content = (HEADER + "J\u00f6,Female,21,30,80\n").encode("cp1252")
    with pytest.raises(InputError, match="run again with `--encoding cp1252`"):
        score(model, tmp_path, content)
    tally, target = score(model, tmp_path, content, encoding="cp1252")
    assert tally.rows == 1
    assert read(target)["CustomerID"].tolist() == ["J\u00f6"]
    table = pd.read_csv(io.StringIO(HEADER + "1,Female,21,30,80\n" * 12))
    book = tmp_path / "book.xlsx"
    with pd.ExcelWriter(book) as sheets:
        for name, ages in (("May", 21), ("June", 65)):
            table.assign(CustomerID=range(12), Age=ages).to_excel(
                sheets, sheet_name=name, index=False
            )
    with pytest.raises(InputError, match=r"'May', 'June'; name one by .*`--sheet 'May'`"):
        score(model, tmp_path, book.read_bytes(), "two.xlsx")
    _, target = score(model, tmp_path, book.read_bytes(), "two.xlsx", sheet="June")
    assert read(target)["Age"].tolist() == [65] * 12


def test_what_the_card_calls_nothing_is_a_gap_here_too(model, tmp_path):
    features = dict(model.scorer.card.features)
    features["Age"] = features["Age"].model_copy(update={"missing_values": ["-1", "tbd"]})
    card = model.scorer.card.model_copy(update={"features": features})
    scorer = copy.copy(model.scorer)
    scorer.card = card
    told = dataclasses.replace(model, scorer=scorer)
    rows = "1,Female,{},30,80\n"
    results = [score(told, tmp_path, HEADER + rows.format(age))[1] for age in ("-1", "tbd", "")]
    one, two, three = (read(path)[ADDED].to_numpy().tolist() for path in results)
    assert one == two == three
