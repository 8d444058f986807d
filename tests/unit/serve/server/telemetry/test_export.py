"""Spans on their way to a collector that may be slow or down."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from enum import Enum
from typing import Any

import pytest

from serve.server.telemetry import export
from serve.server.telemetry.export import Outbox
from tests.support.server import until


class Result(Enum):
    SUCCESS = 0
    FAILURE = 1


class Sender:
    """Takes batches, as the exporter of OpenTelemetry does."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.result: Result | Exception = Result.SUCCESS
        self.go = threading.Event()
        self.go.set()

    def export(self, spans: Sequence[Any]) -> object:
        assert self.go.wait(20)
        self.batches.append(list(spans))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def shutdown(self) -> None:
        self.go.set()


def fill(outbox: Outbox, many: int) -> None:
    for number in range(many):
        outbox.put(number)  # type: ignore[arg-type]


def test_spans_go_in_batches_and_none_is_lost() -> None:
    sender = Sender()
    outbox = Outbox(sender, "here", every_s=0.01)
    fill(outbox, 1300)
    outbox.close()
    assert [span for batch in sender.batches for span in batch] == list(range(1300))
    assert max(map(len, sender.batches)) <= 512
    assert (outbox.exported, outbox.dropped) == (1300, 0)


def test_few_spans_do_not_wait_for_long() -> None:
    outbox = Outbox(Sender(), "here", every_s=0.01)
    fill(outbox, 1)
    until(lambda: outbox.exported == 1)
    outbox.close()


@pytest.mark.parametrize("result", [Result.FAILURE, ValueError("odd")], ids=["refused", "raised"])
def test_what_the_collector_does_not_take_is_counted(
    result: Result | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    sender = Sender()
    sender.result = result
    outbox = Outbox(sender, "here", every_s=0.01)
    with caplog.at_level(logging.ERROR):
        for many in (3, 4):
            fill(outbox, many)
            until(lambda: not outbox._spans)
        until(lambda: outbox.dropped == 7)
    assert len(caplog.records) == 1
    sender.result = Result.SUCCESS
    fill(outbox, 2)
    outbox.close()
    assert (outbox.exported, outbox.dropped) == (2, 7)


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
