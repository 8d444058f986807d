"""Controllers and brokers die at moments that nobody chose, while versions follow one another."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from edge.controller.entities import Plan
from edge.protocol import envelope, messages
from edge.protocol.messages import Desired
from edge.security import keys
from tests.faults.harness import LONG
from tests.support.controllers import Site, eventually, site

KILLS = 100 if LONG else 1
"""Of controllers and of brokers each, for each kind of broker."""

ALIVE_S = 2.0
"""On average: most go before they have done anything, and some take a rollout further."""

HURRY = 0.05
"""How often a version comes before the last one is everywhere."""

MOST_WRITES = 60
SLEEPS = 20 if LONG else 1
DEVICES = 4
PLAN = Plan(waves=("1", "2", "100%"), timeout_s=600.0)

# Whatever a controller imports is there before it is started: kills fall into its work.
SPAWNER = """
import os, signal, sys
from pathlib import Path
from edge.controller.broker import parse_url
from edge.controller.controller import Controller
from edge.controller.ledger import Ledger
from edge.controller.permits import SignedPermits
from edge.controller.records import Fleet
from edge.security import keys
from edge.security.director import Director
from edge.security.metadatastore import FolderStore
from edge.security.repository import Repository
from serve.registry import Registry

folder, url = Path(sys.argv[1]), sys.argv[2]


def lead():
    with Registry(str(folder / "workspace")) as registry:
        Controller(
            Fleet(registry.database),
            parse_url(url),
            signer=Director(keys.read(folder / "director.pem")),
            permits=SignedPermits(Repository(FolderStore(folder / "trust"))),
            lease_s=0.5,
        ).run()


def die_at(number, when):
    real, left = Ledger.write, [number]

    def write(*given):
        left[0] -= 1
        if not left[0] and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = real(*given)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Ledger.write = write


signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    child = os.fork()
    if not child:
        if line.strip():
            number, when = line.split()
            die_at(int(number), when)
        lead()
        os._exit(0)
    print(child, flush=True)
"""


class Controllers:
    """Starts controllers in no time, and kills them."""

    def __init__(self, ask: IO[str], answer: IO[str]) -> None:
        self._ask, self._answer = ask, answer
        self._pid = 0

    def start(self, *step: object) -> None:
        """One that lives, or kills itself at a step: which of its writes, `before` or `after`."""
        print(*step, file=self._ask, flush=True)
        self._pid = int(self._answer.readline())

    def kill(self) -> None:
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            eventually(self.is_gone)
            self._pid = 0

    def pause(self, records: Path) -> None:
        """It sleeps, and its connection stands; not while it writes, which holds all others up."""
        while True:
            os.kill(self._pid, signal.SIGSTOP)
            eventually(self._has_stopped)
            with closing(sqlite3.connect(records, timeout=0, isolation_level=None)) as db:
                try:
                    db.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    self.resume()
                    time.sleep(0.01)
                else:
                    return

    def _has_stopped(self) -> bool:
        """Whether each thread has: what a system call does until then may take a lock yet."""
        tasks = Path(f"/proc/{self._pid}/task").glob("*/stat")
        return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)

    def resume(self) -> None:
        """It goes on, and believes that it leads."""
        os.kill(self._pid, signal.SIGCONT)

    def is_gone(self) -> bool:
        """Whether it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, 0)
            return False
        return True


