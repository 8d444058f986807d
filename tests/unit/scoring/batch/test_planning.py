"""What is found out about a dataset before any of its rows is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scoring.batch.planning import make_plan
from scoring.batch.records import Options
from scoring.errors import UnknownInputError
from tests.support.batching import Answering, Scripted


def options(folder: Path, text: str, **more: Any) -> Options:
    """For a dataset of this text."""
    (folder / "rows.csv").write_text(text)
    return Options(input=str(folder / "rows.csv"), output=str(folder / "out.csv"), **more)


@pytest.mark.parametrize("header", ["0.5,1.5", "-1,2", "1e3, .5", '"0.5","1"'])
def test_a_row_in_the_place_of_the_header_is_told(tmp_path: Path, header: str) -> None:
    script: Any = Scripted(lambda body: [0 for _ in body["data"]])
    with pytest.raises(UnknownInputError, match="seems to be a row: put the names"):
        make_plan(options(tmp_path, f"{header}\n1,2\n"), script, "x")
    assert script.bodies == []


@pytest.mark.parametrize("header", ["0,1", "2019,2020", "0.5,label", "a,b"])
def test_names_may_be_numbers(tmp_path: Path, header: str) -> None:
    script: Any = Scripted(lambda body: [0 for _ in body["data"]])
    plan = make_plan(options(tmp_path, f"{header}\n1,2\n"), script, "x")
    assert plan.inputs == tuple(header.split(","))


def test_names_that_are_numbers_can_be_given(tmp_path: Path) -> None:
    script: Any = Scripted(lambda body: [0 for _ in body["data"]])
    given = options(tmp_path, "400.5,401.5\n1,2\n", columns=("400.5", "401.5"))
    assert make_plan(given, script, "x").inputs == ("400.5", "401.5")


def test_a_model_that_knows_names_says_which_are_missing(tmp_path: Path) -> None:
    with pytest.raises(UnknownInputError, match="missing columns 'left', 'right'"):
        make_plan(options(tmp_path, "0.5,1.5\n1,2\n"), Answering(), "x")
