"""Spans on their way to a collector that may be slow or down."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest

from serve.server.telemetry import export, otlp
from serve.server.telemetry.export import Exporter, Outbox
from serve.server.telemetry.otlp import Packed
from serve.server.telemetry.otlpsettings import Target
from serve.server.telemetry.posting import SendError
from tests.support.collector import Collector
from tests.support.server import until


class Sender:
    """Takes batches."""

    def __init__(self) -> None:
        self.batches: list[list[Packed]] = []
        self.result: tuple[int, str] | Exception = 0, ""
        self.go = threading.Event()
        self.go.set()

    def send(self, spans: Sequence[Packed]) -> tuple[int, str]:
        assert self.go.wait(20)
        self.batches.append(list(spans))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def close(self) -> None:
        self.go.set()


def fill(outbox: Outbox, many: int, size: int = 8) -> None:
    for number in range(many):
        outbox.put((b"scope", number.to_bytes(size)))


def test_spans_go_in_batches_and_none_is_lost() -> None:
    sender = Sender()
    outbox = Outbox(sender, "here", every_s=0.01)
    fill(outbox, 1300)
    outbox.close()
    sent = [int.from_bytes(span) for batch in sender.batches for _, span in batch]
    assert sent == list(range(1300))
    assert max(map(len, sender.batches)) <= 512
    assert (outbox.exported, outbox.dropped) == (1300, 0)


def test_few_spans_do_not_wait_for_long() -> None:
    outbox = Outbox(Sender(), "here", every_s=0.01)
    fill(outbox, 1)
    until(lambda: outbox.exported == 1)
    outbox.close()


def test_many_spans_do_not_wait_for_others() -> None:
    sender = Sender()
    outbox = Outbox(sender, "here", every_s=600)
    fill(outbox, 512)
    until(lambda: outbox.exported == 512)
    fill(outbox, 3, 1 << 20)
    until(lambda: outbox.exported >= 514)
    outbox.close()
    assert [len(batch) for batch in sender.batches] == [512, 2, 1]


@pytest.mark.parametrize(
    ("result", "lost", "told"),
    [
        (SendError("503 Service Unavailable"), 7, "(503 Service Unavailable)"),
        (ValueError("authorization: Bearer hunter2"), 7, "(ValueError)"),
        ((2, "over\nquota\x1b" + "!" * 500), 4, "(over quota?!!!"),
    ],
    ids=["failed", "raised", "refused some"],
)
def test_what_the_collector_does_not_take_is_counted(
    result: tuple[int, str] | Exception, lost: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    sender = Sender()
    sender.result = result
    outbox = Outbox(sender, "here", every_s=0.01)
    with caplog.at_level(logging.ERROR):
        for many in (3, 4):
            fill(outbox, many)
            until(lambda: not outbox._spans)
            until(lambda many=many: len(sender.batches[-1]) == many)  # type: ignore[misc]
        until(lambda: outbox.dropped == lost)
    (record,) = caplog.records
    assert "to here " + told in record.getMessage()
    assert "hunter2" not in record.getMessage()
    assert len(record.getMessage()) < 300
    sender.result = 0, ""
    fill(outbox, 2)
    outbox.close()
    assert (outbox.exported, outbox.dropped) == (9 - lost, lost)


def test_what_a_collector_says_besides_is_told(caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender()
    sender.result = 0, "use a newer version"
    outbox = Outbox(sender, "here", every_s=0.01)
    fill(outbox, 2)
    outbox.close()
    assert (outbox.exported, outbox.dropped) == (2, 0)
    assert [record.getMessage() for record in caplog.records] == [
        "here took spans, and says: use a newer version"
    ]


def test_a_collector_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_MOST_SPANS", 600)
    sender = Sender()
    sender.go.clear()
    outbox = Outbox(sender, "here", every_s=0.01)
    fill(outbox, 1)
    until(lambda: not outbox._spans)
    fill(outbox, 1000)
    assert outbox.dropped == 400
    outbox.close(0.05)
    assert outbox.exported + outbox.dropped == 1001
    fill(outbox, 1)
    assert outbox.exported + outbox.dropped == 1002


def test_large_spans_take_no_more_memory_than_there_is_for_them() -> None:
    sender = Sender()
    sender.go.clear()
    outbox = Outbox(sender, "here", every_s=0.01)
    fill(outbox, 1)
    until(lambda: not outbox._spans)
    fill(outbox, 20, 1 << 20)
    assert (len(outbox._spans), outbox.dropped) == (8, 12)
    fill(outbox, 1, 9 << 20)
    assert outbox.dropped == 13
    sender.go.set()
    until(lambda: outbox.exported == 9)
    assert all(sum(len(span) for _, span in batch) <= 2 << 20 for batch in sender.batches)
    assert outbox._bytes == 0
    outbox.close()


def packed(many: int) -> list[Packed]:
    scope = otlp.scope("test")
    return [(scope, otlp.Span(f"s{n}", 1, n + 1, 1, 2).encode()) for n in range(many)]


@pytest.mark.parametrize(
    ("answer", "kind", "expected"),
    [
        (b"", "application/x-protobuf", (0, "")),
        (b"\x0a\x06\x08\x02\x12\x02no", "application/x-protobuf", (2, "no")),
        (b"\x0a\x04\x12\x02hm", "application/x-protobuf", (0, "hm")),
        (b"\x0a\x02\x08\x63", "application/x-protobuf", (3, "")),
        (b"\x0a\xff", "application/x-protobuf", (0, "")),
        (b"\x0a\x02\x08\x02", "text/plain", (0, "")),
        (b'{"partialSuccess": {}}', "application/json", (0, "")),
    ],
    ids=["all", "some", "a word", "too many", "broken", "no protobuf", "json"],
)
def test_a_collector_may_take_only_some(
    answer: bytes, kind: str, expected: tuple[int, str]
) -> None:
    with Collector() as collector:
        collector.answer, collector.answered = answer, {"content-type": kind}
        exporter = Exporter(Target.make(collector.url, {}), otlp.resource({"service.name": "s"}))
        assert exporter.send(packed(3)) == expected
        exporter.close()
    assert [span.name for span in collector.spans] == ["s0", "s1", "s2"]
    assert collector.services == {"s"}
