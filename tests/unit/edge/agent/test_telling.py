"""What a device tells: a thread of its own, which nothing can hold up and nothing can end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge.agent import telling as module
from edge.agent.config import Told
from edge.agent.telling import FOLDER, Telling
from edge.protocol import messages
from edge.protocol.messages import Ack, Failure, ModuleState, Record, Telemetry
from edge.protocol.topics import Kind
from edge.telemetry.collect import Served
from edge.telemetry.spool import Spool

SOON = Told(requests_s=0.05, inputs_s=60.0, resources_s=60.0)
PATIENCE_S = 20.0


class Link:
    """Takes everything; acknowledges where it is told to."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], Record] = {}
        self.kinds: list[Kind] = []
        self.answer: Callable[[bytes], None] = lambda _: None
        self._news = threading.Condition()

    def send(self, kind: Kind, payload: bytes, sent: Callable[[bool], object]) -> bool:
        batch = messages.decode(payload, Telemetry)
        with self._news:
            self.kinds.append(kind)
            self.records |= {(batch.epoch, one.seq): one for one in batch.records}
            self._news.notify_all()
        seqs = tuple((one.seq, one.seq) for one in batch.records)
        ack = Ack(device=batch.device, epoch=batch.epoch, ranges=seqs)
        self.answer(messages.encode(ack))
        return True

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [one.data for one in self.records.values() if one.kind == kind]

    def wait(self, true: Callable[[], object]) -> None:
        with self._news:
            assert self._news.wait_for(true, PATIENCE_S), self.records


class Worker(ThreadingHTTPServer):
    requests = 0.0


@pytest.fixture
def worker() -> Iterator[Worker]:
    class Handler(BaseHTTPRequestHandler):
        server: Worker

        def do_GET(self) -> None:
            line = 'fieldpost_requests_total{protocol="score",code="200"}'
            page = f"{line} {self.server.requests}\n".encode()
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None: ...

    made = Worker(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_it_tells_while_there_is_a_link_and_deletes_what_is_stored(
    tmp_path: Path, worker: Worker
) -> None:
    served = {"main": Served(worker.server_port, "sha256:a")}
    telling, link = Telling(tmp_path, "cam", SOON, lambda: served), Link()
    link.answer = telling.came
    telling.begin(link)
    worker.requests = 5
    telling.tell("alarm", "fire", {"where": "here"})
    assert not link.records
    telling.connected(True)
    link.wait(lambda: link.told("fire") and link.told("requests"))
    telling.connected(False)
    worker.requests = 8
    telling.connected(True)
    link.wait(lambda: sum(one["requests"] for one in link.told("requests")) == 8)
    telling.close()
    assert {"tele/alarm", "tele/metric"} <= set(link.kinds)
    with Spool(tmp_path / FOLDER, "cam") as left:
        assert all(batch.name == "metric" for batch in left.batches())
        assert left.counts().waiting["alarm"] == 0


def test_what_is_replaced_is_asked_once_more(tmp_path: Path, worker: Worker) -> None:
    telling, link = Telling(tmp_path, "cam", Told(), dict), Link()
    telling.begin(link)
    telling.connected(True)
    worker.requests = 3
    telling.leaving("main", worker.server_port, "sha256:old")
    link.wait(lambda: link.told("requests"))
    telling.close()
    assert link.told("requests") == [
        {"module": "main", "package": "sha256:old", "window_s": 0.0, "requests": 3.0}
    ]


def test_a_last_look_is_kept_for_the_next_start(tmp_path: Path, worker: Worker) -> None:
    served = {"main": Served(worker.server_port, "sha256:a")}
    telling = Telling(tmp_path, "cam", Told(), lambda: served)
    telling.begin(Link())
    worker.requests = 4
    telling.close()
    with Spool(tmp_path / FOLDER, "cam") as spool:
        records = [
            record
            for batch in spool.batches()
            for record in messages.decode(batch.payload, Telemetry).records
        ]
    assert [one.data["requests"] for one in records if one.kind == "requests"] == [4.0]


def test_changes_of_modules_are_told_and_what_is_wrong_is_an_alarm(tmp_path: Path) -> None:
    telling, link = Telling(tmp_path, "cam", Told(), dict), Link()
    link.answer = telling.came
    telling.begin(link)
    telling.connected(True)
    good = ModuleState(phase="good", wanted="b", package="b")
    why = Failure(code="deployment_failed", message="It broke.", phase="probing")
    bad = ModuleState(phase="failed", wanted="b", package="a", failure=why)
    telling.moved({}, {"main": good, "other": bad})
    telling.moved({"main": good}, {"main": good})
    link.wait(lambda: len(link.told("module")) == 2)
    telling.close()
    by_module = {one["module"]: one for one in link.told("module")}
    assert by_module["main"]["phase"] == "good"
    assert by_module["other"]["failure"]["message"] == "It broke."
    assert set(link.kinds) >= {"tele/status", "tele/alarm"}


def test_a_fault_ends_nothing_and_too_much_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AFTER_FAULT_S", 0.01)
    broken, opened = threading.Event(), threading.Event()

    def spool(*given: Any, **named: Any) -> Spool:
        if not broken.is_set():
            broken.set()
            raise RuntimeError("a defect")
        opened.set()
        return Spool(*given, **named)

    monkeypatch.setattr(module, "Spool", spool)
    telling, link = Telling(tmp_path, "cam", Told(), dict), Link()
    link.answer = telling.came
    for number in range(1100):
        telling.tell("debug", "noise", {"n": number})
    assert telling.left_out == 100
    telling.begin(link)
    telling.connected(True)
    assert opened.wait(PATIENCE_S)
    link.wait(lambda: link.told("noise"))
    telling.came(b"no acknowledgement")
    telling.tell("alarm", "large", {"text": "x" * 40_000})
    telling.tell("alarm", "after", {})
    link.wait(lambda: any(one.kind == "after" for one in link.records.values()))
    telling.close()


def test_what_is_switched_off_tells_nothing(tmp_path: Path) -> None:
    telling, link = Telling(tmp_path, "cam", Told(on=False), dict), Link()
    telling.begin(link)
    telling.connected(True)
    telling.tell("alarm", "fire", {})
    telling.leaving("main", 1, "sha256:a")
    telling.close()
    assert not link.records
    assert not (tmp_path / FOLDER).exists()
