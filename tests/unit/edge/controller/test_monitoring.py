"""What monitoring is told of a controller, and whom it tells."""

from __future__ import annotations

import pytest

from edge.controller.monitoring import MetricsRoute, State
from edge.controller.records import Fleet
from edge.controller.webserver import Answer, Request
from edge.protocol.messages import Module
from scoring.errors import WorkspaceError

TOKEN = "a token of some length"
STATE = State(leads=True, is_up=True, terms=3, queues={"to_broker": 7}, left_out=2)


def request(
    *, local: bool = False, method: str = "GET", path: str = "/metrics", **headers: str
) -> Request:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Request(method, path, named, b"", None, None, local)


def text(answer: Answer | None) -> str:
    assert answer is not None
    assert isinstance(answer.body, bytes)
    return answer.body.decode()


def test_a_fleet_is_counted(fleet: Fleet) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    fleet.add_device("cam-1")
    fleet.add_device("cam-2")
    fleet.deploy("iris", {"main": Module(package="sha256:" + "a" * 64)}, condition="*")
    fleet.request("cam-1", "report")
    route = MetricsRoute(fleet.database, lambda: STATE, lambda: b"told 1\n")
    page = text(route(request(local=True)))
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert found["fieldpost_fleet_devices", "offline"] == 2
    assert found["fieldpost_fleet_devices", "online"] == 0
    assert found["fieldpost_fleet_rollouts", "running"] == 1
    assert found["fieldpost_fleet_rollouts", "halted"] == 0
    assert found["fieldpost_fleet_commands", "waiting"] == 1
    assert found["fieldpost_fleet_deployments",] == 1
    assert found["fieldpost_fleet_leader",] == 1
    assert found["fieldpost_fleet_queue", "to_broker"] == 7
    assert found["fieldpost_fleet_telemetry_left_out_total",] == 2
    assert found["told",] == 1


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request(local=True), 200),
        (request(local=True, method="HEAD"), 200),
        (request(local=True, method="POST"), 405),
        (request(), 401),
        (request(local=True, x_forwarded_for="10.0.0.9"), 401),
        (request(authorization=f"Bearer {TOKEN}"), 200),
        (request(authorization="Bearer another"), 401),
        (request(local=True, authorization="Bearer another"), 401),
        (request(authorization=f"Basic {TOKEN}"), 401),
        (request(authorization="Bearer t\xf6ken"), 401),
    ],
)
def test_who_may_ask(fleet: Fleet, asked: Request, status: int) -> None:
    answer = MetricsRoute(fleet.database, State, None, TOKEN)(asked)
    assert answer is not None
    assert answer.status == status
    assert status == 200 or b"fieldpost" not in bytes(str(answer.body), "ascii")


def test_other_paths_are_none_of_its_business(fleet: Fleet) -> None:
    assert MetricsRoute(fleet.database, State)(request(local=True, path="/metricsx")) is None


def test_without_its_records_it_says_what_it_knows(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_database: object) -> None:
        raise WorkspaceError("The database is away.")

    monkeypatch.setattr("edge.controller.monitoring.census", broken)
    page = text(MetricsRoute(fleet.database, lambda: STATE)(request(local=True)))
    assert "fieldpost_fleet_leader 1" in page
    assert "fieldpost_fleet_devices" not in page
