"""Whole fleets of processes on other parts than usual, and on parts that die.

amqtt in place of Mosquitto, PostgreSQL for the controller's records, controllers and brokers that
are killed, a device that is cloned, clocks that lie.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any, cast

import pytest

from tests.faults.harness import LONG
from tests.postgres import PostgreSQL
from tests.support import brokers
from tests.support.edge_agents import answers
from tests.support.operators import AgentFolder, Operator, eventually, operating

_YEARS = 10
_FAKETIME = next(
    (str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None
)
ONE_WAVE = ("--waves", "100%", "--timeout", "120s")


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    """With Mosquitto, and no controller yet."""
    with operating(tmp_path) as made:
        broker = made.mosquitto()
        try:
            yield made
        finally:
            made.close()
            broker.kill()


def online(operator: Operator, count: int) -> None:
    eventually(lambda: sum(one["online"] for one in operator("device", "list")) == count)


def port_of(agent: AgentFolder) -> int:
    found: int = eventually(agent.port)
    return found


def serves(agent: AgentFolder, text: str) -> None:
    eventually(lambda: answers(port_of(agent), text))


def records(agent: AgentFolder) -> list[str]:
    """What answered on a device, by its journal's history."""
    with contextlib.closing(sqlite3.connect(agent.state / "journal.db")) as db:
        return [str(row[0]) for row in db.execute("SELECT active FROM history ORDER BY id")]


def test_amqtt_and_postgresql(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """The quickstart's broker and a team's database: a fleet is the same on them."""
    if util.find_spec("amqtt") is None:
        pytest.skip("amqtt is not installed")
    from edge.demo import brokers as demo

    workspace = postgresql.url(tmp_path / "blobs")
    with (
        demo.running("amqtt", tmp_path / "amqtt", cast("Any", None), "hall") as broker,
        operating(tmp_path, workspace=workspace) as operator,
    ):
        secret = tmp_path / "device-password"
        secret.write_text(broker.devices.password)
        operator.broker_url = f"mqtt://{broker.controller.user}@127.0.0.1:{broker.controller.port}"
        operator.password = broker.controller.password
        operator.controller()
        settings: dict[str, Any] = {"broker": broker.url, "user": "device"}
        settings["password_file"] = str(secret)
        agents = [operator.device(f"cam-{n}", **settings) for n in range(2)]
        for agent in agents:
            agent.start()
        online(operator, 2)
        for text in ("one", "two"):
            operator.deploy(operator.version(text), *ONE_WAVE)
            assert operator.until("complete")["counts"] == {"good": 2}
            for agent in agents:
                serves(agent, text)
        operator.deploy(operator.version("broken", fail="no such file"), *ONE_WAVE)
        assert operator.until("halted")["counts"]["failed"] >= 1
        for agent in agents:
            serves(agent, "two")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_controllers_and_brokers_are_killed_at_any_moment(tmp_path: Path) -> None:
    """Two controllers at once, of which one is killed; then the broker; while versions roll out."""
    chance = random.Random(29)
    rounds = 12 if LONG else 3
    with operating(tmp_path) as operator:
        broker = operator.mosquitto()
        try:
            # As behind one name: whichever controller a device asks, it is back at its port.
            ports = {number: brokers.free_port() for number in (1, 2)}
            first, second = (
                operator.controller("--number", number, listen=port)
                for number, port in ports.items()
            )
            agents = [operator.device(f"cam-{n}") for n in range(3)]
            for agent in agents:
                agent.start()
            online(operator, 3)
            versions = []
            for turn in range(rounds):
                versions.append(operator.version(f"v{turn}"))
                operator.deploy(versions[-1], "--waves", "1,100%", "--timeout", "120s")
                time.sleep(chance.uniform(0, 1.5))
                first.kill()
                time.sleep(chance.uniform(0, 0.5))
                broker.kill()
                broker.start()
                number = turn % 2 + 1
                back = operator.controller("--number", number, listen=ports[number])
                first, second = second, back
                assert operator.until("complete", 120)["counts"] == {"good": 3}
                for agent in agents:
                    serves(agent, f"v{turn}")
            for agent in agents:
                agent.end()
                assert set(records(agent)) <= {"", *versions}
            assert second.popen.poll() is None
        finally:
            operator.close()
            broker.kill()


def test_a_cloned_device_is_told_and_does_no_harm(operator: Operator) -> None:
    operator.controller()
    agent = operator.device("cam")
    agent.start()
    online(operator, 1)
    operator.deploy(operator.version("one"), *ONE_WAVE)
    operator.until("complete")
    agent.end()
    copied = operator.folder / "copied"
    shutil.copytree(agent.state, copied)  # a disk image, taken while it was off
    clone = AgentFolder("cam", copied, agent.wrap, agent.env)
    clone.settings()
    operator.devices.append(clone)
    with contextlib.closing(sqlite3.connect(copied / "journal.db")) as db, db:
        db.execute("DELETE FROM rows WHERE key = 'note.port.main'")
    agent.start()
    agent.end()
    agent.start()  # its boots are ahead of the clone's now
    serves(agent, "one")
    clone.start()
    eventually(
        lambda: [one for one in operator("fleet", "events") if "two machines" in json.dumps(one)]
    )
    serves(agent, "one")
    clone.end()
    operator.deploy(operator.version("two"), *ONE_WAVE)
    operator.until("complete", 120)
    serves(agent, "two")


@pytest.mark.parametrize("years", [-_YEARS, _YEARS])
def test_a_device_whose_clock_is_ten_years_off(operator: Operator, years: int) -> None:
    """Behind, it is told the time and goes on; ahead, it says why not, and serves all the same."""
    if _FAKETIME is None:
        pytest.skip("faketime is not installed")
    operator.controller()
    agent = operator.device("cam")
    agent.start()
    online(operator, 1)
    operator.deploy(operator.version("one"), *ONE_WAVE)
    operator.until("complete")
    agent.end()
    lie = {"LD_PRELOAD": _FAKETIME, "FAKETIME": f"{years:+d}y", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    agent.start(**lie)
    serves(agent, "one")
    operator.deploy(operator.version("two"), *ONE_WAVE)
    if years < 0:
        operator.until("complete", 120)
        serves(agent, "two")
        return
    time.sleep(5)
    assert answers(port_of(agent), "one") or answers(port_of(agent), "two")
    agent.end()
    agent.start()  # the clock is right again: the device is where it was, and goes on
    operator.until("complete", 120)
    serves(agent, "two")
