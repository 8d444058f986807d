"""Pages of metrics, read as Prometheus reads them; what changed between two of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edge.telemetry.metrics import Traffic, from_dict, parse, traffic
from serve.server.telemetry import metrics
from serve.server.telemetry.families import BATCH_ROWS, DURATION, REJECTED, REQUESTS, ROWS, SECONDS


def page(ok: float, failed: float = 0, refused: float = 0) -> str:
    """As a worker writes it, with names from the server's own table."""
    buckets = [0.0] * len(SECONDS)
    buckets[5], buckets[9] = ok, failed
    samples: metrics.Samples = {
        REQUESTS: {
            ("iris", "1", "score", "200"): [ok],
            ("iris", "1", "score", "500"): [failed],
            ("iris", "1", "v2", "422"): [refused],
            ("iris", "1", "grpc", "INTERNAL"): [failed],
            ("iris", "1", "grpc", "OK"): [ok],
            ("", "", "http", "200"): [999.0],
        },
        DURATION: {
            ("iris", "1", "score"): [*buckets, 1.0, 0.25],
            ("", "", "http"): [*([7.0] * len(SECONDS)), 0.0, 9.0],
        },
        REJECTED: {("overloaded",): [3.0]},
        BATCH_ROWS: {("iris", "1"): [*([1.0] * (len(ROWS) + 1)), 64.0]},
    }
    return metrics.render(samples, metrics.TEXT).decode()


def test_a_workers_page_is_read() -> None:
    found = traffic(parse(page(10, 2, 1)))
    assert found.requests == 25
    assert found.errors == 4
    assert found.refused == 1
    assert found.rejected == 3
    assert found.rows == 64
    assert found.seconds == 0.25
    assert found.latency == {SECONDS[5]: 10, SECONDS[9]: 2, math.inf: 1}
    assert found.quantile(0.5) == SECONDS[5]
    assert found.quantile(0.99) == math.inf
    assert Traffic().quantile(0.99) == 0


def test_what_changed_is_told_and_a_restart_begins_anew() -> None:
    before, after = traffic(parse(page(10))), traffic(parse(page(15, 1)))
    new = after.since(before)
    assert (new.requests, new.errors) == (12, 2)
    assert new.latency == {SECONDS[5]: 5, SECONDS[9]: 1}
    assert before.since(after) == before
    assert after.since(after).requests == 0
    assert from_dict(after.to_dict()) == after
    assert before.plus(new)._replace(rejected=3, rows=64, seconds=0.25) == after._replace(
        latency=before.plus(new).latency
    )


@pytest.mark.parametrize(
    "data", [{}, {"requests": "x", "latency": 3}, {"errors": -1, "latency": {"x": 1, "+Inf": None}}]
)
def test_what_is_no_traffic_is_none(data: dict[str, object]) -> None:
    found = from_dict(data)
    assert (found.requests, found.errors) == (0, 0)
    assert sum(found.latency.values()) == 0


def test_pages_are_read_as_the_library_of_prometheus_reads_them() -> None:
    text = page(3, 1) + 'odd{a="x\\"y",b="back\\\\slash",c="new\\nline, }"} 1.5e-3 1700000000000\n'
    wanted = {
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert {(n, tuple(sorted(labels.items())), v) for n, labels, v in parse(text)} == wanted


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    traffic(parse(text))