@contextmanager
def controllers(folder: Path, url: str) -> Iterator[Controllers]:
    root = Path(__file__).parents[2]
    with (folder / "controllers.log").open("ab") as log:
        spawner = subprocess.Popen(
            [sys.executable, "-c", SPAWNER, str(folder), url],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with spawner:
        assert spawner.stdin is not None
        assert spawner.stdout is not None
        made = Controllers(spawner.stdin, spawner.stdout)
        try:
            yield made
        finally:
            made.kill()


def check_what_devices_heard(place: Site) -> None:
    """No number of a wish was given to two of them, whichever controller said it."""
    for device in place.devices.values():
        meant: dict[int, str] = {}
        for wish in device.told:
            package = wish.modules["m0"].package
            assert meant.setdefault(wish.generation, package) == package
        generations = [wish.generation for wish in device.wishes]
        assert generations == sorted(set(generations))


def kept_by_the_broker(place: Site) -> dict[str, int]:
    """Device to the generation of the wish that the broker has for it."""
    found: dict[str, int] = {}

    def hear(_client: object, _data: object, message: MQTTMessage) -> None:
        body = envelope.decode(bytes(message.payload)).body()
        found[message.topic.split("/")[3]] = messages.decode(body, Desired).generation

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = hear
    client.on_connect = lambda one, *_: one.subscribe("fleet/v1/+/+/desired", 1)
    client.connect("127.0.0.1", place.broker.port)
    client.loop_start()
    eventually(lambda: len(found) == DEVICES)
    client.disconnect()
    client.loop_stop()
    return found


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * SLEEPS)
def test_a_controller_that_slept_while_another_led_says_nothing_old(tmp_path: Path) -> None:
    """Two at once: the one that wakes believes that it leads, until it looks."""
    chance = random.Random(5)
    with (
        site(tmp_path) as place,
        controllers(tmp_path, place.broker.url) as first,
        controllers(tmp_path, place.broker.url) as second,
    ):
        keys.write(place.trust.keys.director, tmp_path / "director.pem")
        for number in range(DEVICES):
            place.device(f"d{number}")
        place.deploy("v0", plan=PLAN)
        first.start()
        second.start()
        assert place.until("complete") == {"good": DEVICES}
        for turn in range(1, SLEEPS + 1):
            sleeping = (first, second)[turn % 2 == 0]
            place.deploy(f"v{turn}", plan=PLAN)
            time.sleep(lifetime(chance))
            sleeping.pause(tmp_path / "workspace" / "fieldpost.db")
            assert place.until("complete") == {"good": DEVICES}
            generations = {one.name: one.wishes[-1].generation for one in place.devices.values()}
            told = {name: len(one.told) for name, one in place.devices.items()}
            sleeping.resume()
            time.sleep(1.0)  # in which it would say what it had in mind
            assert kept_by_the_broker(place) == generations
            for name, device in place.devices.items():
                assert {one.generation for one in device.told[told[name] :]} <= {generations[name]}
        check_what_devices_heard(place)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_controller_is_killed_at_each_write_of_its_records(tmp_path: Path) -> None:
    """Before it, nobody was told; after it, nobody was told yet: the next one tells them."""
    chance = random.Random(77)
    steps = [(number, when) for number in range(1, MOST_WRITES) for when in ("before", "after")]
    with (
        site(tmp_path) as place,
        controllers(tmp_path, place.broker.url) as leading,
    ):
        keys.write(place.trust.keys.director, tmp_path / "director.pem")
        for number in range(DEVICES):
            place.device(f"d{number}")
        came_to_its_end = False
        for step in steps if LONG else chance.sample(steps[:12], 1):
            place.deploy(f"v{step[0]}-{step[1]}", plan=PLAN)
            leading.start(*step)
            eventually(lambda: leading.is_gone() or _is_complete(place))
            came_to_its_end = not leading.is_gone()
            leading.kill()
            leading.start()
            assert place.until("complete") == {"good": DEVICES}
            leading.kill()
            check_what_devices_heard(place)
            if came_to_its_end:
                break
        assert came_to_its_end or not LONG


def lifetime(chance: random.Random) -> float:
    """In seconds: often next to nothing."""
    return min(chance.expovariate(1 / ALIVE_S), 8.0)


def _is_complete(place: Site) -> bool:
    return place.fleet.rollout("iris").rollout.state == "complete"


@pytest.mark.slow
@pytest.mark.timeout(180 + 12 * KILLS)
@pytest.mark.parametrize("persistent", [False, True])
def test_whatever_is_killed_the_fleet_comes_to_the_last_version(
    tmp_path: Path, persistent: bool
) -> None:
    chance = random.Random(211 + persistent)
    completed = 0
    with (
        site(tmp_path, persistent=persistent) as place,
        controllers(tmp_path, place.broker.url) as leading,
    ):
        keys.write(place.trust.keys.director, tmp_path / "director.pem")
        for number in range(DEVICES):
            place.device(f"d{number}")
        place.deploy("v0", plan=PLAN)
        leading.start()
        for turn in range(1, KILLS + 1):
            time.sleep(lifetime(chance))
            leading.kill()
            is_complete = _is_complete(place)
            completed += is_complete
            if is_complete or chance.random() < HURRY:
                place.deploy(f"v{turn}", plan=PLAN)
            time.sleep(chance.uniform(0, 0.5))
            leading.start()
            time.sleep(lifetime(chance))
            place.broker.kill()
            place.broker.start()
        last = f"v{KILLS + 1}"
        place.deploy(last, plan=PLAN)
        assert place.until("complete") == {"good": DEVICES}
        package = place.permit(last).package
        for device in place.devices.values():
            assert device.desired is not None
            assert device.desired.modules["m0"].package == package
        check_what_devices_heard(place)
    assert completed >= 3 or not LONG
