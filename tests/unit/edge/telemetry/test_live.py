"""What the fleet does now, and how monitoring is told."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge.protocol.messages import Record, Telemetry, encode_compressed
from edge.protocol.topics import topic
from edge.telemetry.families import families
from edge.telemetry.ingest import Ingest
from edge.telemetry.live import Live, Series
from edge.telemetry.otlp import Exporter, request
from edge.telemetry.prometheus import render
from edge.telemetry.reports import drift, reference_of, seen
from edge.telemetry.store import Store
from scoring.errors import NotFoundError, TrainingDataError, UnreachableError, UsageError
from scoring.profiles import of_rows

pytest.importorskip("duckdb")
START = 1_760_000_000.0


class Fleet:
    def __init__(self, folder: Path) -> None:
        self.now = START
        self.store = Store(folder, clock=lambda: self.now)
        self.live = Live(clock=lambda: self.now)
        self.ingest = Ingest(self.store.inbox, listeners=[self.live.take], clock=lambda: self.now)
        self.seqs: dict[str, int] = {}

    def tell(self, device: str, kind: str, data: dict[str, Any], **more: Any) -> None:
        seq = self.seqs[device] = self.seqs.get(device, -1) + 1
        record = Record(seq=seq, at=self.now, kind=kind, data=data)
        message = Telemetry(device=device, epoch="e", records=(record,), **more)
        where = topic("home", device, "tele/metric")
        for _ in range(2):  # whatever comes twice counts once
            self.ingest.take(where, encode_compressed(message))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path / "telemetry")
    yield found
    found.store.close()


def requests(count: int, errors: int = 0, package: str = "sha256:a") -> dict[str, Any]:
    latency = {"0.01": count - errors, "+Inf": errors}
    return {
        "module": "iris", "package": package, "requests": count, "errors": errors,
        "seconds": count / 100, "latency": latency,
    }  # fmt: skip


def test_traffic_is_known_by_module_package_and_time(fleet: Fleet) -> None:
    fleet.tell("cam-1", "requests", requests(100))
    fleet.now += 60
    fleet.tell("cam-1", "requests", requests(50, 5, "sha256:b"))
    fleet.tell("cam-2", "requests", requests(7))
    assert fleet.live.traffic("cam-1", "iris").requests == 150
    new = fleet.live.traffic("cam-1", "iris", package="sha256:b", since=START + 30)
    assert (new.requests, new.errors, new.quantile(0.5), new.quantile(0.99)) == (
        50, 5, 0.01, math.inf,
    )  # fmt: skip
    assert fleet.live.traffic("cam-1", "iris", since=START + 30).requests == 50
    assert fleet.live.traffic("cam-9", "iris").requests == 0
    again = Live(clock=lambda: fleet.now)
    assert again.load(fleet.store) == 3
    assert again.traffic("cam-1", "iris", package="sha256:b") == new
    fleet.now += 3600
    fleet.tell("cam-1", "requests", requests(1))
    assert fleet.live.traffic("cam-1", "iris", package="sha256:a").requests == 1
    assert fleet.live.totals[Series("home", "cam-1", "iris", "sha256:a")].requests == 101


def test_what_makes_no_sense_breaks_nothing(fleet: Fleet) -> None:
    fleet.tell("cam-1", "requests", {"module": [1], "requests": "many", "latency": {"x": 1}})
    fleet.tell("cam-1", "resources", {"cpu": "hot", "deep": {"er": {"x": 1}}})
    assert render(families(fleet.live.snapshot()))


POISON = (
    b'{"cpu":1' + b"0" * 400 + b"}",
    b'{"requests":-1' + b"0" * 400 + b"}",
    b'{"module":"iris","rows":1e999}',
    b'{"module":"\xff\xfe"}',
    b'{"module":"iris","columns":' + b"[" * 900 + b"]" * 900 + b"}",
    b"1e999",
)


def test_what_one_device_tells_does_not_spoil_what_others_do(fleet: Fleet) -> None:
    """Such as a number that is JSON, and larger than any that can be held here."""
    where = topic("home", "liar", "tele/metric")
    told = [(kind, data) for kind in (b"resources", b"requests", b"inputs") for data in POISON]
    told.append((b"requests", b'{"module":"iris","requests":7}'))
    records = b",".join(
        b'{"seq":%d,"at":1,"kind":"%s","data":%s}' % (seq, *one) for seq, one in enumerate(told)
    )
    ack = fleet.ingest.take(where, b'{"device":"liar","epoch":"e","records":[%s]}' % records)
    assert ack
    assert ack.ranges == ((0, len(told) - 1),)
    assert fleet.live.traffic("liar", "iris").requests == 7
    for _ in range(2):
        again = Live(clock=lambda: fleet.now)
        again.load(fleet.store)
        assert again.traffic("liar", "iris").requests == 7
        assert render(families(again.snapshot()))
        found = fleet.store.records()
        assert json.loads(json.dumps(found))
        assert {one["seq"] for one in found} == set(range(len(told)))
        assert seen(fleet.store, "iris") == []
        fleet.store.seal()


def test_prometheus_reads_it(fleet: Fleet) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    fleet.tell("cam-1", "requests", requests(100, 2) | {"module": 'odd"\\\n'})
    fleet.tell("cam-2", "requests", requests(10))
    fleet.tell("cam-2", "resources", {"cpu": 0.25, "spool": {"bytes": 12}}, dropped={"debug": 3})
    page = render(families(fleet.live.snapshot(), fleet.ingest.counts)).decode()
    found = {f.name: f for f in text_string_to_metric_families(page)}
    values = {
        (sample.name, sample.labels.get("device"), sample.labels.get("what")): sample.value
        for family in found.values()
        for sample in family.samples
    }
    assert values["fieldpost_fleet_requests_total", "cam-1", None] == 100
    assert values["fieldpost_fleet_errors_total", "cam-1", None] == 2
    assert values["fieldpost_fleet_device", "cam-2", "cpu"] == 0.25
    assert values["fieldpost_fleet_device", "cam-2", "spool_bytes"] == 12
    assert values["fieldpost_fleet_records_dropped_total", "cam-2", None] == 3
    [sample] = [
        s
        for s in found["fieldpost_fleet_request_duration_seconds"].samples
        if s.name.endswith("_count") and s.labels["module"] == "iris"
    ]
    assert sample.value == 10
    outcomes = {s.labels["outcome"]: s.value for s in found["fieldpost_fleet_telemetry"].samples}
    assert outcomes == {"stored": 3, "duplicate": 3, "refused": 0, "limited": 0}


class Collector(HTTPServer):
    bodies: list[bytes]
    status = 200


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        server: Collector

        def do_POST(self) -> None:
            assert self.path == "/v1/metrics"
            assert self.headers["x-token"] == "secret"
            self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(self.server.status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None: ...

    found = Collector(("127.0.0.1", 0), Handler)
    found.bodies = []
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def test_a_collector_gets_opentelemetrys_own_message(fleet: Fleet, collector: Collector) -> None:
    service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    from google.protobuf import json_format

    fleet.tell("cam-1", "requests", requests(100, 2))
    fleet.tell("cam-1", "resources", {"cpu": 0.25})
    url = f"http://127.0.0.1:{collector.server_address[1]}/"
    exporter = Exporter(url, started=START, headers={"x-token": "secret"})
    exporter.send(families(fleet.live.snapshot()), START + 60)
    message = json_format.Parse(collector.bodies[0], service.ExportMetricsServiceRequest())
    [scope] = message.resource_metrics[0].scope_metrics
    metrics = {metric.name: metric for metric in scope.metrics}
    [total] = metrics["fieldpost_fleet_requests"].sum.data_points
    assert (total.as_double, total.time_unix_nano) == (100, int((START + 60) * 1e9))
    assert {a.key: a.value.string_value for a in total.attributes}["device"] == "cam-1"
    [histogram] = metrics["fieldpost_fleet_request_duration_seconds"].histogram.data_points
    assert (histogram.count, list(histogram.bucket_counts)) == (100, [98, 2])
    assert list(histogram.explicit_bounds) == [0.01]
    assert metrics["fieldpost_fleet_device"].gauge.data_points[0].as_double == 0.25
    collector.status = 503
    with pytest.raises(UnreachableError):
        exporter.send([], START)


def test_a_collector_that_is_not_there_is_named_without_its_secrets() -> None:
    exporter = Exporter("http://user:secret@127.0.0.1:1", started=0.0)
    with pytest.raises(UnreachableError) as caught:
        exporter.send([], 1.0)
    assert "secret" not in str(caught.value)
    with pytest.raises(UsageError):
        Exporter("ftp://x", started=0.0)
    assert request([], 0.0, 1.0)["resourceMetrics"]


def test_drift_is_told_for_the_fleet_and_each_device(fleet: Fleet) -> None:
    import random

    source = random.Random(3)

    def profile(mean: float, rows: int = 200) -> dict[str, Any]:
        found = of_rows({"x[0]": source.gauss(mean, 1), "x[1]": 1.0} for _ in range(rows))
        return {"module": "iris", "package": "p", **found.to_dict()}

    with pytest.raises(NotFoundError):
        drift(fleet.store, "iris")
    for _ in range(8):
        fleet.now += 60
        fleet.tell("cam-1", "inputs", profile(0))
        fleet.tell("cam-2", "inputs", profile(0))
    fleet.tell("cam-2", "inputs", {"module": "iris", "rows": "many"})
    fleet.now += 60
    later = fleet.now
    fleet.tell("cam-2", "inputs", profile(3))
    fleet.tell("cam-1", "inputs", profile(0))
    sample = [[source.gauss(0, 1), 1.0] for _ in range(150)]
    training = reference_of(sample, ["x[0]", "x[1]"])
    recent = drift(fleet.store, "iris", reference=training, since=later)
    assert {name: each.verdict for name, each in recent.items()} == {
        "fleet": "drifted", "cam-1": "steady", "cam-2": "drifted",
    }  # fmt: skip
    assert recent["cam-2"].columns["x[1]"].verdict == "steady"
    by_first = drift(fleet.store, "iris")
    assert by_first["cam-1"].verdict == "steady"
    assert by_first["fleet"].reference == 1000
    with pytest.raises(TrainingDataError):
        reference_of(sample, ["x"])
    named = {"b": [row[1] for row in sample], "a": [row[0] for row in sample]}
    assert reference_of(named, ["a", "b"]).columns["a"].mean == training.columns["x[0]"].mean
