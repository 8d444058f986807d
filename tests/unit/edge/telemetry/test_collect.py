"""What is looked at, and when."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edge.protocol.messages import Record, Telemetry, decode
from edge.telemetry.collect import Collector, Served, ask
from edge.telemetry.resources import Resources, own
from edge.telemetry.spool import Spool


class Steady:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool", "cam-1") as found:
        yield found


def told(spool: Spool, kind: str) -> list[Record]:
    records = [r for batch in spool.batches(999) for r in decode(batch.payload, Telemetry).records]
    return [record for record in records if record.kind == kind]


def page(count: int) -> bytes:
    return f'fieldpost_requests_total{{protocol="score",code="200"}} {count}\n'.encode()


def test_modules_are_asked_for_what_is_new(spool: Spool, tmp_path: Path) -> None:
    steady, count, asked = Steady(), [0], []
    modules = {"iris": Served(8001, "sha256:a"), "silent": Served(8002, "sha256:b")}

    def fetch(port: int, path: str) -> bytes | None:
        asked.append((port, path))
        if port == 8002:
            return None
        if path == "/metrics":
            return page(count[0])
        return json.dumps(
            {"mark": 7, "profiles": [{"rows": 3}, 5], "samples": [{"in": [1]}]}
        ).encode()

    collector = Collector(spool, lambda: modules, tmp_path, steady=steady, fetch=fetch)
    for second in range(0, 601, 10):
        steady.now = float(second)
        count[0] = second
        collector.tick()
        assert 0 <= collector.wait_s() <= 30
    assert sum(r.data["requests"] for r in told(spool, "requests")) == 600
    assert {r.data["module"] for r in told(spool, "requests")} == {"iris"}
    assert len(told(spool, "resources")) == 11
    assert [r.data for r in told(spool, "inputs")] == [
        {"module": "iris", "package": "sha256:a", "rows": 3}
    ] * 2
    assert len(told(spool, "sample")) == 2
    assert (8001, "/inputs?after=0") in asked
    assert (8001, "/inputs?after=7") in asked
    modules["iris"] = Served(8001, "sha256:new")
    collector.left("iris", modules["iris"], page(5))
    assert told(spool, "requests")[-1].data == {
        "module": "iris", "package": "sha256:new", "window_s": 0.0, "requests": 5.0,
    }  # fmt: skip


@pytest.mark.parametrize("answer", [b"", b"[]", b"{", b'{"mark":0,"profiles":{}}', b"\xff"])
def test_pages_that_make_no_sense_tell_nothing(spool: Spool, tmp_path: Path, answer: bytes) -> None:
    steady = Steady()
    modules = {"iris": Served(1, "sha256:a")}
    collector = Collector(spool, lambda: modules, tmp_path, steady=steady, fetch=lambda *_: answer)
    steady.now = 1000
    collector.tick()
    assert told(spool, "requests") == told(spool, "inputs") == []


def test_what_is_too_large_for_a_record_is_left_out(spool: Spool, tmp_path: Path) -> None:
    steady = Steady()
    data = json.dumps({"mark": 1, "samples": [{"in": "x" * 100_000}, {"in": 1}]}).encode()
    collector = Collector(
        spool, lambda: {"iris": Served(1, "p")}, tmp_path, steady=steady, fetch=lambda *_: data
    )
    steady.now = 1000
    collector.tick()
    assert [r.data["in"] for r in told(spool, "sample")] == [1]


def test_the_device_is_looked_at(tmp_path: Path) -> None:
    look = Resources(tmp_path).look()
    assert 0 < look["memory_free_bytes"] <= look["memory_total_bytes"]
    assert 0 < look["disk_free_bytes"] <= look["disk_total_bytes"]
    assert 0 <= look.get("cpu", 0) <= 1
    assert look["uptime_s"] > 0
    assert own()["resident_bytes"] > 1e6


def test_a_machine_that_says_little_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu x\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 10 kB\nMemAvailable:\n")
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("48500\n")
    look = Resources(tmp_path / "gone", root=tmp_path).look()
    assert look["celsius"] == 48.5
    assert "cpu" not in look
    assert "disk_free_bytes" not in look


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"x" * (2 << 20) if self.path == "/large" else b"fine"
            self.send_response(404 if self.path == "/gone" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def test_asking_a_worker(server: ThreadingHTTPServer) -> None:
    port = server.server_address[1]
    assert ask(port, "/metrics") == b"fine"
    assert ask(port, "/gone") is None
    assert ask(1, "/metrics") is None
