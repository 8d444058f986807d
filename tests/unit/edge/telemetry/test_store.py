"""Sealed or not, a record is found once; a file is there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.protocol.messages import Record, Telemetry, encode_compressed
from edge.protocol.topics import topic
from edge.telemetry.ingest import Ingest
from edge.telemetry.store import COLUMNS, Retention, Store
from scoring.errors import UsageError, WorkspaceError

DAY = 86_400.0
pytest.importorskip("duckdb")


class Clock:
    def __init__(self) -> None:
        self.now = 1_760_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store(tmp_path / "it's here", clock=clock) as found:
        yield found


def tell(store: Store, clock: Clock, *seqs: int, device: str = "cam-1", **data: Any) -> None:
    records = tuple(Record(seq=n, at=clock(), kind="requests", data={"n": n, **data}) for n in seqs)
    payload = encode_compressed(Telemetry(device=device, epoch="e", records=records))
    assert Ingest(store.inbox, clock=clock).take(topic("home", device, "tele/metric"), payload)


def seqs(store: Store) -> list[int]:
    return [row[0] for row in store.query("SELECT seq FROM records ORDER BY seq").rows]


def test_a_record_is_found_once_before_and_after_it_is_sealed(store: Store, clock: Clock) -> None:
    tell(store, clock, 0, 1, 2)
    before = store.query("SELECT * FROM records ORDER BY seq")
    assert before.columns == COLUMNS
    assert store.seal() == 3
    assert store.query("SELECT * FROM records ORDER BY seq") == before
    tell(store, clock, 3, 2)
    assert seqs(store) == [0, 1, 2, 3]
    assert store.seal() == 1
    assert store.seal() == 0
    assert seqs(store) == [0, 1, 2, 3]


def test_what_records_tell_can_be_asked(store: Store, clock: Clock) -> None:
    tell(store, clock, 0, 1, text="naïve 🚀 'quoted' \\ \u0000", deep={"a": [1, {"b": None}]})
    for _ in range(2):
        found = store.query("SELECT sum(CAST(data->>'$.n' AS INT)), any_value(class) FROM records")
        assert found.rows == [(1, "metric")]
        newest = store.records(device="cam-1", kind="requests", name="metric", most=1)[0]
        assert newest["data"]["text"] == "naïve 🚀 'quoted' \\ \u0000"
        assert newest["data"]["deep"] == {"a": [1, {"b": None}]}
        assert newest["told_at"] == "2025-10-09T08:53:20+00:00"
        assert store.records(device="cam-2") == []
        assert store.records(since=clock() + 1) == []
        store.seal()


def test_an_empty_store_has_the_table(store: Store) -> None:
    assert store.query("SELECT * FROM records").columns == COLUMNS
    assert store.seal() == 0


@pytest.mark.parametrize("moment", [-1e300, 1e300, -1.0, 0.0, 253_402_300_799.0])
def test_whatever_a_devices_clock_says(store: Store, clock: Clock, moment: float) -> None:
    record = Record(seq=0, at=moment, kind="requests", data={})
    payload = encode_compressed(Telemetry(device="cam-1", epoch="e", records=(record,)))
    Ingest(store.inbox, clock=clock).take(topic("home", "cam-1", "tele/metric"), payload)
    assert seqs(store) == [0]
    assert store.seal() == 1
    assert seqs(store) == [0]


def test_days_are_merged_once_they_are_over(store: Store, clock: Clock) -> None:
    for number in range(4):
        tell(store, clock, number)
        store.seal()
    assert store.merge() == 0
    clock.now += DAY
    tell(store, clock, 4)
    store.seal()
    assert store.merge() == 4
    assert store.merge() == 0
    assert seqs(store) == [0, 1, 2, 3, 4]
    assert len(list((store.inbox.folder / "records").iterdir())) == 2


def test_old_days_go_and_large_ones(store: Store, clock: Clock) -> None:
    for number in range(5):
        tell(store, clock, number)
        store.seal()
        clock.now += DAY
    assert store.prune(Retention(days=3)) == 2
    assert seqs(store) == [2, 3, 4]
    assert store.prune(Retention(days=30, most_bytes=1)) == 3
    assert seqs(store) == []
    assert list((store.inbox.folder / "records").iterdir()) == []
    tell(store, clock, 0, 1, 2, 3, 4)
    assert seqs(store) == [], "what was pruned came before"


@pytest.mark.parametrize("step", ["_write", "sync", "commit"])
def test_a_sealing_that_was_cut_off_loses_and_doubles_nothing(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    tell(store, clock, 0, 1, 2)

    def fail(*_: object) -> None:
        raise WorkspaceError("power is gone")

    with monkeypatch.context() as patch:
        if step == "_write":
            patch.setattr(store, "_write", fail)
        elif step == "sync":
            patch.setattr("edge.telemetry.store._sync", fail)
        else:
            patch.setattr(store.inbox, "drop_batches", fail)
        with pytest.raises(WorkspaceError):
            store.seal()
    assert seqs(store) == [0, 1, 2]
    assert store.seal() == 3
    assert seqs(store) == [0, 1, 2]
    assert len(list((store.inbox.folder / "records").iterdir())) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1; SELECT 2",
        "SELEKT",
        "DROP VIEW records",
        "COPY records TO '/tmp/somewhere.csv'",
        "SELECT nothing FROM records",
        "SELECT * FROM read_csv('/etc/passwd')",
        "ATTACH '/tmp/x.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
    ],
)
def test_only_questions_are_answered(store: Store, sql: str) -> None:
    with pytest.raises(UsageError):
        store.query(sql)


def test_two_stores_of_one_folder_agree(store: Store, clock: Clock) -> None:
    with Store(store.inbox.folder, clock=clock) as other:
        tell(store, clock, 0)
        other.seal()
        tell(other, clock, 0, 1)
        assert seqs(store) == seqs(other) == [0, 1]


def test_a_file_that_is_gone_takes_nothing_else_along(
    store: Store, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the database comes from a backup: it names files that were merged since."""
    for n in range(3):
        tell(store, clock, n)
        store.seal()
    lost = sorted((tmp_path / "it's here" / "records").glob("*.parquet"))[1]
    lost.unlink()
    assert seqs(store) == [0, 2]
    assert lost.name in caplog.text
    clock.now += DAY
    assert store.merge() == 2
    assert seqs(store) == [0, 2]


def test_a_damaged_file_is_told_and_does_not_hold_up_other_days(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    for n in range(4):
        tell(store, clock, n)
        store.seal()
        clock.now += DAY * (n == 1)
    min((tmp_path / "it's here" / "records").glob("*.parquet")).write_bytes(b"PAR1 or not")
    clock.now += DAY
    with pytest.raises(WorkspaceError):
        seqs(store)
    assert store.merge() == 2
    assert store.prune(Retention(days=1)) == 2
    assert seqs(store) == [2, 3]
