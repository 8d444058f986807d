"""`fieldpost fleet|device|rollout …` over a workspace, without a controller: what they say."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from edge.cli import controller, enrolment, fleet, rollout, telemetry
from edge.cli import device as devices
from edge.controller import rows
from edge.controller.entities import Device, Member, Plan, Revision
from edge.controller.records import Fleet
from edge.protocol.messages import Failure, Module, ModuleState, Soak
from scoring.errors import AlreadyExistsError, InUseError, InvalidNameError, UsageError
from serve.registry import Registry

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def run(where: Path, command: click.Command, *words: object) -> Result:
    arguments = ["--workspace", str(where), *(str(word) for word in words)]
    return CliRunner().invoke(command, arguments)


def document(where: Path, command: click.Command, *words: object) -> Any:
    result = run(where, command, "--json", *words)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def raised(where: Path, command: click.Command, *words: object) -> BaseException | None:
    return run(where, command, *words).exception


@pytest.fixture
def known(where: Path) -> Iterator[Fleet]:
    """Two devices, one of which runs something and failed at something else."""
    registry = Registry(str(where))
    found = Fleet(registry.database)
    found.add_device("cam", "hall", {"area": "yard"})
    found.add_device("new", "hall")
    state = ModuleState(
        phase="reverted", failure=Failure(code="deployment_failed", message="It broke.")
    )
    cam = found.device("cam")
    cam.modules, cam.boot, cam.seq = {"main": state}, 1, 1
    with registry.database.write() as connection:
        rows.write_devices(connection, [cam])
    found.deploy("iris", {"main": Module(package=DIGEST)}, condition="*", plan=Plan(waves=("1",)))
    yield found
    registry.close()


def fields(kind: type[msgspec.Struct]) -> set[str]:
    return set(kind.__struct_fields__)


@pytest.mark.usefixtures("known")
def test_documents_have_all_fields_whatever_is_in_them(where: Path) -> None:
    shown = document(where, devices.show, "cam")
    assert set(shown) == fields(Device) - {"envelope", "content"}
    assert set(shown["modules"]["main"]) == fields(ModuleState)
    assert shown["modules"]["main"]["healthy"] is False
    assert set(shown["modules"]["main"]["failure"]) == fields(Failure)
    assert {tuple(one) for one in document(where, devices.list_devices)} == {tuple(shown)}
    listed = document(where, fleet.list_deployments)[0]
    assert set(listed) == {"stable", *fields(Revision)}
    assert set(listed["modules"]["main"]) == fields(Module)
    assert set(listed["modules"]["main"]["soak"]) == fields(Soak)
    assert set(document(where, fleet.show, "iris")) == {"devices", *fields(Revision)}
    course = document(where, rollout.show, "iris")
    assert set(course["plan"]) == fields(Plan)
    assert {frozenset(one) for one in course["devices"]} == {frozenset(fields(Member))}
    assert set(document(where, rollout.list_rollouts)[0]["plan"]) == fields(Plan)


@pytest.mark.usefixtures("known")
def test_dry_runs_refuse_what_would_be_refused(where: Path) -> None:
    for words, kind in (("new", AlreadyExistsError), ("A/b", InvalidNameError)):
        assert isinstance(raised(where, devices.add, words, "--dry-run"), kind)
    assert isinstance(raised(where, devices.tag, "cam", f"a={'x' * 300}", "--dry-run"), UsageError)
    assert isinstance(raised(where, rollout.resume, "iris", "--dry-run"), UsageError)
    assert isinstance(raised(where, rollout.retry, "iris", "cam", "--dry-run"), UsageError)
    assert isinstance(raised(where, fleet.remove, "iris", "--dry-run"), InUseError)
    assert document(where, devices.add, "other", "--dry-run")["dry_run"] is True
    tags = document(where, devices.tag, "cam", "b=1", "--remove", "area", "--dry-run")["tags"]
    assert tags == {"b": "1"}
    assert document(where, devices.show, "cam")["tags"] == {"area": "yard"}
    assert len(document(where, devices.list_devices)) == 2
    assert document(where, rollout.pause, "iris", "--dry-run")["state"] == "running"
    assert document(where, rollout.abort, "iris", "--dry-run")["back"] == []


@pytest.mark.usefixtures("known")
def test_nothing_found_is_told_apart_from_nothing_there(where: Path, tmp_path: Path) -> None:
    assert "--site SITE" in run(tmp_path / "other", devices.list_devices).output
    assert "tags.x" in run(where, devices.list_devices, "--where", "tags.x").output
    assert "No device of iris:1 failed" in run(where, rollout.retry, "iris").output


@pytest.mark.parametrize(
    "words",
    [
        ("--port", "70000"),
        ("--port", "-5"),
        ("--package", "x", "--module", "main=y"),
        ("--module", "a=x", "--module", "a=y"),
        ("--package", ""),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(where: Path, words: tuple[str, ...]) -> None:
    assert run(where, fleet.deploy, "iris", "--where", "*", *words).exit_code == 2


class Controller(threading.Thread):
    """Answers the first command, and then has its device report, as a controller would."""

    def __init__(self, known: Fleet, output: str, *, failed: bool = False) -> None:
        super().__init__(daemon=True)
        self._fleet, self._output, self._failed = known, output, failed
        self.key = ""

    def run(self) -> None:
        waiting = threading.Event()
        while not waiting.wait(0.02):
            with self._fleet.database.read() as connection:
                asked = rows.read_commands(connection)
            if asked:
                break
        self.key = asked[0].key
        failure = Failure(code="x", message="Nobody may.") if self._failed else None
        state: Any = "failed" if self._failed else "done"
        done = msgspec.structs.replace(asked[0], state=state, output=self._output, failure=failure)
        device = self._fleet.device("cam")
        device.seq, device.facts = 2, {"cores": 4}
        with self._fleet.database.write() as connection:
            rows.write_commands(connection, [done])
        with self._fleet.database.write() as connection:
            rows.write_devices(connection, [device])


def test_a_report_is_shown_when_it_has_come(where: Path, known: Fleet) -> None:
    Controller(known, "").start()
    result = run(where, devices.report, "cam")
    assert result.exit_code == 0
    assert "cores=4" in result.stdout


def test_what_a_device_says_stands_alone_on_stdout(where: Path, known: Fleet) -> None:
    answering = Controller(known, "oh\n", failed=True)
    answering.start()
    result = run(where, devices.shell, "cam", "--key", "mine", "--", "ls", "-l")
    assert (result.exit_code, result.stdout) == (1, "oh\n")
    assert "Nobody may." in result.stderr
    answering.join()
    assert answering.key == "mine"


def test_logs_that_are_empty_print_nothing(where: Path, known: Fleet) -> None:
    Controller(known, "").start()
    result = run(where, devices.logs, "cam")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing to show" in result.stderr


def test_who_asks_while_nobody_leads_is_told_so(
    where: Path, known: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_GRACE_S", 0.0)
    result = run(where, devices.restart, "cam", "--timeout", "0")
    assert result.exit_code == 1
    assert "fleet controller" in result.stderr
    monkeypatch.setattr(rollout, "_NOBODY_S", 0.0)
    ending = threading.Timer(1.0, lambda: known.abort("iris"))
    ending.start()
    result = run(where, rollout.show, "iris", "--watch")
    ending.join()
    assert result.exit_code == 1
    assert "fleet controller" in result.stderr


@pytest.mark.usefixtures("known")
def test_asking_for_longer_than_commands_are_kept_is_refused(where: Path) -> None:
    for words in (("--timeout", "1d"), ("--key", "k" * 300)):
        assert isinstance(raised(where, devices.restart, "cam", *words), UsageError)
    assert document(where, devices.shell, "cam", "--dry-run", "--", "ls")["command"] == ["ls"]


def test_a_claim_is_cancelled_in_a_dry_run(where: Path) -> None:
    claimed = document(where, enrolment.claim, "cam", "--site", "hall")["token"]
    assert claimed
    (one,) = document(where, enrolment.claims)["claims"]
    assert document(where, enrolment.cancel, one["id"], "--dry-run")["dry_run"] is True
    assert raised(where, enrolment.cancel, "none", "--dry-run") is not None
    assert len(document(where, enrolment.claims)["claims"]) == 1


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_events_that_are_followed_are_told_once(
    where: Path, known: Fleet, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    left = iter([None, lambda: known.pause("iris"), None, None])

    def wait(_seconds: float) -> None:
        act = next(left, KeyboardInterrupt)
        if act is KeyboardInterrupt:
            raise KeyboardInterrupt
        if act is not None:
            act()

    known.add_device("third")
    monkeypatch.setattr(time, "sleep", wait)
    lines = run(where, fleet.events, "-f", "-n", "1", *options).stdout.splitlines()
    assert [("begun" in line, "paused" in line) for line in lines if line] == [
        (True, False),
        (False, True),
    ]
    if options:
        assert [json.loads(line)["number"] for line in lines if line] == [1, 2]


@pytest.mark.parametrize("url", ["ftp://x/y", "registry.example/v2/x", "https://me:pw@x/v2/y"])
def test_a_source_that_devices_cannot_ask_is_refused(where: Path, url: str) -> None:
    words = ("--broker", "mqtts://127.0.0.1:1", "--source", url)
    result = run(where, controller.controller, *words)
    assert result.exit_code == 2
    assert "pw" not in result.output


def test_telemetry_is_asked_for_what_there_may_be(where: Path) -> None:
    listed = telemetry.list_records
    assert document(where, listed, "--class", "alarm") == []
    assert "Nothing" in run(where, listed).stdout
    for words in (("-n", "0"), ("-n", "-2"), ("--class", "loud")):
        assert run(where, listed, *words).exit_code == 2
