from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scoring.errors import (
    FieldpostError,
    MalformedPayloadError,
    MissingDependencyError,
    MissingValueError,
    ModelNotFoundError,
    UnknownInputError,
    UnsupportedMediaTypeError,
    WrongShapeError,
    WrongTypeError,
)
from scoring.sample import read_sample, to_inputs
from scoring.schema import ModelSchema, TensorSpec

MATRIX = ModelSchema(inputs=(TensorSpec("X", "float64", (None, 3)),), outputs=())
NAMED = ModelSchema(
    inputs=(TensorSpec("X", "float32", (None, 3)),), outputs=(), features=("a", "b", "c")
)
TABLE = ModelSchema(
    inputs=(
        TensorSpec("a", "float64", (None, 1), missing=True),
        TensorSpec("s", "string", (None, 1), missing=True),
        TensorSpec("i", "int64", (None, 1)),
    ),
    outputs=(),
    layout="table",
)
TEXT = ModelSchema(inputs=(TensorSpec("X", "string", (None,)),), outputs=())
TWO = ModelSchema(
    inputs=(TensorSpec("a", "float64", (None, 2)), TensorSpec("b", "int64", (None,))), outputs=()
)
RECORDS = [{"a": 1.5, "s": "x", "i": 1}, {"a": None, "s": None, "i": 2}]


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.json", '[{"a": 1.5, "s": "x", "i": 1}, {"a": null, "s": null, "i": 2}]'),
        ("s.json", '{"data": [{"a": 1.5, "s": "x", "i": 1}, {"a": null, "s": null, "i": 2}]}'),
        ("s.json", '{"columns": ["a", "s", "i"], "data": [[1.5, "x", 1], [null, null, 2]]}'),
        (
            "s.json",
            '{"inputs": {"columns": ["a", "s", "i"], "data": [[1.5, "x", 1], [null, null, 2]]}}',
        ),
        ("s.json", '{"a": [1.5, null], "s": ["x", null], "i": [1, 2]}'),
        ("s.json", '{"data": [[1.5, "x", 1], [null, null, 2]]}'),
        ("s.jsonl", '{"a": 1.5, "s": "x", "i": 1}\n\n{"a": null, "s": null, "i": 2}\n'),
        ("s.jsonl", '[1.5, "x", 1]\n[null, null, 2]\n'),
        ("S.CSV", "a,s,i\n1.5,x,1\n,,2\n"),
        ("s.csv", "\ufeffi,unused,s,a\n1,0,x,1.5\n2,0,,\n"),
    ],
)
def test_a_table_is_read_from_each_form(name: str, text: str, tmp_path: Path) -> None:
    inputs = to_inputs(read_sample(_write(tmp_path, name, text)), TABLE)
    np.testing.assert_array_equal(inputs["a"], [[1.5], [np.nan]])
    assert inputs["s"].tolist() == [["x"], [None]]
    assert inputs["i"].tolist() == [[1], [2]]
    assert [inputs[name].dtype.kind for name in inputs] == ["f", "O", "i"]


def test_csv_without_names_is_rows(tmp_path: Path) -> None:
    sample = read_sample(_write(tmp_path, "s.csv", "1,2,3\n4,5.5,6\n"))
    assert to_inputs(sample, MATRIX)["X"].tolist() == [[1, 2, 3], [4, 5.5, 6]]


def test_truth_values_in_csv(tmp_path: Path) -> None:
    assert read_sample(_write(tmp_path, "s.csv", "x,y\nTrue,1\nfalse,yes\n")) == {
        "x": [True, False],
        "y": ["1", "yes"],
    }


def test_numpy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.eye(3))
    np.savez(tmp_path / "one.npz", x=np.eye(3))
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2)), b=np.arange(2))
    for name in ("one.npy", "one.npz"):
        np.testing.assert_array_equal(
            to_inputs(read_sample(tmp_path / name), MATRIX)["X"], np.eye(3)
        )
    assert to_inputs(read_sample(tmp_path / "two.npz"), TWO)["b"].tolist() == [0, 1]


