"""Real workers under a real supervisor."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from edge.agent.health import Shown
from edge.agent.packages import Packages
from edge.agent.ports import Ports
from edge.agent.processes import ProcessRunner
from edge.agent.supervisor import Supervisor
from edge.agent.throttle import Stop, StoppedError
from edge.protocol.messages import Failure, Module
from scoring.errors import (
    DeadlineExceededError,
    DeploymentFailedError,
    DigestMismatchError,
    InUseError,
    NotFoundError,
)
from scoring.quantum.describing import describe
from tests.support.blob_source import Made
from tests.support.circuit_server import write_root
from tests.support.circuits import random_circuit
from tests.support.edge_site import ask, package, package_of


class Notes(dict[str, str]):
    """What the journal would keep."""

    def note(self, key: str) -> str | None:
        return self.get(key)

    def set_note(self, key: str, text: str) -> None:
        self[key] = text


class Machine:
    """A supervisor with what it needs."""

    def __init__(self, folder: Path) -> None:
        self.packages = Packages(folder)
        self.runner = ProcessRunner(folder / "logs")
        self.crashes: list[tuple[str, str, Failure]] = []
        self.supervisor = Supervisor(
            self.runner,
            Ports("127.0.0.1", Notes()),
            self.packages.root,
            lambda *crash: self.crashes.append(crash),
            drain_s=5,
        )

    def have(self, made: Made, **changes: object) -> Module:
        for data in made.blobs.values():
            self.packages.blobs.put_bytes(data)
        return Module(package=made.digest, **changes)  # type: ignore[arg-type]

    def port(self) -> int:
        self.until(lambda: self.supervisor.live()["main"].healthy)
        return self.supervisor.live()["main"].port

    def until(self, true: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, self.crashes
            time.sleep(0.01)

    def close(self) -> None:
        self.supervisor.close()
        self.runner.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.close()


def test_what_dies_is_started_again_at_the_same_port(machine: Machine) -> None:
    machine.supervisor.start("main", machine.have(package("one")))
    port = machine.port()
    first = int(ask(port).split()[1])
    os.kill(first, signal.SIGKILL)
    # The socket is the agent's: whoever connects now waits for the next worker.
    assert int(ask(port).split()[1]) != first
    assert machine.supervisor.live()["main"].restarts == 1
    assert "SIGKILL" in machine.crashes[0][2].message


def test_what_keeps_dying_is_tried_more_and_more_rarely(machine: Machine) -> None:
    machine.supervisor.start("main", machine.have(package("x", exit=7)))
    machine.until(lambda: len(machine.crashes) >= 3)
    begun = time.monotonic()
    machine.until(lambda: len(machine.crashes) >= 4)
    assert time.monotonic() - begun > 0.5
    assert "status 7" in machine.crashes[0][2].message


def test_a_package_that_is_not_here_is_waited_for(machine: Machine) -> None:
    made = package("late")
    machine.supervisor.start("main", Module(package=made.digest))
    machine.until(lambda: bool(machine.crashes))
    assert machine.crashes[0][2].code == "not_found"
    machine.have(made)
    assert ask(machine.port()).startswith("late")


def test_a_candidate_that_fails_says_why(machine: Machine) -> None:
    run = machine.have(package("x", fail="no such file"), timeout_s=20.0)
    root = machine.packages.root(run)
    with pytest.raises(DeploymentFailedError, match="The script failed"):
        machine.supervisor.probe("main", run, 1, root, Stop())
    assert machine.supervisor.running("main") is None


def test_a_candidate_that_hangs_is_ended(machine: Machine) -> None:
    run = machine.have(package("x", hang=True), timeout_s=0.7)
    root = machine.packages.root(run)
    with pytest.raises(DeadlineExceededError):
        machine.supervisor.probe("main", run, 1, root, Stop())
    assert not _workers(root)


def test_a_candidate_that_is_not_wanted_any_more_is_ended(machine: Machine) -> None:
    import threading

    run = machine.have(package("x", hang=True), timeout_s=60.0)
    root = machine.packages.root(run)
    stop = Stop()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(StoppedError):
        machine.supervisor.probe("main", run, 1, root, stop)
    assert not _workers(root)


def test_a_switch_needs_its_candidate(machine: Machine) -> None:
    run = machine.have(package("one"))
    with pytest.raises(DeploymentFailedError, match="before the switch"):
        machine.supervisor.switch("main", run, 1)


def test_a_candidate_of_an_earlier_attempt_is_ended_and_a_later_one_stays(
    machine: Machine,
) -> None:
    run = machine.have(package("one"))
    machine.supervisor.probe("main", run, 2, machine.packages.root(run), Stop())
    machine.supervisor.end_candidate("main", 1)
    machine.supervisor.switch("main", run, 2)
    assert ask(machine.port()).startswith("one")


def test_requests_in_progress_are_answered_by_the_version_that_goes(machine: Machine) -> None:
    machine.supervisor.start("main", machine.have(package("one")))
    port = machine.port()
    slow = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    slow.request("GET", "/sleep/1.0")
    time.sleep(0.2)
    two = machine.have(package("two"))
    machine.supervisor.probe("main", two, 1, machine.packages.root(two), Stop())
    machine.supervisor.switch("main", two, 1)
    assert slow.getresponse().read().startswith(b"one")
    slow.close()
    assert ask(port).startswith("two")


def test_a_module_that_stops_gives_its_port_back(machine: Machine) -> None:
    machine.supervisor.start("main", machine.have(package("one")))
    port = machine.port()
    machine.supervisor.stop("main")
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


def test_a_port_that_is_taken_is_an_error(machine: Machine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        run = machine.have(package("one"), port=other.getsockname()[1])
        root = machine.packages.root(run)
        with pytest.raises(InUseError, match="cannot have port"):
            machine.supervisor.probe("main", run, 1, root, Stop())


def test_workers_go_with_their_supervisor(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    run = machine.have(package("one"))
    machine.supervisor.start("main", run)
    machine.port()
    root = machine.packages.root(run)
    assert _workers(root)
    machine.close()
    assert not _workers(root)


def test_a_damaged_blob_is_removed_so_that_it_is_fetched_again(machine: Machine) -> None:
    made = package("one")
    run = machine.have(made)
    blob = machine.packages.blobs.path(made.layer("model").digest)
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(bytes(data))
    with pytest.raises((DigestMismatchError, NotFoundError)):
        machine.packages.root(run)
    assert not machine.packages.blobs.has(made.layer("model").digest)


def test_cleaning_up_keeps_what_runs(machine: Machine) -> None:
    kept, gone = machine.have(package("kept")), machine.have(package("gone"))
    roots = [machine.packages.root(run) for run in (kept, gone)]
    machine.packages.clean({kept.package}, set())
    assert [root.exists() for root in roots] == [True, False]
    assert machine.packages.root(kept) == roots[0]
    with pytest.raises(NotFoundError):
        machine.packages.root(gone)


def circuit(machine: Machine, folder: Path, *rows: list[float]) -> Module:
    """A package of a circuit of two qubits, whose example are these rows."""
    model = random_circuit(2, 8, 5)
    schema = msgspec.structs.replace(describe(model), example={"data": list(rows)})
    root = write_root(folder, model, schema)
    files = {path.name: path.read_bytes() for path in (root / "model").iterdir()}
    return machine.have(package_of({"model": files}), run="circuit")


def test_a_candidate_that_cannot_answer_its_example_never_answers(
    machine: Machine, tmp_path: Path
) -> None:
    good = circuit(machine, tmp_path / "good", [1, 2, 3, 4])
    machine.supervisor.probe("main", good, 1, machine.packages.root(good), Stop())
    machine.supervisor.switch("main", good, 1)
    port = machine.port()
    bad = circuit(machine, tmp_path / "bad", [1, 2])
    with pytest.raises(DeploymentFailedError, match=r"example with status 400: data\[0\] has 2"):
        machine.supervisor.probe("main", bad, 2, machine.packages.root(bad), Stop())
    assert ask(port, "/health/ready") == '{"ready":true}'
    running = machine.supervisor.running("main")
    assert running is not None
    assert running.run == good
    # The probe's own request says nothing of how the version does for others.
    assert machine.supervisor.shown("main", running) == Shown()


def test_a_layer_that_came_as_a_delta_is_unpacked(machine: Machine) -> None:
    made = package("delta")
    model = made.layer("model")
    run = machine.have(made)
    machine.packages.blobs.delete(model.digest)
    machine.packages.blobs.put_bytes(model.raw)
    assert b"delta" in (machine.packages.root(run) / "model/behaviour.json").read_bytes()


def _workers(root: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(root) in text:
            found.append(text)
    return found
