"""Labelled rows from the files that people have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.errors import MissingValueError, TrainingDataError, WrongTypeError
from scoring.quantum.labelled import read_labelled

ROWS = [[1.0, 2.5], [3.0, -4.0]]


def written(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    if isinstance(content, str):
        path.write_text(content)
    elif name.endswith("json"):
        path.write_text(json.dumps(content))
    elif name.endswith("npy"):
        np.save(path, content)
    else:
        np.savez(path, **content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "label"),
    [
        ("a.csv", "x,y,kind\n1,2.5,0\n3,-4,1\n", ""),
        ("a.csv", "kind,x,y\n0,1,2.5\n1,3,-4\n", "kind"),
        ("a.csv", "1,2.5,0\n3,-4,1\n", ""),
        ("a.csv", "0,1,2.5\n1,3,-4\n", "0"),
        ("a.json", [[1, 2.5, 0], [3, -4, 1]], ""),
        ("a.json", [{"x": 1, "y": 2.5, "kind": 0}, {"x": 3, "y": -4, "kind": 1}], ""),
        ("a.json", {"X": ROWS, "y": [0, 1]}, ""),
        ("a.npz", {"X": np.array(ROWS), "y": np.array([0, 1])}, ""),
        ("a.npz", {"data": np.array(ROWS), "kind": np.array([0.0, 1.0])}, "kind"),
        ("a.npy", np.array([[1, 2.5, 0], [3, -4, 1]]), "-1"),
    ],
)
def test_tables_of_every_kind(tmp_path: Path, name: str, content: Any, label: str) -> None:
    found = read_labelled(written(tmp_path, name, content), label)
    assert found.rows.tolist() == ROWS
    assert found.labels.tolist() == [0, 1]
    assert found.labels.dtype == np.int64


def test_words_are_labels(tmp_path: Path) -> None:
    found = read_labelled(written(tmp_path, "a.csv", "x,kind\n1,cat\n2,dog\n"))
    assert found.labels.tolist() == ["cat", "dog"]
    assert found.features == ("x",)


@pytest.mark.parametrize(
    ("content", "label", "error", "message"),
    [
        ("x,y\n1,2\n", "kind", TrainingDataError, "no column 'kind'; there are x, y"),
        ("1,2\n3,4\n", "kind", TrainingDataError, "have no names"),
        ("1,2\n3,4\n", "2", TrainingDataError, "no column 2"),
        ("x,y\n1,\n2,1\n", "", TrainingDataError, "label of row 0 is missing"),
        ("x,y\n,1\n2,1\n", "", MissingValueError, "row 0 is nan"),
        ("x,y\ncat,1\n2,1\n", "", WrongTypeError, "column 'x' has 'cat' in row 0, which is no num"),
        ("kind,x\ncat,1.5\ndog,2\n", "", WrongTypeError, "column 'kind' has 'cat' in row 0"),
        ("1,cat,1\n2,dog,0\n", "", WrongTypeError, "column 1 has 'cat' in row 0"),
        ("x,y\n1,2\n1,0.25\n", "", TrainingDataError, "label of row 1 is 0.25: labels are whole"),
        ("x\n1\n", "", TrainingDataError, "no features"),
        ("x;y\n1;2\n", "", TrainingDataError, "one column, 'x;y'"),
        ("x,y\n1,2\n1,1e20\n", "", TrainingDataError, "row 1 is 100000000000000000000: whole"),
        (f"x,y\n1,2\n1,{2**63}\n", "", TrainingDataError, f"row 1 is {2**63}: whole"),
        ("x,y\n", "", TrainingDataError, "has no rows"),
    ],
)
def test_what_is_no_labelled_table(
    tmp_path: Path, content: str, label: str, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        read_labelled(written(tmp_path, "a.csv", content), label)


def test_columns_of_time_are_no_features(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame({"at": pandas.to_datetime(["2024-01-01", "2024-01-02"]), "y": [0, 1]})
    table.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(WrongTypeError, match="column 'at' has '2024-01-01"):
        read_labelled(tmp_path / "a.parquet")


def test_complex_numbers_are_no_features(tmp_path: Path) -> None:
    content = {"X": np.array([[1j, 2], [3, 4]]), "y": np.array([0, 1])}
    with pytest.raises(WrongTypeError, match="of type complex128"):
        read_labelled(written(tmp_path, "a.npz", content))


def test_rows_and_labels_of_different_lengths(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="3 labels were given for 2 rows"):
        read_labelled(written(tmp_path, "a.json", {"X": ROWS, "y": [0, 1, 1]}))
