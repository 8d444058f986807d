"""Whole runs in this process: formats, kept columns, bad rows, scripts."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from scoring.errors import InputError, ScoringFailedError, UnknownInputError
from tests.support.batching import Answering, Scripted, plan_of, rows_of, run
from tests.support.small_models import Columns

ROWS = [{"id": n, "left": n / 4, "right": (97 * n % 100) / 4} for n in range(50)]
EXPECTED = ["left" if row["left"] > row["right"] else "right" for row in ROWS]


def write(folder: Path, name: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = folder / name
    if ".parquet" in name:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    elif ".csv" in name:
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("output", ["out.parquet", "out.csv", "out.jsonl", "folder"])
@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.jsonl"])
def test_every_format_to_every_format(tmp_path: Path, name: str, output: str) -> None:
    source = write(tmp_path, name)
    summary = run(Answering(), source, tmp_path / output, keep=("id",), shard_rows=15, call_rows=4)
    assert (summary.rows, summary.written, summary.rejected) == (50, 50, 0)
    rows = rows_of(tmp_path / output)
    assert [int(row["id"]) for row in rows] == list(range(50))
    assert [row["prediction"] for row in rows] == EXPECTED
    assert list(rows[0]) == ["id", "prediction", "probability_left", "probability_right"]
    assert [float(row["probability_left"]) == 1 for row in rows] == [e == "left" for e in EXPECTED]


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".gz", gzip.compress),
        (".zst", zstandard.ZstdCompressor().compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
    ],
)
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_packed_files(tmp_path: Path, name: str, suffix: str, pack: Any) -> None:
    plain = write(tmp_path, name)
    packed = tmp_path / f"{name}{suffix}"
    packed.write_bytes(pack(plain.read_bytes()))
    run(Answering(), packed, tmp_path / "out.csv", keep=("id",), shard_rows=10)
    assert [row["prediction"] for row in rows_of(tmp_path / "out.csv")] == EXPECTED


def test_a_packed_file_that_is_cut_off_is_told(tmp_path: Path) -> None:
    packed = tmp_path / "rows.csv.gz"
    packed.write_bytes(gzip.compress(write(tmp_path, "rows.csv").read_bytes())[:-20])
    with pytest.raises(InputError, match="cannot be unpacked"):
        run(Answering(), packed, tmp_path / "out.csv")


def test_folders_and_globs_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in (2, 0, 1):
        write(folder, f"{number}.csv", ROWS[number * 10 : number * 10 + 10])
    (folder / "_SUCCESS").write_text("")
    (folder / ".hidden.csv").write_text("no")
    for place in (folder, folder / "*.csv"):
        output = tmp_path / f"out-{place.name}.csv"
        run(Answering(), place, output, keep=("id",))
        assert [int(row["id"]) for row in rows_of(output)] == list(range(30))


def bad(folder: Path, name: str) -> Path:
    rows: list[dict[str, Any]] = [dict(row) for row in ROWS[:10]]
    rows[3]["left"] = None
    rows[7]["right"] = None
    path = write(folder, name, rows)
    if name.endswith("csv"):
        path.write_text(path.read_text().replace("None", ""))
    return path


@pytest.mark.parametrize(
    ("name", "places"), [("b.csv", [5, 9]), ("b.jsonl", [4, 8]), ("b.parquet", [4, 8])]
)
def test_bad_rows_are_left_out_and_listed(tmp_path: Path, name: str, places: list[int]) -> None:
    out = tmp_path / "out.jsonl"
    summary = run(Answering(), bad(tmp_path, name), out, keep=("id",), on_error="skip", call_rows=4)
    assert (summary.rows, summary.written, summary.rejected) == (10, 8, 2)
    assert [int(row["id"]) for row in rows_of(out)] == [0, 1, 2, 4, 5, 6, 8, 9]
    rejects = rows_of(summary.rejects)
    unit = "row" if name.endswith("parquet") else "line"
    assert [each[unit] for each in rejects] == places
    assert [each["column"] for each in rejects] == ["left", "right"]
    assert {each["code"] for each in rejects} == {"missing_value"}
    assert all(each["file"].endswith(name) and each["reason"] for each in rejects)


@pytest.mark.parametrize("name", ["b.csv", "b.jsonl", "b.parquet"])
@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.parquet"])
def test_bad_rows_become_null(tmp_path: Path, name: str, output: str) -> None:
    out = tmp_path / output
    summary = run(Answering(), bad(tmp_path, name), out, keep=("id",), on_error="null")
    assert (summary.written, summary.rejected) == (10, 2)
    rows = rows_of(out)
    assert [int(row["id"]) for row in rows] == list(range(10))
    wanted: list[str | None] = [*EXPECTED[:10]]
    wanted[3] = wanted[7] = "" if output.endswith("csv") else None
    assert [row["prediction"] for row in rows] == wanted


@pytest.mark.parametrize("name", ["b.csv", "b.jsonl"])
def test_a_bad_row_of_text_is_told_before_any_work(tmp_path: Path, name: str) -> None:
    model = Answering()
    with pytest.raises(UnknownInputError) as caught:
        run(model, bad(tmp_path, name), tmp_path / "out.csv")
    first, second = (5, 9) if name == "b.csv" else (4, 8)
    assert f"line {first}: Column 'left'" in caught.value.message
    assert f"line {second}: Column 'right'" in caught.value.message
    assert model.asked == []
    assert not (tmp_path / "out.csv").exists()


def test_a_bad_row_further_on_ends_the_run_and_is_named(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in ROWS * 10]
    source = write(tmp_path, "rows.csv", rows)
    text = source.read_text().splitlines()
    text[321] = "1,2,x"
    source.write_text("\n".join(text))
    with pytest.raises(InputError, match=r"rows\.csv, line 322: Column 'right'.*'x'") as caught:
        run(Answering(), source, tmp_path / "out.csv")
    assert caught.value.where == f"{source}:322"


def test_ragged_lines_are_bad_rows(tmp_path: Path) -> None:
    source = tmp_path / "r.csv"
    source.write_text('left,right\n1,2\n3\n4,5,6\n7,"8\n9"\n10,11\n')
    out = tmp_path / "o.csv"
    summary = run(Answering(), source, out, on_error="skip", keep=("left",))
    assert [row["left"] for row in rows_of(out)] == ["1", "10"]
    told = {each["line"]: each["reason"] for each in rows_of(summary.rejects)}
    assert told[3].startswith("The line has 1 cell; the header has 2.")
    assert told[4].startswith("The line has 3 cells")
    assert told[5].startswith("Column 'right'")  # of a record on two lines, the first


def test_columns_of_every_kind(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "007", "note": None, "count": 2**53 + 1, "size": None, "known": True},
        {"name": 'ä,"b"\n', "note": "x", "count": -(2**63), "size": 1e-300, "known": False},
        {"name": "z", "note": "y", "count": 2**63 - 1, "size": 0.1, "known": True},
    ]
    parquet, lines = write(tmp_path, "a.parquet", rows), write(tmp_path, "a.jsonl", rows)
    cells = tmp_path / "a.csv"
    cells.write_text(
        "name,note,count,size,known\n"
        f"007,,{2**53 + 1},,true\n"
        f'"ä,""b""\n",x,{-(2**63)},1e-300,False\n'
        f"z,y,{2**63 - 1},0.1,1\n"
    )
    for source in (parquet, lines, cells):
        out = tmp_path / f"{source.name}.jsonl"
        run(Answering(Columns()), source, out)
        assert [row["prediction"] for row in rows_of(out)] == [
            f"007|None|{2**53 + 1}|nan|True",
            f'ä,"b"\n|x|{-(2**63)}|1e-300|False',
            f"z|y|{2**63 - 1}|0.1|True",
        ]


def test_kept_columns_keep_their_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "left": [1.0, 2.0],
            "right": pa.array([3, 1], pa.int8()),
            "day": pa.array([dt.date(2024, 2, 29), None]),
            "when": pa.array([dt.datetime(2024, 1, 1, 12), None], pa.timestamp("us", "UTC")),  # noqa: DTZ001
            "wide": pa.array([2**64 - 1, None], pa.uint64()),
            "many": [[1, 2], []],
            "kind": pa.array(["a", "b"]).dictionary_encode(),
        }
    )
    source = tmp_path / "a.parquet"
    pq.write_table(table, source)
    keep = ("day", "when", "wide", "many", "kind")
    run(Answering(), source, tmp_path / "o.parquet", keep=keep)
    found = pq.read_table(tmp_path / "o.parquet")
    assert found.select(keep).to_pylist() == table.select(keep).to_pylist()
    assert [found.schema.field(n).type for n in keep] == [table.schema.field(n).type for n in keep]
    run(Answering(), source, tmp_path / "o.csv", keep=keep)
    first = rows_of(tmp_path / "o.csv")[0]
    assert first["day"] == "2024-02-29"
    assert first["when"] == "2024-01-01T12:00:00+00:00"
    assert (first["wide"], first["many"]) == (str(2**64 - 1), "[1,2]")
    run(Answering(), source, tmp_path / "o.jsonl", keep=keep)
    assert rows_of(tmp_path / "o.jsonl")[0]["wide"] == 2**64 - 1


def test_wide_whole_numbers_of_json_stay_exact(tmp_path: Path) -> None:
    rows = [{"left": 1, "right": 2, "id": 2**60 + n} for n in range(3)]
    source = write(tmp_path, "a.jsonl", rows)
    for name in ("o.parquet", "o.jsonl", "o.csv"):
        run(Answering(), source, tmp_path / name, keep=("id",))
        assert [int(row["id"]) for row in rows_of(tmp_path / name)] == [row["id"] for row in rows]


def test_columns_by_their_names_in_any_order_or_as_told(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("right,x,left,y\n1,5,2,6\n")
    run(Answering(), source, tmp_path / "o.csv")
    assert rows_of(tmp_path / "o.csv")[0]["prediction"] == "left"
    run(Answering(), source, tmp_path / "p.csv", columns=("x", "y"), prefix="my_")
    assert rows_of(tmp_path / "p.csv")[0]["my_prediction"] == "right"


def test_lines_that_are_lists_go_by_their_order(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("[3, 1]\n[1, 3]\n\n[2, 1]\n")
    run(Answering(), source, tmp_path / "o.jsonl")
    found = [row["prediction"] for row in rows_of(tmp_path / "o.jsonl")]
    assert found == ["left", "right", "left"]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", b"\xef\xbb\xbfleft,right,n\n1,2,\xc3\xa4\n"),
        ("utf-8-sig", b"\xef\xbb\xbfleft,right,n\r\n1,2,\xc3\xa4\r\n"),
        ("latin-1", b"left,right,n\n1,2,\xe4"),
    ],
)
def test_encodings(tmp_path: Path, encoding: str, text: bytes) -> None:
    source = tmp_path / "a.csv"
    source.write_bytes(text)
    run(Answering(), source, tmp_path / "o.csv", keep=("n",), encoding=encoding)
    assert [row["n"] for row in rows_of(tmp_path / "o.csv")] == ["ä"]


def test_a_line_in_another_encoding_is_a_bad_row(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_bytes(b"left,right,n\n1,2,a\n1,2,\xe4\n2,1,b\n")
    summary = run(Answering(), source, tmp_path / "o.csv", keep=("n",), on_error="skip")
    assert [row["n"] for row in rows_of(tmp_path / "o.csv")] == ["a", "b"]
    (reject,) = rows_of(summary.rejects)
    assert reject["line"] == 3
    assert "not utf-8: byte 5 of the line is 0xe4" in reject["reason"]


@pytest.mark.parametrize(
    ("name", "delimiter", "mark"),
    [("a.tsv", "", "\t"), ("a.csv", ";", ";"), ("b.csv", "tab", "\t")],
)
def test_delimiters(tmp_path: Path, name: str, delimiter: str, mark: str) -> None:
    source = tmp_path / name
    source.write_text(f"left{mark}right\n2{mark}1\n")
    run(Answering(), source, tmp_path / "o.csv", delimiter=delimiter)
    assert [row["prediction"] for row in rows_of(tmp_path / "o.csv")] == ["left"]


@pytest.mark.parametrize("output", ["o.csv", "o.jsonl", "o.parquet", "folder"])
@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_dataset_without_rows_gives_a_result_without_rows(
    tmp_path: Path, name: str, output: str
) -> None:
    source = tmp_path / name
    if name == "a.csv":
        source.write_text("left,right\n")
    else:
        pq.write_table(pa.table({"left": pa.array([], "f8"), "right": pa.array([], "f8")}), source)
    assert run(Answering(), source, tmp_path / output).rows == 0
    assert rows_of(tmp_path / output) == []
    if output == "o.csv":
        assert (tmp_path / output).read_text().startswith("prediction,probability_left")


def test_an_empty_file_among_others_counts_for_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a.csv").write_text("")
    write(folder, "b.csv")
    assert run(Answering(), folder, tmp_path / "o.csv").rows == 50


def test_a_script_gets_rows_and_answers_rows(tmp_path: Path) -> None:
    script = Scripted(lambda body: [sum(row[1:]) for row in body["data"]])
    source = tmp_path / "a.csv"
    source.write_text("name,a,b\n007,1,2.5\nx,3,4\n")
    run(script, source, tmp_path / "o.jsonl", keep=(), columns=("name", "a", "b"))
    assert script.bodies[-1] == {"data": [["007", 1, 2.5], ["x", 3, 4]]}
    assert [row["prediction"] for row in rows_of(tmp_path / "o.jsonl")] == [3.5, 7]


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("records", {"rows": [{"a": 1, "b": None}, {"a": 2, "b": True}]}),
        ("split", {"columns": ["a", "b"], "data": [[1, None], [2, True]]}),
    ],
)
def test_forms_of_a_scripts_body(tmp_path: Path, body: Any, wanted: Any) -> None:
    script = Scripted(lambda _: {"label": ["x", "y"], "score": [0.5, 1]})
    source = tmp_path / "a.csv"
    source.write_text("a,b\n1,\n2,true\n")
    run(script, source, tmp_path / "o.parquet", body=body, body_key="rows")
    assert script.bodies[-1] == wanted
    assert rows_of(tmp_path / "o.parquet") == [
        {"label": "x", "score": 0.5},
        {"label": "y", "score": 1.0},
    ]


def test_a_script_that_answers_another_number_of_rows_is_told(tmp_path: Path) -> None:
    source = write(tmp_path, "a.csv")
    with pytest.raises(ScoringFailedError, match="answered 1 entries for 50 rows"):
        run(Scripted(lambda _: [1]), source, tmp_path / "o.csv")


def test_rows_that_a_model_refuses_are_found_among_the_others(tmp_path: Path) -> None:
    class Picky(Answering):
        def predict(self, inputs: Any) -> dict[str, Any]:
            if np.any(inputs["x"][:, 0] == 5.0):
                raise InputError("5 is not among the categories.")
            return super().predict(inputs)

    source = write(tmp_path, "rows.csv")
    out = tmp_path / "o.csv"
    summary = run(Picky(), source, out, keep=("id",), on_error="skip")
    assert summary.rejected == 1
    assert [int(row["id"]) for row in rows_of(out)] == [n for n in range(50) if n != 20]
    assert rows_of(summary.rejects)[0]["line"] == 22
    with pytest.raises(InputError, match="line 22: 5 is not"):
        run(Picky(), source, tmp_path / "p.csv")


def test_the_model_gets_as_many_rows_as_told(tmp_path: Path) -> None:
    model = Answering()
    run(model, write(tmp_path, "rows.csv"), tmp_path / "o.csv", shard_rows=20, call_rows=8)
    assert model.asked == [8, 8, 4, 8, 8, 4, 8, 2]


def test_scored_again_a_shard_is_the_same(tmp_path: Path) -> None:
    source = write(tmp_path, "rows.parquet")
    plan = plan_of(Answering(), source, shard_rows=14)
    assert plan == plan_of(Answering(), source, shard_rows=14)
    assert [(s.start, s.end, s.first) for s in plan.shards] == [
        (0, 2, 1),
        (2, 4, 15),
        (4, 6, 29),
        (6, 8, 43),
    ]
    for name in ("a", "b"):
        run(Answering(), source, tmp_path / name, shard_rows=14)
    parts = [sorted(p.read_bytes() for p in (tmp_path / n).glob("part-*")) for n in ("a", "b")]
    assert parts[0] == parts[1]


def test_what_a_line_of_json_leaves_out_is_null(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(
        '{"count": 2, "known": false, "name": "b"}\n'
        '{"name": "a", "note": "n", "count": 1, "size": 0.5, "known": true}\n'
        '{"name": "c", "known": true}\n'
    )
    summary = run(Answering(Columns()), source, tmp_path / "o.jsonl", on_error="skip")
    found = [row["prediction"] for row in rows_of(tmp_path / "o.jsonl")]
    assert found == ["b|None|2|nan|False", "a|n|1|0.5|True"]
    (reject,) = rows_of(summary.rejects)
    assert (reject["line"], reject["column"]) == (3, "count")


def test_files_may_have_their_columns_in_another_order(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a.csv").write_text("left,right\n2,1\n")
    (folder / "b.csv").write_text("more,right,left\n9,1,2\n")
    run(Answering(), folder, tmp_path / "o.csv")
    assert [row["prediction"] for row in rows_of(tmp_path / "o.csv")] == ["left", "left"]
    script = Scripted(lambda body: [row[0] for row in body["data"]])
    run(script, folder, tmp_path / "p.csv")
    assert [float(row["prediction"]) for row in rows_of(tmp_path / "p.csv")] == [2, 2]
    (folder / "c.csv").write_text("right\n1\n")
    with pytest.raises(UnknownInputError, match=r"c\.csv: missing column 'left'"):
        run(script, folder, tmp_path / "q.csv")


def test_a_kept_column_that_is_there_twice_is_told(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("id,left,right,id\n1,2,3,4\n")
    with pytest.raises(UnknownInputError, match="given twice: column 'id', which --keep names"):
        run(Answering(), source, tmp_path / "o.csv", keep=("id",))


def test_an_answer_that_is_called_like_a_kept_column_is_told(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("prediction,left,right\n1,2,3\n")
    with pytest.raises(UnknownInputError, match="would stand twice in the result"):
        run(Answering(), source, tmp_path / "o.csv", keep=("prediction",))
    run(Answering(), source, tmp_path / "o.csv", keep=("prediction",), prefix="new_")
    assert list(rows_of(tmp_path / "o.csv")[0])[:2] == ["prediction", "new_prediction"]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    source = tmp_path / "a.parquet"
    source.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="is no Parquet file"):
        run(Answering(), source, tmp_path / "o.csv")
    (tmp_path / "a.jsonl").write_text("{")
    with pytest.raises(InputError, match="Line 1: The line is no JSON"):
        run(Answering(), tmp_path / "a.jsonl", tmp_path / "o.csv")
    (tmp_path / "b.csv").write_text("")
    with pytest.raises(InputError, match="has no columns: it is empty"):
        run(Answering(), tmp_path / "b.csv", tmp_path / "o.csv")
