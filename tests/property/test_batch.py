"""However a dataset is cut, and whoever is killed when: each row has one result, in order."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.batch import textfiles
from scoring.batch.planning import make_plan
from scoring.batch.records import Options, Source
from scoring.batch.results import Result
from scoring.batch.shards import Scorer
from tests.support.batching import Answering, rows_of

# Cells with all that CSV has marks for, also where they mean nothing: 5" is five inches.
CELLS = st.text(st.sampled_from(['"', ",", "\n", "\r", "a", "ä", " ", ";"]), max_size=6)


class KilledError(Exception):
    """The process ended here."""


class Dying(Answering):
    """Ends at the calls that it is told to end at."""

    def __init__(self, deaths: set[int]) -> None:
        super().__init__()
        self._deaths, self._call = deaths, 0

    def predict(self, inputs: Any) -> dict[str, Any]:
        self._call += 1
        if self._call in self._deaths:
            raise KilledError
        return super().predict(inputs)


@settings(max_examples=60, deadline=None)
@given(
    notes=st.lists(CELLS, max_size=40),
    form=st.sampled_from(["csv", "jsonl"]),
    shard_rows=st.integers(1, 12),
    call_rows=st.integers(1, 7),
    deaths=st.sets(st.integers(1, 60), max_size=25),
    single=st.booleans(),
)
def test_each_row_has_one_result_in_order(
    notes: list[str], form: str, shard_rows: int, call_rows: int, deaths: set[int], single: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name, f"in.{form}"), Path(name, "out.jsonl" if single else "out")
        write(source, notes)
        options = Options(
            input=str(source),
            output=str(output),
            output_format="jsonl",
            keep=("n", "note"),
            shard_rows=shard_rows,
            call_rows=call_rows,
        )
        model = Dying(deaths)
        if not notes and form == "jsonl":
            return  # without a line it has no columns, which is refused
        while not scored(options, model):
            pass
        rows = rows_of(output)
        assert [int(row["n"]) for row in rows] == list(range(len(notes)))
        assert [row["note"] for row in rows] == notes
        assert [row["prediction"] == "left" for row in rows] == [
            n % 3 > 1 for n in range(len(rows))
        ]


def scored(options: Options, model: Dying) -> bool:
    """One life of the command; whether it came to its end."""
    try:
        plan = make_plan(options, model, "x")
        result = Result(options.output)
        result.claim(plan)
        scorer = Scorer(plan, model, result)
        for shard in sorted(set(range(len(plan.shards))) - result.marks(plan)):
            scorer.run(shard)
        result.finish(plan)
    except KilledError:
        return False
    return True


def write(path: Path, notes: list[str]) -> None:
    rows: list[dict[str, Any]] = [
        {"n": n, "left": n % 3, "right": 1, "note": note} for n, note in enumerate(notes)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
            return
        writer = csv.DictWriter(file, ["n", "left", "right", "note"], lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)


@settings(max_examples=150, deadline=None)
@given(
    text=st.lists(st.sampled_from(['"', ",", "\n", "a", "\r\n"]), max_size=80).map("".join),
    records=st.integers(1, 5),
    block=st.integers(1, 12),
)
def test_files_are_cut_where_their_reader_ends_a_record(
    text: str, records: int, block: int
) -> None:
    data = text.encode()
    source = Source(path="x", size=len(data), mark="", format="csv", columns=("a",), first_line=1)
    before, textfiles._BLOCK = textfiles._BLOCK, block
    try:
        found = list(textfiles.cuts(io.BytesIO(data), source, records, "utf-8", ","))
    finally:
        textfiles._BLOCK = before
    whole = list(ends(data))
    assert {end for end, _ in found} <= {0, *whole}
    assert all(
        line == data[:end].count(b"\n") + 1 for end, line in found if data[:end].endswith(b"\n")
    )
    spans = [0, *(end for end, _ in found), len(data)]
    parts = [data[start:end] for start, end in itertools.pairwise(spans)]
    assert [row for part in parts for row in read(part)] == read(data)
    assert msgspec.json.encode(found)


def ends(data: bytes) -> Any:
    """Where Python's reader of CSV has a record behind it."""
    lines = textfiles.Lines(io.BytesIO(data), "utf-8", 0)
    reader = csv.reader(iter(lines), strict=True)
    while lines.consumed < len(data):
        with contextlib.suppress(csv.Error):
            next(reader, None)
        yield lines.consumed


def read(data: bytes) -> list[Any]:
    lines = textfiles.Lines(io.BytesIO(data), "utf-8", 0)
    return [row for _, row, _ in textfiles._csv_records(lines, 2, ",")]