def test_parquet_needs_a_reader_or_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    try:
        pd.DataFrame(RECORDS).to_parquet(path)
    except ImportError:
        path.write_bytes(b"PAR1")
        with pytest.raises(MissingDependencyError, match=r"s\.parquet needs pandas and pyarrow"):
            read_sample(path)
    else:
        assert to_inputs(read_sample(path), TABLE)["i"].tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.json", b'{"data": [[1, 2'),
        ("s.json", b"\xff\xfe\x00"),
        ("s.json", b"[" * 100_000),
        ("s.json", b'{"columns": ["a"], "data": [[1, 2]]}'),
        ("s.json", b'{"columns": 3, "data": [[1, 2]]}'),
        ("s.jsonl", b"[1]\nnope\n"),
        ("s.csv", b""),
        ("s.csv", b"a,b\n1\n"),
        ("s.npy", b""),
        ("s.npy", b"\x93NUMPY\x01\x00"),
        ("s.npz", b"PK\x03\x04"),
        ("s.npz", b""),
    ],
)
def test_broken_files_say_so(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MalformedPayloadError, match=name) as caught:
        read_sample(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


def test_pickles_inside_numpy_files_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(MalformedPayloadError):
        read_sample(tmp_path / "s.npy")


def test_no_such_file_and_no_such_kind(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        read_sample(tmp_path / "none.json")
    with pytest.raises(UnsupportedMediaTypeError) as caught:
        read_sample(tmp_path / "rows.xlsx")
    assert ".csv" in caught.value.hint


@pytest.mark.parametrize(
    ("sample", "schema"),
    [
        ([[1, 2, 3]], MATRIX),
        ([1, 2, 3], MATRIX),
        (np.array([1.0, 2.0, 3.0]), MATRIX),
        (np.array([[1, 2, 3]], dtype=np.int8), NAMED),
        ({"X": [[1, 2, 3]]}, NAMED),
        ({"c": [3], "a": [1], "b": [2]}, NAMED),
        (pd.DataFrame({"c": [3], "z": ["unused"], "a": [1], "b": [2]}), NAMED),
        (pd.DataFrame([[1, 2, 3]]), NAMED),
        (pd.DataFrame([[1, 2, 3]], columns=["p", "q", "r"]), MATRIX),
        ([{"b": 2, "c": 3, "a": 1}], NAMED),
        ([{"p": 1, "q": 2, "r": 3}], MATRIX),
    ],
)
def test_a_matrix_from_each_form(sample: Any, schema: ModelSchema) -> None:
    (array,) = to_inputs(sample, schema).values()
    assert array.tolist() == [[1, 2, 3]]
    assert array.dtype.name == schema.inputs[0].dtype


@pytest.mark.parametrize(
    "sample",
    [["one", "two"], pd.Series(["one", "two"]), pd.DataFrame({"t": ["one", "two"]}),
     {"X": ["one", "two"]}, np.array(["one", "two"])],
)  # fmt: skip
def test_texts_from_each_form(sample: Any) -> None:
    assert to_inputs(sample, TEXT)["X"].tolist() == ["one", "two"]


def test_a_single_text() -> None:
    assert to_inputs("one", TEXT)["X"].tolist() == ["one"]


def test_several_inputs_by_position() -> None:
    inputs = to_inputs((np.ones((1, 2)), [3]), TWO)
    assert inputs["b"].tolist() == [3]


@pytest.mark.parametrize(
    ("sample", "schema", "error", "words"),
    [
        ([[1, 2]], MATRIX, WrongShapeError, r"\(1, 2\); the model takes \(any, 3\)"),
        ([[1, 2, 3], [1, 2]], MATRIX, WrongShapeError, "not all of one length"),
        ([], MATRIX, WrongShapeError, "shape"),
        (np.empty((0, 3)), MATRIX, WrongShapeError, "no rows"),
        (None, MATRIX, WrongShapeError, "shape"),
        (np.ones((2, 3, 3)), MATRIX, WrongShapeError, "shape"),
        ([["x", 1, 2]], MATRIX, WrongTypeError, "takes float64; the sample has 'x'"),
        (["x", "y", "z"], MATRIX, WrongTypeError, "'x'"),
        ([[None, 1, 2]], MATRIX, MissingValueError, "'X' is missing"),
        ([[float("nan"), 1, 2]], MATRIX, MissingValueError, "'X' is missing"),
        ([[1, "x", 1.5]], TABLE, WrongTypeError, "takes int64; the sample has 1.5"),
        ([[1, 7, 1]], TABLE, WrongTypeError, "takes string; the sample has 7"),
        ([[1, "x", None]], TABLE, MissingValueError, "'i' is missing"),
        ([[1, "x"]], TABLE, WrongShapeError, "has 3 columns; the sample's rows have 2"),
        ({"a": [1], "i": [1]}, TABLE, UnknownInputError, "no 's'; it has 'a', 'i'"),
        ({"a": [1], "b": [1]}, NAMED, UnknownInputError, "no 'c'"),
        ({"a": [1], "b": [1, 2], "c": [1]}, NAMED, WrongShapeError, "not all of one length"),
        ([[1, 2]], TWO, WrongShapeError, "has 2 inputs; the sample is a list"),
        ({"a": [[1, 2]]}, TWO, UnknownInputError, "no 'b'"),
        ([1], TEXT, WrongTypeError, "takes string"),
    ],
)  # fmt: skip
def test_what_does_not_fit_says_why(
    sample: Any, schema: ModelSchema, error: type[FieldpostError], words: str
) -> None:
    with pytest.raises(error, match=words):
        to_inputs(sample, schema)
