"""The spool: what goes in comes out, until it is acknowledged; caps hold, and drops are counted."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.protocol.messages import MOST_BYTES, Ack, Telemetry, decode
from edge.protocol.topics import CLASSES
from edge.telemetry.limits import MOST_RECORD_BYTES, Limits
from edge.telemetry.rows import FILE
from edge.telemetry.spool import Batch, Spool
from scoring.errors import MalformedPayloadError, PayloadTooLargeError, UsageError


class Steady:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def steady() -> Steady:
    return Steady()


@pytest.fixture
def opened(tmp_path: Path, steady: Steady) -> Iterator[Callable[..., Spool]]:
    spools: list[Spool] = []

    def open_spool(**limits: float) -> Spool:
        found = Spool(
            tmp_path / "spool",
            "cam-1",
            Limits(**limits),  # type: ignore[arg-type]
            clock=lambda: 1000.0 + steady.now,
            steady=steady,
        )
        spools.append(found)
        return found

    yield open_spool
    for spool in spools:
        spool.close()


def told(batch: Batch) -> Telemetry:
    return decode(batch.payload, Telemetry)


def ack(batch: Batch) -> Ack:
    return Ack(device="cam-1", epoch=batch.epoch, ranges=tuple((s, s) for s in batch.seqs))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_what_goes_in_comes_out_until_it_is_acknowledged(opened: Callable[..., Spool]) -> None:
    spool = opened()
    assert spool.put("metric", "requests", {"count": 3})
    assert spool.put("alarm", "module", {"name": "iris"}, at=5.0)
    first, second = spool.batches()
    assert (first.name, second.name) == ("alarm", "metric")
    [record] = told(first).records
    assert (record.seq, record.at, record.kind, record.data) == (1, 5.0, "module", {"name": "iris"})
    assert told(second).records[0].at == 1000.0
    assert spool.batches() == [first, second]
    assert spool.acked(ack(first)) == 1
    assert spool.batches() == [second._replace(payload=spool.batches()[0].payload)]
    assert spool.acked(ack(first)) == 0
    assert spool.acked(ack(second)) == 1
    assert spool.batches() == []
    assert spool.counts().size == 0


def test_a_new_opening_is_a_new_epoch_and_keeps_what_waits(opened: Callable[..., Spool]) -> None:
    spool = opened()
    spool.put("metric", "requests", {"n": 1})
    old = spool.epoch
    spool.close()
    spool = opened()
    spool.put("metric", "requests", {"n": 2})
    first, second = spool.batches()
    assert [first.epoch, second.epoch] == [old, spool.epoch]
    assert old != spool.epoch
    assert first.seqs == second.seqs == (0,)
    spool.acked(ack(second))
    assert [told(batch).records[0].data for batch in spool.batches()] == [{"n": 1}]


def test_acks_of_others_and_of_other_epochs_delete_nothing(opened: Callable[..., Spool]) -> None:
    spool = opened()
    spool.put("metric", "requests", {})
    assert spool.acked(Ack(device="cam-2", epoch=spool.epoch, ranges=((0, 9),))) == 0
    assert spool.acked(Ack(device="cam-1", epoch="other", ranges=((0, 9),))) == 0
    assert spool.acked(Ack(device="cam-1", epoch=spool.epoch, ranges=((2**70, 2**71),))) == 0
    with pytest.raises(MalformedPayloadError):
        spool.acked(b"{")
    assert len(spool.batches()) == 1


@pytest.mark.parametrize("size", [1 << 20, 3 << 20])
def test_the_files_never_outgrow_their_cap(
    opened: Callable[..., Spool], tmp_path: Path, size: int
) -> None:
    spool = opened(most_bytes=size)
    spool.put("alarm", "module", {"name": "first"})
    most = 0
    for turn in range(60):
        big = [("debug", "log", {"text": os.urandom(600).hex()}, None) for _ in range(60)]
        spool.put_many(big)  # type: ignore[arg-type]
        spool.put("metric", "requests", {"turn": turn, "text": os.urandom(3000).hex()})
        most = max(most, size_of(tmp_path / "spool"))
    assert most <= size
    counts = spool.counts()
    assert counts.waiting["alarm"] == 1
    assert counts.waiting["metric"] == 60
    assert counts.dropped["debug"] == 60 * 60 - counts.waiting["debug"]
    assert 0 < counts.waiting["debug"] < 60 * 60
    assert told(spool.batches()[0]).dropped == counts.dropped
    newest = [told(batch).records[-1] for batch in spool.batches(999) if batch.name == "debug"][-1]
    assert newest.seq == max(seq for b in spool.batches(999) if b.name == "debug" for seq in b.seqs)


def test_the_lowest_class_goes_first_and_the_least_important_is_refused(
    opened: Callable[..., Spool],
) -> None:
    spool = opened(most_bytes=1 << 20)
    text = "x" * 20_000
    while not spool.counts().dropped:
        spool.put("alarm", "module", {"text": text})
    assert spool.counts().dropped == {"alarm": 1}
    before = spool.counts().waiting["alarm"]
    assert spool.put("debug", "log", {"text": text})
    assert spool.counts().dropped == {"alarm": 1, "debug": 1}
    assert spool.counts().waiting == {"alarm": before, "status": 0, "metric": 0, "debug": 0}


def test_ages_are_of_the_time_that_passes_not_of_the_clock(tmp_path: Path, steady: Steady) -> None:
    wall = [1e9]
    spool = Spool(tmp_path, "cam-1", Limits(debug_s=100), clock=lambda: wall[0], steady=steady)
    with spool:
        spool.put("debug", "log", {})
        for leap in (1e9 + 3e8, 1e9 - 3e8):
            wall[0] = leap
            spool.tend()
            assert spool.counts().waiting["debug"] == 1
        steady.now = 90
        spool.tend()
    steady.now = 0  # the machine was switched off and on: its clock begins anew
    with Spool(tmp_path, "cam-1", Limits(debug_s=100), steady=steady) as spool:
        steady.now = 5
        spool.tend()
        assert spool.counts().waiting["debug"] == 1
        steady.now = 11
        spool.tend()
        assert spool.counts().waiting["debug"] == 0
        assert spool.counts().dropped == {"debug": 1}


def test_records_that_waited_say_so(opened: Callable[..., Spool], steady: Steady) -> None:
    spool = opened()
    spool.put("metric", "requests", {})
    assert not told(spool.batches()[0]).records[0].late
    steady.now = 3600
    spool.put("metric", "requests", {})
    assert [record.late for record in told(spool.batches()[0]).records] == [True, False]


def test_batches_fit_in_a_message(opened: Callable[..., Spool]) -> None:
    spool = opened()
    for size in (10, 31_000, 31_000, 31_000, 31_000, 100):
        spool.put("metric", "sample", {"text": os.urandom(size // 2).hex()[:size]})
    batches = spool.batches()
    assert len(batches) > 1
    assert all(len(batch.payload) <= MOST_BYTES for batch in batches)
    assert [seq for batch in batches for seq in batch.seqs] == list(range(6))


def test_what_cannot_be_a_record_is_refused(opened: Callable[..., Spool]) -> None:
    spool = opened()
    with pytest.raises(PayloadTooLargeError):
        spool.put("debug", "log", {"text": "x" * MOST_RECORD_BYTES})
    with pytest.raises(MalformedPayloadError):
        spool.put("debug", "log", {"it": object()})
    assert spool.put("debug", "log", {"it": float("nan")})
    assert told(spool.batches()[0]).records[0].data == {"it": None}
    assert spool.counts().dropped == {"debug": 1}


def test_the_floor_says_what_may_still_come(opened: Callable[..., Spool]) -> None:
    spool = opened()
    for name in ("debug", "alarm", "metric"):
        spool.put(name, "it", {})
    alarm, metric, debug = spool.batches()
    assert [told(batch).floor for batch in (alarm, metric, debug)] == [0, 0, 0]
    spool.acked(ack(debug))
    assert told(spool.batches()[0]).floor == 1
    spool.quarantine(alarm)
    assert told(spool.batches()[0]).floor == 2


def test_what_nobody_takes_is_put_aside_and_goes_first(opened: Callable[..., Spool]) -> None:
    spool = opened(most_bytes=1 << 20)
    spool.put("alarm", "poison", {"text": "x" * 1000})
    spool.put("alarm", "fine", {})
    spool.quarantine(spool.batches()[0]._replace(seqs=(0,)))
    assert [row.kind for row in spool.quarantined()] == ["poison"]
    assert [told(batch).records[0].kind for batch in spool.batches()] == ["fine"]
    assert spool.counts().quarantined == 1
    while not spool.counts().dropped:
        spool.put("debug", "log", {"text": "x" * 10_000})
    assert spool.counts().quarantined == 0


def test_flipped_bits_cost_one_record_each(opened: Callable[..., Spool], tmp_path: Path) -> None:
    spool = opened()
    for turn in range(20):
        spool.put("metric", "requests", {"turn": turn, "text": f"needle-{turn:02}"})
    spool.close()
    path = tmp_path / "spool" / FILE
    path.write_bytes(path.read_bytes().replace(b"needle-07", b"needle-0w"))
    spool = opened()
    turns = [record.data["turn"] for batch in spool.batches() for record in told(batch).records]
    assert turns == [*range(7), *range(8, 20)]
    assert spool.counts().damaged == 1
    assert spool.counts().waiting["metric"] == 19


def test_of_a_broken_file_what_is_whole_is_saved(
    opened: Callable[..., Spool], tmp_path: Path
) -> None:
    spool = opened()
    for turn in range(300):
        spool.put("metric", "requests", {"turn": turn, "text": "y" * 400})
    epoch = spool.epoch
    spool.close()
    path = tmp_path / "spool" / FILE
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = os.urandom(4096)
    path.write_bytes(data)
    spool = opened()
    batches = spool.batches(999)
    saved = [s for batch in batches if batch.epoch == epoch for s in batch.seqs]
    assert 100 < len(saved) < 300
    assert len(set(saved)) == len(saved)
    [alarm] = [told(batch).records[0] for batch in batches if batch.name == "alarm"]
    assert alarm.kind == "damaged"
    assert alarm.data["saved"] == len(saved)
    assert sorted(p.name for p in path.parent.iterdir()) == [FILE, f"{FILE}-shm", f"{FILE}-wal"]


def test_garbage_instead_of_a_file_is_no_obstacle(
    opened: Callable[..., Spool], tmp_path: Path
) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / FILE).write_bytes(os.urandom(5000))
    spool = opened()
    assert spool.put("metric", "requests", {})
    assert [batch.name for batch in spool.batches()] == ["alarm", "metric"]


def test_a_file_that_breaks_while_it_is_open_is_left(
    opened: Callable[..., Spool], tmp_path: Path
) -> None:
    spool = opened()
    for turn in range(50):
        spool.put("metric", "requests", {"turn": turn, "text": "z" * 2000})
    path = tmp_path / "spool" / FILE
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()
    size = path.stat().st_size
    path.write_bytes(b"\0" * 100 + os.urandom(size - 100))
    for turn in range(50, 60):
        spool.put("metric", "requests", {"turn": turn})
    spool.tend()
    turns = {r.data.get("turn") for b in spool.batches(999) for r in told(b).records}
    assert set(range(52, 60)) <= turns


def test_without_a_disk_the_important_is_held_and_told(tmp_path: Path, steady: Steady) -> None:
    folder = tmp_path / "spool"
    folder.write_text("in the way")
    with Spool(folder, "cam-1", steady=steady) as spool:
        assert not spool.put("alarm", "module", {"name": "iris"})
        for _ in range(400):
            assert not spool.put("debug", "log", {})
        assert spool.counts().trouble
        assert spool.counts().waiting == {"alarm": 1, "status": 0, "metric": 0, "debug": 255}
        assert spool.counts().dropped == {"debug": 145}
        alarm, debug = spool.batches()
        assert alarm.seqs == (0,)
        assert spool.acked(ack(alarm)) == 1
        folder.unlink()
        steady.now = 60
        assert spool.put("metric", "requests", {})
        assert spool.counts().trouble == ""
        assert {b.name: len(b.seqs) for b in spool.batches()} == {"metric": 1, "debug": 255}
        assert spool.acked(ack(debug)) == 255
        assert spool.counts().dropped == {"debug": 145}


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError):
        Limits(most_bytes=1000)
    with pytest.raises(UsageError):
        Limits(debug_s=0)


def test_nothing_of_a_device_without_a_name() -> None:
    with pytest.raises(Exception, match="cannot name"):
        Spool(Path("/nowhere"), "a/b")


def test_the_words_of_classes_are_the_protocols() -> None:
    assert json.dumps(CLASSES) == '["alarm", "status", "metric", "debug"]'
