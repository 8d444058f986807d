"""From the spool to the controller and back, over a link that loses, repeats, and breaks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from edge.protocol.messages import Ack, Telemetry, decode
from edge.protocol.topics import of_class, topic
from edge.telemetry.inbox import Inbox
from edge.telemetry.ingest import Ingest
from edge.telemetry.received import unpack
from edge.telemetry.spool import Batch, Spool
from edge.telemetry.uplink import MOST_IN_FLIGHT, Uplink


class Steady:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def steady() -> Steady:
    return Steady()


@pytest.fixture
def spool(tmp_path: Path, steady: Steady) -> Iterator[Spool]:
    with Spool(tmp_path / "spool", "cam-1", steady=steady) as found:
        yield found


@pytest.fixture
def uplink(spool: Spool, steady: Steady) -> Uplink:
    return Uplink(spool, steady=steady, jitter=lambda: 1.0)


def ack(batch: Batch) -> Ack:
    return Ack(device="cam-1", epoch=batch.epoch, ranges=tuple((s, s) for s in batch.seqs))


def fill(spool: Spool, count: int, size: int = 10, name: str = "metric") -> None:
    spool.put_many(
        [(name, "requests", {"n": n, "text": "x" * size}, None) for n in range(count)]  # type: ignore[misc]
    )


def test_nothing_goes_without_a_link(spool: Spool, uplink: Uplink) -> None:
    fill(spool, 3)
    assert uplink.due() == []
    uplink.connected()
    [batch] = uplink.due()
    assert batch.seqs == (0, 1, 2)
    assert uplink.due() == []
    assert uplink.acked(ack(batch)) == 3
    assert uplink.in_flight == 0


def test_the_important_goes_first_and_the_window_opens_with_answers(
    spool: Spool, uplink: Uplink
) -> None:
    fill(spool, 5000, 300)
    fill(spool, 1, name="alarm")
    uplink.connected()
    sent = uplink.due()
    assert [batch.name for batch in sent] == ["alarm"]
    widths = []
    while sent:
        for batch in sent:
            uplink.acked(ack(batch))
        sent = uplink.due()
        widths.append(uplink.in_flight)
    assert max(widths) <= MOST_IN_FLIGHT
    assert widths[:2] == [2, 4]
    assert spool.batches() == []


def test_a_silent_controller_is_asked_more_and_more_rarely(
    spool: Spool, uplink: Uplink, steady: Steady
) -> None:
    fill(spool, 2000, 300)
    uplink.connected()
    times = []
    while steady.now < 3600:
        if uplink.due():
            times.append(steady.now)
        assert uplink.in_flight <= 1
        steady.now += 5
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(times) < 12
    assert gaps == sorted(gaps)
    assert spool.counts().quarantined == 0
    [batch] = uplink.due() or [f.batch for f in uplink._flights]
    uplink.acked(ack(batch))
    assert len(uplink.due()) == 2


def test_metrics_are_gathered_and_alarms_are_not(
    spool: Spool, uplink: Uplink, steady: Steady
) -> None:
    uplink.connected()
    sent: list[Batch] = []
    for second in range(60):
        steady.now = float(second)
        fill(spool, 1)
        for batch in uplink.due():
            sent.append(batch)
            uplink.acked(ack(batch))
    assert len(sent) == 4
    assert 0 < uplink.wait_s() <= 15
    fill(spool, 1, name="alarm")
    assert [batch.name for batch in uplink.due()] == ["alarm"]


def run(uplink: Uplink, steady: Steady, answer: Callable[[Batch], bool], turns: int = 250) -> None:
    for turn in range(turns):
        steady.now += 25
        uplink.spool.put("status", "turn", {"turn": turn})
        for batch in uplink.due():
            if answer(batch):
                uplink.acked(ack(batch))


def test_a_record_that_nobody_takes_is_put_aside_alone(
    spool: Spool, uplink: Uplink, steady: Steady
) -> None:
    fill(spool, 300)
    spool.put("metric", "poison", {})
    fill(spool, 300)
    uplink.connected()

    def answer(batch: Batch) -> bool:
        return all(r.kind != "poison" for r in decode(batch.payload, Telemetry).records)

    run(uplink, steady, answer)
    assert [row.kind for row in spool.quarantined()] == ["poison"]
    assert spool.counts().waiting["metric"] == 0


def test_a_record_that_cuts_the_link_is_put_aside_alone(
    spool: Spool, uplink: Uplink, steady: Steady
) -> None:
    fill(spool, 300)
    spool.put("metric", "poison", {})
    fill(spool, 300)
    uplink.connected()
    for turn in range(300):
        steady.now += 25
        spool.put("status", "turn", {"turn": turn})
        for batch in uplink.due():
            if any(r.kind == "poison" for r in decode(batch.payload, Telemetry).records):
                uplink.disconnected()
                uplink.connected()
                break
            uplink.acked(ack(batch))
    assert [row.kind for row in spool.quarantined()] == ["poison"]
    assert spool.counts().waiting["metric"] == 0


def test_a_link_that_breaks_often_puts_nothing_aside(
    spool: Spool, uplink: Uplink, steady: Steady
) -> None:
    fill(spool, 3000, 300)
    random = Random(7)
    uplink.connected()
    for _ in range(3000):
        steady.now += 5
        for batch in uplink.due():
            if random.random() < 0.2:
                uplink.disconnected()
                uplink.connected()
                break
            uplink.acked(ack(batch))
        if not spool.counts().waiting["metric"]:
            break
    assert spool.counts().waiting["metric"] == 0
    assert spool.counts().quarantined == 0


@pytest.mark.parametrize("seed", range(3))
def test_over_a_bad_link_each_record_is_stored_once(
    tmp_path: Path, steady: Steady, seed: int
) -> None:
    """Messages are lost, doubled, reordered; the device restarts; the controller restarts."""
    random = Random(seed)
    put: set[tuple[str, int]] = set()
    channel: list[Batch] = []
    spool = Spool(tmp_path / "spool", "cam-1", steady=steady)
    uplink = Uplink(spool, steady=steady)
    inbox = Inbox(tmp_path / "inbox")
    ingest = Ingest(inbox, steady=steady)
    uplink.connected()
    for turn in range(500):
        steady.now += random.choice([1, 5, 30])
        if turn < 350:
            for _ in range(random.randrange(4)):
                spool.put("metric", "requests", {"turn": turn})
                put.add((spool.epoch, len([p for p in put if p[0] == spool.epoch])))
            event = random.random()
            if event < 0.02:
                spool.close()
                spool = Spool(tmp_path / "spool", "cam-1", steady=steady)
                uplink = Uplink(spool, steady=steady)
                uplink.connected()
            elif event < 0.04:
                inbox.close()
                inbox = Inbox(tmp_path / "inbox")
                ingest = Ingest(inbox, steady=steady)
            elif event < 0.1:
                uplink.disconnected()
                uplink.connected()
        channel += uplink.due()
        random.shuffle(channel)
        for batch in channel[: random.randrange(4)]:
            if random.random() < 0.3 and turn < 400:
                channel.remove(batch)
                continue
            found = ingest.take(topic("s", "cam-1", of_class(batch.name)), batch.payload)
            if random.random() > 0.2 or turn > 400:
                channel.remove(batch)
                assert found is not None
                uplink.acked(found)
    spool.tend()
    assert spool.counts().waiting["metric"] == spool.counts().quarantined == 0
    with inbox.transaction(write=False):
        batches = [unpack(one.body) for one in inbox.stored(0, 100_000)]
    got = [(batch.epoch, record.seq) for batch in batches for record in batch.records]
    assert len(got) == len(set(got))
    assert set(got) == put
    spool.close()
    inbox.close()


def test_a_controller_that_is_heard_again_gets_at_once_what_it_has_not_answered(
    spool: Spool, uplink: Uplink, steady: Steady
) -> None:
    fill(spool, 3)
    uplink.heard()  # without a link nothing follows
    uplink.connected()
    [first] = uplink.due()
    uplink.heard()  # it was sent a moment ago: the answer may be on its way
    assert uplink.due() == []
    steady.now += 6
    uplink.heard()
    [again] = uplink.due()
    assert again.seqs == first.seqs
    steady.now += 21  # nobody answers for long: it waits longer and longer
    assert uplink.due() == []
    steady.now += 1
    uplink.heard()
    [last] = uplink.due()
    assert uplink.acked(ack(last)) == 3
