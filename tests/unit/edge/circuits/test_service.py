from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.circuits.service import STATUS, Service
from edge.circuits.settings import Settings
from edge.circuits.worker import load
from edge.telemetry import metrics
from scoring.errors import FieldpostError, InputError
from scoring.http import Request, Response
from serve.server import status as server
from tests.support.circuit_server import write_root
from tests.support.circuits import random_circuit


@pytest.fixture
def service(tmp_path: Path) -> Service:
    root = write_root(tmp_path / "root", random_circuit(2, 8, 5))
    return load(root, Settings(inputs="on", payload_ratio=1.0))


def ask(service: Service, method: str, path: str, body: bytes = b"", query: str = "") -> Response:
    return asyncio.run(service.answer(Request(method, path, query, [], body)))


def test_statuses_are_the_servers() -> None:
    for kind, status in STATUS.items():
        if kind is not InputError:
            assert server.STATUS[kind] == status
    for kind in tree(InputError):
        found = next(STATUS[each] for each in kind.__mro__ if each in STATUS)
        assert server.status_of(kind("no")) == found


def tree(kind: type[FieldpostError]) -> list[type[FieldpostError]]:
    return [kind, *(inner for each in kind.__subclasses__() for inner in tree(each))]


def test_requests_are_counted_as_the_agent_reads_them(service: Service) -> None:
    ask(service, "POST", "/score", b'{"data": [[1, 2, 3, 4], [4, 3, 2, 1]]}')
    ask(service, "POST", "/score", b"{}")
    ask(service, "GET", "/health/ready")
    body = ask(service, "GET", "/metrics").body
    assert isinstance(body, bytes)
    found = metrics.traffic(metrics.parse(body.decode()))
    assert (found.requests, found.refused, found.errors, found.rows) == (2, 1, 0, 2)
    assert sum(found.latency.values()) == 2
    assert found.run_s > 0
    assert found.seconds > 0


def test_rows_are_looked_at(service: Service) -> None:
    ask(service, "POST", "/score", b'{"data": [[1, 2, 3, 4], [4, 3, 2, 1]]}')
    first = inputs(service)
    [profile] = first["profiles"]
    assert (profile["model"], profile["rows"]) == ("moons", 2)
    assert profile["columns"]["X[0]"]["mean"] == 2.5
    assert first["samples"][0]["inputs"] == {"X": [[1, 2, 3, 4]]}
    assert set(first["samples"][0]["outputs"]) == {"predictions", "probabilities"}
    again = inputs(service, f"after={first['mark'] - 1}")  # it got lost
    assert again["profiles"] == first["profiles"]
    assert inputs(service, f"after={first['mark']}")["profiles"] == []


def inputs(service: Service, query: str = "") -> Any:
    body = ask(service, "GET", "/inputs", query=query).body
    assert isinstance(body, bytes)
    return msgspec.json.decode(body)


def test_nobody_looks_unless_it_is_wished(tmp_path: Path) -> None:
    plain = load(write_root(tmp_path / "root", random_circuit(2, 8, 5)), Settings())
    assert ask(plain, "GET", "/inputs").status == 404


def test_a_defect_is_no_secret_of_the_log(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "_classifier", None)
    found = ask(service, "POST", "/score", b'{"data": [[1, 2, 3, 4]]}')
    assert found.status == 500
    assert b"NoneType" not in (found.body if isinstance(found.body, bytes) else b"")
    assert "NoneType" in caplog.text


def test_it_says_so_when_it_goes(service: Service) -> None:
    service.ready = False
    found = ask(service, "GET", "/health/ready")
    assert (found.status, found.body) == (503, b'{"ready":false}')
