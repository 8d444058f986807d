"""Endpoints before real local deployments: processes, sockets, signals; no request is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from scoring.errors import AlreadyExistsError, InUseError, NotFoundError, UsageError
from serve.cli.main import run
from serve.endpoints import records
from serve.endpoints.promotion import Plan
from serve.endpoints.service import Endpoints
from serve.endpoints.traffic import Traffic
from serve.targets.local import processes
from serve.targets.local.state import SavedState, read_state
from tests.support.load import Load
from tests.support.local import Site, eventually, exchange, get, kill, site
from tests.support.server import get as request


class Place:
    """A workspace with deployments and endpoints, whose processes end with it."""

    def __init__(self, opened: Site) -> None:
        self.site = opened
        self.endpoints = Endpoints(opened.registry)

    def deploy(self, *names: str, **behaviour: object) -> None:
        for name in names:
            self.site.deploy(name, {"answer": name, **behaviour})

    def state(self, name: str = "ep") -> SavedState:
        found = read_state(self.site.folder / "endpoints" / name)
        assert found is not None
        return found

    def close(self) -> None:
        for folder in (self.site.folder / "endpoints").glob("*"):
            state = read_state(folder)
            for process in (state.supervisor, *state.workers) if state else ():
                processes.end(process, 0)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with site(tmp_path) as opened:
        found = Place(opened)
        try:
            yield found
        finally:
            found.close()


def port(url: str) -> int:
    return int(url.rpartition(":")[2])


def weights(**given: int) -> Traffic:
    return Traffic(weights=given)


def test_no_request_is_lost_while_traffic_deployments_and_the_front_change(place: Place) -> None:
    place.deploy("blue", "green")
    view = place.endpoints.create("ep", weights(blue=100), settings={"workers": "2"})
    assert view.state == "running"
    with Load(port(view.url), request("/"), clients=8) as load:
        for number in range(6):
            share = 100 - 20 * number
            place.endpoints.set_traffic("ep", weights(blue=share, green=100 - share))
            eventually(load.went_on(3))
        place.deploy("green", version=2)  # a new revision behind the same address
        eventually(load.went_on(3))
        worker = next(pid for pid in place.state().workers)
        place.endpoints.set_traffic("ep", weights(blue=50, green=50))
        eventually(load.went_on(3))
        before = set(place.state().workers)
        os.kill(worker.pid, signal.SIGTERM)  # a worker of the front goes, and another comes
        eventually(lambda: set(place.state().workers) != before)
        eventually(load.went_on(3))
    assert load.failures == []
    assert load.answers > 100
    shown = place.endpoints.get("ep")
    assert {each.deployment: each.failed for each in shown.backends} == {"blue": 0, "green": 0}


def test_requests_are_spread_as_the_weights_say(place: Place) -> None:
    place.deploy("blue", "green")
    url = place.endpoints.create("ep", weights(blue=80, green=20)).url
    count = 500
    got = Counter(get(url).split()[0] for _ in range(count))
    # Five standard deviations of a binomial: once in some million runs beyond.
    assert abs(got["green"] - 0.2 * count) < 5 * (count * 0.2 * 0.8) ** 0.5
    view = place.endpoints.get("ep")
    assert {each.deployment: each.requests for each in view.backends} == got
    assert all(each.p95_ms and each.up for each in view.backends)


def test_a_deployment_that_dies_costs_nothing_where_another_one_answers(place: Place) -> None:
    place.deploy("blue", "green")
    view = place.endpoints.create(
        "ep", weights(blue=50, green=50), settings={"retry": "unanswered"}
    )
    with Load(port(view.url), request("/"), clients=6) as load:
        eventually(load.went_on(3))
        state = place.site.saved("green")
        for process in (state.supervisor, *state.workers):
            with contextlib.suppress(ProcessLookupError):  # it has crashed by itself just now
                kill(process.pid)
        eventually(load.went_on(20))
        eventually(lambda: place.endpoints.get("ep").state == "degraded")
        assert "green" in place.endpoints.get("ep").note
        place.site.start("green")
        eventually(lambda: place.endpoints.get("ep").state == "running")
        eventually(load.went_on(3))
    assert load.failures == []


def test_where_all_are_gone_the_answer_is_503(place: Place) -> None:
    place.deploy("blue")
    url = place.endpoints.create("ep", weights(blue=1)).url
    place.site.stop("blue")
    status, body = exchange(url)
    assert status == 503
    assert json.loads(body)["error"]["code"] == "unreachable"
    eventually(lambda: place.endpoints.get("ep").state == "failed")


def test_killed_whole_it_comes_back_on_its_address_with_its_traffic(place: Place) -> None:
    place.deploy("blue", "green")
    place.endpoints.create("ep", weights(blue=1))
    view = place.endpoints.set_traffic("ep", weights(green=1))
    state = place.state()
    for process in (state.supervisor, *state.workers):
        kill(process.pid)
    eventually(lambda: place.endpoints.get("ep").state == "down")
    assert "endpoint start ep" in place.endpoints.get("ep").note
    # What is changed meanwhile holds when it is back.
    place.endpoints.set_traffic("ep", weights(blue=1, green=0))
    again = place.endpoints.start("ep")
    assert (again.url, again.state) == (view.url, "running")
    assert get(again.url).startswith("blue")
    assert place.endpoints.start("ep").url == view.url


def test_what_a_killed_command_has_written_is_followed(place: Place) -> None:
    place.deploy("blue", "green")
    url = place.endpoints.create("ep", weights(blue=1)).url
    # As far as a command comes that is killed before it tells anyone.
    record = place.site.registry.endpoints.get("ep")
    records.change(place.site.registry, record, weights(green=1), None)
    eventually(lambda: get(url).startswith("green"))
    assert place.endpoints.get("ep").following == record.generation + 1


def test_a_deployment_that_moves_is_followed(place: Place) -> None:
    place.deploy("blue")
    url = place.endpoints.create("ep", weights(blue=1)).url
    place.site.stop("blue")
    place.site.registry.deployments.set_address("blue", "")
    moved = place.site.start("blue").url
    assert moved
    eventually(lambda: exchange(url)[0] == 200)


def test_bad_wishes_are_refused_and_leave_nothing(place: Place) -> None:
    with pytest.raises(NotFoundError, match="blue"):
        place.endpoints.create("ep", weights(blue=1))
    place.deploy("blue")
    with pytest.raises(UsageError, match="no_such"):
        place.endpoints.create("ep", weights(blue=1), settings={"no_such": "1"})
    assert place.endpoints.list() == []
    place.endpoints.create("ep", weights(blue=1))
    with pytest.raises(AlreadyExistsError):
        place.endpoints.create("ep", weights(blue=1))
    place.site.stop("blue")
    with pytest.raises(InUseError, match="endpoint 'ep'"):
        place.site.registry.deployments.delete("blue")
    place.endpoints.delete("ep")
    assert place.endpoints.list() == []
    place.site.registry.deployments.delete("blue")


PLAN = Plan(to="green", steps=(10.0, 50.0, 100.0), soak_s=0.2, min_requests=5, success_rate=0.95)


def test_a_good_deployment_is_promoted_by_the_endpoint_itself(place: Place) -> None:
    place.deploy("blue", "green")
    view = place.endpoints.create("ep", weights(blue=1))
    with Load(port(view.url), request("/"), clients=6) as load:
        begun = place.endpoints.promote("ep", PLAN)
        assert {each.deployment: each.percent for each in begun.backends} == {
            "blue": 90.0, "green": 10.0,
        }  # fmt: skip
        with pytest.raises(InUseError, match="promoted"):
            place.endpoints.set_traffic("ep", weights(blue=1))

        def ended() -> bool:
            state = place.endpoints.get("ep").promotion
            return state is not None and state.phase != "running"

        eventually(ended, 30)
    assert load.failures == []
    view = place.endpoints.get("ep")
    assert view.promotion is not None
    assert (view.promotion.phase, len(view.promotion.events)) == ("done", 4)
    assert {each.deployment: each.weight for each in view.backends} == {"blue": 0, "green": 10_000}
    assert get(view.url).startswith("green")


def test_a_bad_deployment_is_halted_and_all_goes_back(place: Place) -> None:
    place.deploy("blue")
    place.deploy("green", crash_after=0.3)
    place.endpoints.create("ep", weights(blue=1))
    view = place.endpoints.get("ep")
    with Load(port(view.url), request("/"), clients=4):
        state = place.site.saved("green")
        place.endpoints.promote("ep", PLAN)
        for process in (state.supervisor, *state.workers):
            with contextlib.suppress(ProcessLookupError):  # it has crashed by itself just now
                kill(process.pid)

        def halted() -> bool:
            found = place.endpoints.get("ep").promotion
            return found is not None and found.phase == "halted"

        eventually(halted, 30)
    view = place.endpoints.get("ep")
    assert view.promotion is not None
    assert view.promotion.reason
    assert {each.deployment: each.percent for each in view.backends} == {"blue": 100.0}


def test_a_promotion_survives_the_death_of_the_process_that_leads_it(place: Place) -> None:
    place.deploy("blue", "green")
    view = place.endpoints.create("ep", weights(blue=1))
    place.endpoints.promote("ep", PLAN)
    state = place.state()
    for process in (state.supervisor, *state.workers):
        kill(process.pid)
    eventually(lambda: place.endpoints.get("ep").state == "down")
    place.endpoints.start("ep")
    with Load(port(view.url), request("/"), clients=6) as load:

        def done() -> bool:
            found = place.endpoints.get("ep").promotion
            return found is not None and found.phase == "done"

        eventually(done, 30)
    assert load.failures == []


def test_as_a_user_types_it(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDPOST_WORKSPACE", str(place.site.folder))
    place.deploy("blue", "green")

    def command(*arguments: str) -> dict[str, object]:
        assert run([*arguments, "--json"]) == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    made = command(
        "endpoint", "create", "ep", "--to", "blue=90", "--to", "green=10",
        "--header", "x-canary=always:green", "--sticky", "x-user",
    )  # fmt: skip
    assert made["state"] == "running"
    assert command("endpoint", "show", "ep")["sticky"] == "x-user"
    assert command("score", "ep", "-d", "{}", "--wait", "10") == command(
        "score", "blue", "-d", "{}"
    )
    assert run(["score", "nobody", "-d", "{}"]) == 1
    capsys.readouterr()
    assert command("endpoint", "traffic", "ep", "--to", "green", "--dry-run")["name"] == "ep"
    assert run(["endpoint", "traffic", "ep", "--to", "nobody", "--dry-run"]) == 1
    assert (
        command("endpoint", "traffic", "ep", "--to", "blue", "--shadow", "green=50")["note"] == ""
    )
    assert run(["endpoint", "show", "ep"]) == 0
    assert "shadow 50 %" in capsys.readouterr().out
    assert run(["endpoint", "list"]) == 0
    assert "blue 100 %" in capsys.readouterr().out
    assert run(["endpoint", "promote", "ep", "--to", "blue"]) == 2
    assert run(["endpoint", "promote", "ep"]) == 2
    capsys.readouterr()
    command("endpoint", "promote", "ep", "--to", "green", "--soak", "1h")
    assert command("endpoint", "promote", "ep", "--halt")["promotion"]["phase"] == "cancelled"  # type: ignore[index]
    assert command("endpoint", "start", "ep")["state"] == "running"
    assert command("endpoint", "delete", "ep") == {"name": "ep", "deleted": True}
    assert run(["endpoint", "show", "ep"]) == 1
