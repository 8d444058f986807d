"""Values of kept columns, as text formats write them."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from scoring.batch.chunks import ArrowChunk
from scoring.batch.writers import writer

NANOSECONDS = 1_577_880_000_123_456_789
MICROSECONDS = NANOSECONDS // 1000 * 1000
YEAR_10000 = pa.array([253_402_300_805], pa.timestamp("s"))


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (pa.array([MICROSECONDS], pa.timestamp("ns")), "2020-01-01T12:00:00.123456"),
        (pa.array([NANOSECONDS], pa.timestamp("ns")), "2020-01-01T12:00:00.123456789"),
        (
            pa.array([NANOSECONDS], pa.timestamp("ns", "Europe/Berlin")),
            "2020-01-01T13:00:00.123456789+01:00",
        ),
        (
            pa.array([[NANOSECONDS]], pa.list_(pa.timestamp("ns"))),
            ["2020-01-01T12:00:00.123456789"],
        ),
        (YEAR_10000, "10000-01-01T00:00:05"),
        (pa.array([3_000_000_000], pa.duration("ns")), 3.0),
    ],
)
def test_times_of_parquet_are_written_as_json(tmp_path: Path, array: Any, value: Any) -> None:
    path = tmp_path / "part"
    made = writer("jsonl", path, {"when": "arrow"})
    made.write([array])
    made.close()
    assert json.loads(path.read_bytes()) == {"when": value}


def test_times_that_python_has_not_go_into_csv_and_to_scripts(tmp_path: Path) -> None:
    path = tmp_path / "part"
    made = writer("csv", path, {"when": "arrow"})
    made.write([YEAR_10000])
    made.close()
    assert path.read_text() == "when\n10000-01-01T00:00:05\n"
    batch = pa.RecordBatch.from_arrays([YEAR_10000], ["when"])
    assert ArrowChunk(batch).values("when") == ["10000-01-01T00:00:05"]


def test_days_of_parquet_stay_days(tmp_path: Path) -> None:
    path = tmp_path / "part"
    made = writer("csv", path, {"day": "arrow"})
    made.write([pa.array([dt.date(2020, 1, 2), None])])
    made.close()
    assert path.read_text() == 'day\n2020-01-02\n""\n'
