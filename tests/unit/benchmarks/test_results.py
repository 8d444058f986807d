"""Rows are kept by their names, so that one can be measured anew without the others."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.results import Row


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    return tmp_path


def row(work: str, ours: float, **rest: float) -> Row:
    return Row(work, "requests/s", ours, "2 x peer", True, rest)


def test_rows_measured_anew_replace_their_elders(folder: Path) -> None:
    results.write("server", [row("a", 1), row("b", 2)], {"python": "1"})
    results.write("server", [row("b", 3), row("c", 4)], {"python": "2"})
    document = json.loads((folder / "server.json").read_text())
    assert [(each["work"], each["ours"]) for each in document] == [("a", 1), ("b", 3), ("c", 4)]
    assert [each["versions"]["python"] for each in document] == ["1", "2", "2"]


def test_a_row_is_shown_with_every_peer(capsys: pytest.CaptureFixture[str]) -> None:
    shown = row("iris", 100, peer=50)
    shown.processor = {"ours": 120.0, "peer": 40.0}
    shown.missing = {"other": "it is not there"}
    results.print_row(shown)
    text = capsys.readouterr().out
    assert "2.000" in text
    assert "3.000" in text
    assert "not measured: it is not there" in text


def test_what_was_not_measured_is_null(folder: Path) -> None:
    results.write("server", [row("tail", math.inf)], {})
    text = (folder / "server.json").read_text()
    assert json.loads(text)[0]["ours"] is None
    assert "Infinity" not in text
