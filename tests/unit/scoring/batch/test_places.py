"""A result never takes the place of the rows that it is made from, nor stands among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoring.batch.places import require_apart
from scoring.errors import UsageError
from tests.support.batching import Answering, plan_of

ROWS = "sepal,petal\n1,2\n"


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("/d/rows.csv", "/d/rows.csv"),
        ("/d/rows", "/d/rows"),
        ("/d/rows", "/d/rows/scored.csv"),
        ("/d/rows/", "/d/rows/deep/scored"),
        ("/d/*.csv", "/d/scored.csv"),
        ("/d/**/*.csv", "/d/a/b/scored.csv"),
        ("file:///d/rows", "/d/rows/scored.csv"),
        ("s3://b/rows/", "s3://b/rows/scored"),
        ("memory:///b/rows", "memory://b/rows"),
    ],
)
def test_a_result_in_its_dataset_is_refused(source: str, output: str) -> None:
    with pytest.raises(UsageError, match="OUTPUT is"):
        require_apart(source, output)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("/d/rows.csv", "/d/rows.csv.scored"),
        ("/d/rows", "/d/rows-scored"),
        ("/d/rows", "/d/rows/_scored"),
        ("/d/rows", "/d/rows/.scored/out.csv"),
        ("/d/*.csv", "/d/scored/out.csv"),
        ("/d/*.csv", "/d/scored.parquet"),
        ("s3://b/rows", "/b/rows"),
    ],
)
def test_a_result_beside_it_is_not(source: str, output: str) -> None:
    require_apart(source, output)


@pytest.mark.parametrize("output", ["rows.csv", "link.csv", "", "../{}"])
def test_no_run_begins_that_would_lose_its_rows(tmp_path: Path, output: str) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(ROWS)
    (tmp_path / "link.csv").symlink_to(rows)
    place = tmp_path / output.format(tmp_path.name)
    with pytest.raises(UsageError, match="OUTPUT is"):
        plan_of(Answering(), str(rows), str(place))
    assert rows.read_text() == ROWS
