"""72 hours without a link, in simulated time: what a device tells arrives once, or is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

from edge.protocol.topics import of_class, topic
from edge.telemetry.inbox import Inbox
from edge.telemetry.ingest import Ingest
from edge.telemetry.limits import Limits
from edge.telemetry.received import unpack
from edge.telemetry.spool import Spool
from edge.telemetry.uplink import Uplink

HOURS = 72
_STEP_S = 300.0
_ALARM_EVERY = 9
_RESTART_EVERY = 120


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Offline:
    """A device that tells its metrics every five minutes, and now and then an alarm, to nobody."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self.time = Time()
        self.told: Counter[str] = Counter()
        self.open()

    def open(self) -> None:
        self.spool = Spool(self._folder, "cam", self._limits, steady=self.time, clock=self.time)
        self.uplink = Uplink(self.spool, steady=self.time, jitter=lambda: 1.0)

    def minute(self, number: int) -> None:
        self.time.now += _STEP_S
        text = Random(number).randbytes(500).hex()
        self.spool.put("metric", "requests", {"minute": number, "text": text})
        self.spool.put("debug", "sample", {"minute": number, "text": text})
        self.told.update(["metric", "debug"])
        if number % _ALARM_EVERY == 0:
            self.spool.put("alarm", "module", {"minute": number})
            self.told["alarm"] += 1
        assert self.uplink.due() == []  # there is no link
        self.spool.tend()
        if number % _RESTART_EVERY == _RESTART_EVERY - 1:
            self.spool.close()
            self.open()


def drain(device: Offline, ingest: Ingest, random: Random) -> None:
    """The link is back, and loses a fifth of what is said, each way."""
    device.uplink.connected()
    for _ in range(200_000):
        device.time.now += 1
        for batch in device.uplink.due():
            if random.random() < 0.2:
                continue
            found = ingest.take(topic("s", "cam", of_class(batch.name)), batch.payload)
            if found is not None and random.random() > 0.2:
                device.uplink.acked(found)
        if not any(device.spool.counts().waiting.values()):
            return
    raise AssertionError(device.spool.counts())


def stored(inbox: Inbox) -> list[tuple[str, str, int]]:
    with inbox.transaction(write=False):
        batches = [unpack(one.body) for one in inbox.stored(0, 1_000_000)]
    return [(one.epoch, record.kind, record.seq) for one in batches for record in one.records]


def test_a_spool_with_room_loses_nothing(tmp_path: Path) -> None:
    lost, got, told = offline(tmp_path, Limits(debug_s=HOURS * 7200.0))
    assert not any(lost.values())
    assert got == told


def test_a_small_spool_drops_the_least_important_and_counts_it(tmp_path: Path) -> None:
    lost, got, told = offline(tmp_path, Limits(most_bytes=1 << 20, debug_s=HOURS * 7200.0))
    assert lost["debug"] > 0
    assert got["alarm"] == told["alarm"]
    assert got + lost == told


def offline(tmp_path: Path, limits: Limits) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """What was dropped, what was stored, and what was told, by class."""
    device = Offline(tmp_path / "spool", limits)
    for minute in range(HOURS * 12):
        device.minute(minute)
    with Inbox(tmp_path / "inbox") as inbox:
        drain(device, Ingest(inbox, steady=device.time), Random(72))
        rows = stored(inbox)
    assert len({(epoch, seq) for epoch, _, seq in rows}) == len(rows)
    assert device.spool.counts().quarantined == 0
    lost = Counter({str(name): count for name, count in device.spool.dropped().items()})
    device.spool.close()
    classes = {"requests": "metric", "sample": "debug", "module": "alarm"}
    return lost, Counter(classes[kind] for _, kind, _ in rows), device.told
