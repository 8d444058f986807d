"""What is made of what was seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from serve.registry.records import Deployment, Desired
from serve.targets.docker.crew import Member
from serve.targets.docker.events import Told
from serve.targets.docker.status import Seen, judge

ANSWERS = Told(joined=True, ready=True, opened=True)
RUNNING: dict[str, Any] = {"Status": "running", "Running": True}


def member(role: str = "worker", state: str = "running", slot: int = 0) -> Member:
    return Member("id", role, 2, slot, "run", "spec", state, "image")


def seen(told: Told = ANSWERS, slot: int = 0, restarts: int = 0, **state: Any) -> Seen:
    document = {"State": {**RUNNING, **state}, "RestartCount": restarts}
    status = str(document["State"].get("Status"))  # type: ignore[attr-defined]
    return Seen(member(state=status, slot=slot), document, told, 1000)


def ended(**state: Any) -> Seen:
    return seen(Told(), **{"Status": "exited", "Running": False, **state})


def deployment(desired: Desired = "running") -> Deployment:
    return Deployment(
        name="iris",
        target="docker",
        desired=desired,
        active=2,
        address="http://127.0.0.1:80",
        settings={},
        revisions=(),
        created_at="",
    )


def judged(*workers: Seen, front: Member | None = None, desired: Desired = "running") -> Any:
    there = front if front is not None else member("front")
    return judge(deployment(desired), there, workers, "The engine")


def test_all_is_well() -> None:
    began = datetime.now(UTC) - timedelta(seconds=90)
    stamp = began.strftime("%Y-%m-%dT%H:%M:%S.%f") + "789Z"
    status = judged(seen(StartedAt=stamp), seen(slot=1, restarts=3))
    assert (status.state, status.note, status.restarts) == ("running", "", 3)
    assert status.uptime_s == pytest.approx(90, abs=20)
    assert [each.name for each in status.workers] == ["w0", "w1"]


@pytest.mark.parametrize(
    ("worker", "state", "words"),
    [
        (seen(Told(joined=True)), "starting", ""),
        (seen(Told(joined=True, ready=True)), "starting", "start, again"),
        (seen(Paused=True, Status="paused"), "degraded", "is paused"),
        (seen(Told(), Status="restarting", Restarting=True, ExitCode=5), "degraded", "status 5"),
        (ended(ExitCode=137, OOMKilled=True), "down", "needs more memory"),
        (ended(ExitCode=137), "down", "was killed"),
        (ended(ExitCode=127, Error="no such file"), "down", "no such file"),
        (
            seen(Told(error={"message": "boom."}), Status="restarting", Restarting=True),
            "failed",
            "did not load: boom.",
        ),
    ],
)
def test_one_worker_in_trouble(worker: Seen, state: str, words: str) -> None:
    status = judged(worker)
    assert (status.state, words in status.note) == (state, True)


def test_one_of_two_in_trouble() -> None:
    status = judged(seen(), ended(ExitCode=1))
    assert (status.state, status.note) == ("degraded", "r2/w0 ended with status 1.")
    assert [each.state for each in status.workers] == ["ready", "failed"]


def test_nothing_is_there() -> None:
    status = judged()
    assert status.state == "down"
    assert "no container" in status.note
    assert "'fieldpost deployment start iris'" in status.note


@pytest.mark.parametrize("state", ["exited", "created", "dead"])
def test_the_port_is_held_by_nobody(state: str) -> None:
    status = judged(seen(), front=member("front", state))
    assert (status.state, state in status.note) == ("down", True)
    gone = judge(deployment(), None, [seen()], "The engine")
    assert (gone.state, "was removed" in gone.note) == ("down", True)


def test_what_is_stopped() -> None:
    assert judged(ended(), desired="stopped").state == "stopped"
    assert judged(desired="stopped").state == "stopped"
    assert judged(seen(), desired="stopped").state == "running"


def test_the_last_error_has_its_traceback() -> None:
    status = judged(
        seen(Told(error={"code": "x", "message": "m"}, detail="trace"), Status="exited")
    )
    assert (status.last_error, status.detail) == ({"code": "x", "message": "m"}, "trace")
