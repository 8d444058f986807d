"""Into the inbox: each record once, durable before it is acknowledged."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.protocol.messages import Ack, Record, Telemetry, encode, encode_compressed
from edge.protocol.topics import Class, Topic, of_class, topic
from edge.telemetry.inbox import FILE, MOST_RUNS, Inbox, Taken
from edge.telemetry.ingest import MOST_WAITING, Ingest, Quota
from edge.telemetry.received import unpack
from scoring.errors import (
    MalformedPayloadError,
    PayloadTooLargeError,
    RateLimitedError,
    WorkspaceError,
)


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    with Inbox(tmp_path / "telemetry") as found:
        yield found


@pytest.fixture
def ingest(inbox: Inbox) -> Ingest:
    return Ingest(inbox, clock=lambda: 100.0)


def at(device: str = "cam-1", name: Class = "metric") -> Topic:
    return topic("home", device, of_class(name))


def message(*seqs: int, device: str = "cam-1", epoch: str = "e", **more: Any) -> bytes:
    records = tuple(Record(seq=n, at=1.0, kind="requests", data={"n": n}) for n in seqs)
    return encode_compressed(Telemetry(device=device, epoch=epoch, records=records, **more))


def stored(inbox: Inbox) -> list[int]:
    with inbox.transaction(write=False):
        batches = inbox.stored(0, 10_000)
    found = []
    for one in batches:
        batch = unpack(one.body)
        assert one.records == len(batch.records)
        assert all(msgspec.json.decode(r.data) == {"n": r.seq} for r in batch.records)
        found += [record.seq for record in batch.records]
    return found


def test_each_record_is_stored_once_however_often_it_comes(ingest: Ingest, inbox: Inbox) -> None:
    assert ingest.take(at(), message(0, 1, 2)) == Ack(device="cam-1", epoch="e", ranges=((0, 2),))
    assert ingest.take(at(), message(0, 1, 2)) == Ack(device="cam-1", epoch="e", ranges=((0, 2),))
    assert ingest.take(at(), message(5, 2, 9, 5)) == Ack(
        device="cam-1", epoch="e", ranges=((2, 2), (5, 5), (9, 9))
    )
    assert ingest.take(at(), message(0, epoch="other")) is not None
    assert ingest.take(at("cam-2"), message(0, device="cam-2")) is not None
    assert stored(inbox) == [0, 1, 2, 5, 9, 0, 0]
    assert (ingest.counts.records, ingest.counts.duplicates) == (7, 5)


def test_many_at_once_are_one_write(ingest: Ingest, inbox: Inbox) -> None:
    for first in range(0, 100, 10):
        ingest.add(at(), message(*range(first, first + 10)))
        ingest.add(at(), message(*range(first, first + 10)))
    assert stored(inbox) == []
    assert len(ingest.commit()) == 20
    assert stored(inbox) == list(range(100))
    assert ingest.commit() == []


def test_what_is_below_the_floor_is_not_awaited(ingest: Ingest, inbox: Inbox) -> None:
    ingest.take(at(), message(*range(0, 100, 2)))
    ack = ingest.take(at(), message(200, floor=150))
    assert ack is not None
    assert ingest.take(at(), message(1, 151)) == Ack(
        device="cam-1", epoch="e", ranges=((1, 149), (151, 151))
    )
    assert stored(inbox) == [*range(0, 100, 2), 200, 151]
    with pytest.raises(MalformedPayloadError):
        ingest.take(at(), message(3, floor=4))


@pytest.mark.parametrize(
    ("where", "payload", "error"),
    [
        (at("cam-2"), message(0), MalformedPayloadError),
        (topic("home", "cam-1", "reported"), message(0), MalformedPayloadError),
        (at(), b"garbage", MalformedPayloadError),
        (at(), b"{}", MalformedPayloadError),
        (at(), encode(Ack(device="cam-1", epoch="e")), MalformedPayloadError),
        (at(), b'{"device":"cam-1","epoch":"e","records":[{"seq":-1}]}', MalformedPayloadError),
        (at(), b"x" * 70_000, PayloadTooLargeError),
    ],
)
def test_what_is_none_of_ours_is_refused(
    ingest: Ingest, inbox: Inbox, where: Topic, payload: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ingest.take(where, payload)
    assert stored(inbox) == []
    assert ingest.counts.refused == 1


def test_a_device_that_tells_too_much_waits_and_others_do_not(inbox: Inbox) -> None:
    now = [0.0]
    ingest = Ingest(inbox, quota=Quota(per_s=10, burst=20), steady=lambda: now[0])
    ingest.take(at(), message(*range(20)))
    with pytest.raises(RateLimitedError):
        ingest.take(at(), message(20))
    assert ingest.take(at("cam-2"), message(0, device="cam-2")) is not None
    now[0] = 1.0
    assert ingest.take(at(), message(*range(20, 30))) is not None
    assert ingest.counts.limited == 1


def test_what_waits_is_bounded(ingest: Ingest) -> None:
    for _ in range(MOST_WAITING):
        ingest.add(at(), message(0))
    with pytest.raises(RateLimitedError):
        ingest.add(at(), message(0))
    assert len(ingest.commit()) == MOST_WAITING


def test_a_stream_that_is_nothing_but_holes_gets_no_answer(ingest: Ingest, inbox: Inbox) -> None:
    numbers = list(range(0, 2 * MOST_RUNS, 2))
    for first in range(0, MOST_RUNS, 1000):
        assert ingest.take(at(), message(*numbers[first : first + 1000])) is not None
    assert ingest.take(at(), message(10**9)) is None
    assert ingest.take(at(), message(2**63, epoch="far")) is None
    assert ingest.take(at(), message(10**9, floor=10**9)) is not None
    assert len(stored(inbox)) == MOST_RUNS + 1


def test_what_devices_lost_is_known(ingest: Ingest, inbox: Inbox) -> None:
    ingest.take(at(), message(0, dropped={"debug": 3}))
    ingest.take(at(), message(1, dropped={"debug": 9}))
    [source] = inbox.sources()
    assert source == ("cam-1", "home", 2, {"debug": 9}, 100.0)


def test_listeners_hear_what_is_new_and_cannot_undo_it(inbox: Inbox) -> None:
    heard: list[list[int]] = []

    def listen(taken: Taken) -> None:
        heard.append([record.seq for record in taken.records])
        raise ValueError("no")

    ingest = Ingest(inbox, listeners=[listen])
    assert ingest.take(at(), message(0, 1)) is not None
    assert ingest.take(at(), message(1, 2)) is not None
    assert heard == [[0, 1], [2]]


def test_two_controllers_store_each_record_once(tmp_path: Path) -> None:
    payloads = [message(*range(first, first + 5)) for first in range(0, 500, 5)]
    acks: list[Ack | None] = []

    def run() -> None:
        with Inbox(tmp_path / "t") as inbox:
            ingest = Ingest(inbox)
            acks.extend([ingest.take(at(), payload) for payload in payloads])

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(acks) == 200
    assert None not in acks
    with Inbox(tmp_path / "t") as inbox:
        assert sorted(stored(inbox)) == list(range(500))


def test_it_is_all_there_after_a_reopening(tmp_path: Path) -> None:
    with Inbox(tmp_path / "t") as inbox:
        Ingest(inbox).take(at(), message(0, 1))
    with Inbox(tmp_path / "t") as inbox:
        Ingest(inbox).take(at(), message(1, 2))
        assert stored(inbox) == [0, 1, 2]


def test_a_failed_write_acknowledges_nothing(inbox: Inbox, ingest: Ingest) -> None:
    with sqlite3.connect(inbox.folder / FILE) as other:
        other.execute("DROP TABLE devices")
    other.close()
    with pytest.raises(WorkspaceError):
        ingest.take(at(), message(0))
    assert stored(inbox) == []
    assert ingest.waiting == 0


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=6), max_size=25), st.randoms())
def test_in_any_order_with_any_repeats(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], random: Any
) -> None:
    with Inbox(tmp_path_factory.mktemp("t")) as inbox:
        ingest = Ingest(inbox)
        for numbers in batches:
            ack = ingest.take(at(), message(*numbers))
            assert ack is not None
            answered = {n for a, b in ack.ranges for n in range(a, b + 1)}
            assert set(numbers) <= answered
            if random.random() < 0.2:
                ingest.take(at(), message(*numbers))
        wanted = {number for numbers in batches for number in numbers}
        assert sorted(stored(inbox)) == sorted(wanted)
