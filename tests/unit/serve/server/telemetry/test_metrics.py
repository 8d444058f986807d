"""The text of a scrape, read by Prometheus' own client library."""

from __future__ import annotations

from math import inf

import pytest

from serve.server.telemetry import families as f
from serve.server.telemetry import metrics
from serve.server.telemetry.counters import Cells
from serve.server.telemetry.metrics import OPENMETRICS, TEXT, Samples
from tests.support.telemetry import Scrape

# What Prometheus 2 and 3 send.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;"
    "version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
    "encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3"
)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0,text/plain;q=0.5,*/*;q=0.1", OPENMETRICS),
        (PROMETHEUS, OPENMETRICS),
        (PROTOBUF, TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=high", TEXT),
        ("application/openmetrics-text;q=0.1,text/plain", TEXT),
        ("Application/OpenMetrics-Text", OPENMETRICS),
        (";;,,=;q", TEXT),
    ],
)
def test_the_format_is_the_one_that_the_client_prefers(accept: str, kind: str) -> None:
    assert metrics.content_type(accept) == kind


@pytest.mark.parametrize("kind", [TEXT, OPENMETRICS], ids=["text", "openmetrics"])
def test_a_parser_reads_every_family(kind: str) -> None:
    samples: Samples = {}
    for number, family in enumerate((*f.COUNTED, *f.COMPUTED)):
        labels = tuple(f"{label} {number}" for label in family.labels)
        samples[family] = {labels: [float(number)] * family.width}
    page = Scrape(metrics.render(samples, kind).decode(), kind)
    assert len(page.families) == len(samples)
    for family in samples:
        read = page.families[family.name]
        assert read.type == family.kind
        assert read.documentation == family.help


@pytest.mark.parametrize("kind", [TEXT, OPENMETRICS], ids=["text", "openmetrics"])
def test_labels_of_any_text_come_through(kind: str) -> None:
    text = 'a"b\\c\nd,e}f{ü=\\n'
    samples: Samples = {f.REJECTED: {(text,): [1.0]}}
    page = Scrape(metrics.render(samples, kind).decode(), kind)
    assert page("fieldpost_rejected_total", reason=text) == 1


def test_buckets_add_up() -> None:
    cells = Cells.in_memory()
    first = cells.block(f.BATCH_ROWS, "m", "1")
    for bucket, many in ((0, 3), (4, 2), (len(f.ROWS), 1)):
        cells.values[first + bucket] += many
    cells.values[first + len(f.ROWS) + 1] = 99.5
    samples: Samples = {}
    metrics.add(samples, cells, alive=True)
    page = Scrape(metrics.render(samples, OPENMETRICS).decode(), OPENMETRICS)
    name = "fieldpost_batch_rows"
    counts = [
        page(f"{name}_bucket", le=bound) for bound in ("1.0", "8.0", "16.0", "4096.0", "+Inf")
    ]
    assert counts == [3, 3, 5, 5, 6]
    assert page(f"{name}_count") == 6
    assert page(f"{name}_sum") == 99.5


def test_workers_are_added_up_and_the_dead_only_count() -> None:
    samples: Samples = {}
    for alive, seconds in ((True, 2.0), (True, 3.0), (False, 9.0)):
        cells = Cells.in_memory()
        cells.values[cells.block(f.REJECTED, "overloaded")] += 1
        cells.values[cells.block(f.QUEUE, "m", "1")] = 4
        cells.values[cells.block(f.LOAD_SECONDS, "m", "1")] = seconds
        metrics.add(samples, cells, alive=alive)
    page = Scrape(metrics.render(samples, TEXT).decode())
    assert page("fieldpost_rejected_total") == 3
    assert page("fieldpost_queue_depth") == 8
    assert page("fieldpost_model_load_seconds") == 3


def test_numbers_are_written_whole_or_to_the_last_bit() -> None:
    numbers = [0.0, 1.0, 0.1, 1e-05, 123456789.0, 2.0**53, -1.0, inf, -inf, 0.30000000000000004]
    assert [float(metrics.number(number)) for number in numbers] == numbers
    assert metrics.number(3.0) == "3"


def test_buckets_reach_from_microseconds_to_a_minute() -> None:
    assert f.SECONDS[0] == 1e-05
    assert f.SECONDS[-1] == 60
    for bounds in (f.SECONDS, f.BYTES, f.ROWS):
        assert list(bounds) == sorted(set(bounds))
    assert f.BYTES[-1] == 64 << 20
