from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.agent import commands
from edge.agent.commands import Commands
from edge.agent.journal import Journal
from edge.agent.logs import ModuleLog
from edge.protocol import messages
from edge.protocol.messages import MOST_BYTES, Command, CommandResult

NOW = 1000.0


class Device:
    """Records what it is told to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.restarted: list[str] = []
        self.reports = 0
        self.names = ["main"]

    def modules(self) -> list[str]:
        return self.names

    def restart(self, module: str) -> bool:
        self.restarted.append(module)
        return module == "main"

    def log(self, module: str) -> ModuleLog:
        return ModuleLog(self.folder, module)

    def report(self) -> None:
        self.reports += 1


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def command(verb: str, key: str = "k", **arguments: Any) -> Command:
    return Command(
        site="hall", device="camera", id="1", key=key, deadline=NOW + 60, verb=verb,
        arguments=arguments,
    )  # fmt: skip


def make(device: Device, journal: Journal, *, shell: bool = False) -> Commands:
    return Commands(device, journal, "camera", shell=shell, clock=lambda: NOW)


def test_a_command_that_comes_again_is_answered_again_and_not_done(device: Device) -> None:
    for _ in range(2):  # the agent is started anew in between
        with Journal(device.folder) as journal:
            (result,) = make(device, journal).carry_out(command("restart", module="main"))
            assert result.ok
            assert result.output == "main is started anew"
    assert device.restarted == ["main"]


def test_a_command_that_was_broken_off_is_not_begun_again(device: Device) -> None:
    class Dying(Device):
        def restart(self, module: str) -> bool:
            raise KeyboardInterrupt

    with Journal(device.folder) as journal:
        with pytest.raises(KeyboardInterrupt):
            make(Dying(device.folder), journal).carry_out(command("restart", module="main"))
        (result,) = make(device, journal).carry_out(command("restart", module="main"))
    assert not result.ok
    assert result.failure is not None
    assert device.restarted == []


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (command("restart", module="other"), "not_found"),
        (command("restart", module=7), "usage"),
        (command("logs", module="../etc/passwd"), "usage"),
        (command("logs", module="main", bytes="many"), "usage"),
        (command("logs", module="other"), "not_found"),
        (command("dance"), "usage"),
        (command("shell", command=["true"]), "forbidden"),
    ],
)
def test_what_cannot_be_done_says_why(device: Device, asked: Command, code: str) -> None:
    with Journal(device.folder) as journal:
        (result,) = make(device, journal).carry_out(asked)
    assert not result.ok
    assert result.failure is not None
    assert result.failure.code == code


def test_a_shell_where_it_is_allowed(device: Device) -> None:
    with Journal(device.folder) as journal:
        carrying = make(device, journal, shell=True)
        (result,) = carrying.carry_out(command("shell", command=["echo", "a b"]))
        (missing,) = carrying.carry_out(command("shell", "other", command=["/no/such"]))
        (failed,) = carrying.carry_out(
            command("shell", "third", command=["sh", "-c", "echo oh; exit 3"])
        )
    assert (result.ok, result.output) == (True, "a b\n")
    assert missing.failure is not None
    assert (failed.ok, failed.output) == (False, "oh\n")
    assert failed.failure is not None
    assert "status 3" in failed.failure.message


def test_a_report_is_asked_for(device: Device) -> None:
    with Journal(device.folder) as journal:
        make(device, journal).carry_out(command("report"))
    assert device.reports == 1


def test_long_logs_come_in_parts_that_fit(device: Device) -> None:
    device.log("main").write(b"\x01\xff" * 50_000)
    with Journal(device.folder) as journal:
        results = make(device, journal).carry_out(command("logs", module="main", bytes=100_000))
    assert [result.part for result in results] == list(range(results[0].parts))
    for result in results:
        data = commands.encode(result)
        assert len(data) <= MOST_BYTES
        assert messages.decode(data, CommandResult).id == "1"


def test_a_key_is_known_after_its_deadline(device: Device) -> None:
    with Journal(device.folder) as journal:
        make(device, journal).carry_out(command("restart", module="main"))
        late = Commands(device, journal, "camera", clock=lambda: NOW + 3600)
        for key in ("another", "k"):
            asked = msgspec.structs.replace(command("restart", key), deadline=NOW + 3660, id="2")
            (result,) = late.carry_out(asked)
            assert (result.ok, result.id) == (True, "2")
    assert device.restarted == ["main", "main"]


def test_what_was_stopped_does_not_keep_the_others_from_a_restart(device: Device) -> None:
    device.names = ["extra", "main"]
    with Journal(device.folder) as journal:
        (result,) = make(device, journal).carry_out(command("restart"))
    assert (result.ok, result.output) == (True, "main is started anew")


def test_old_keys_are_forgotten(device: Device) -> None:
    with Journal(device.folder) as journal:
        for number in range(commands.MOST_KEPT + 10):
            made = msgspec.structs.replace(command("report", str(number)), deadline=NOW + number)
            make(device, journal).carry_out(made)
        assert len(journal.notes("cmd.")) <= commands.MOST_KEPT + 1
        late = Commands(device, journal, "camera", clock=lambda: NOW + 100_000)
        late.carry_out(msgspec.structs.replace(command("report", "new"), deadline=NOW + 200_000))
        assert len(journal.notes("cmd.")) == 1


def test_without_a_name_all_modules_are_meant(device: Device) -> None:
    device.names = ["main", "side"]
    for name in device.names:
        device.log(name).write(b"".join(b"%s %d\n" % (name.encode(), n) for n in range(9)))
    with Journal(device.folder) as journal:
        (logs,) = make(device, journal).carry_out(command("logs", "a", tail=2))
        assert logs.output == "== main\nmain 7\nmain 8\n== side\nside 7\nside 8\n"
        (one,) = make(device, journal).carry_out(command("logs", "b", tail=1, module="side"))
        assert one.output == "side 8\n"
        make(device, journal).carry_out(command("restart", "c"))
        assert device.restarted == ["main", "side"]
        device.names = []
        (none,) = make(device, journal).carry_out(command("logs", "d"))
        assert none.failure is not None
        assert none.failure.code == "not_found"
