"""Real agents on hosts of their own: cut off, slow, losing packets, half open."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import namespaces
from tests.support.namespaces import Host, Net
from tests.support.operators import AgentFolder, Operator, eventually, operating

PORT = 8700
ONE_WAVE = ("--waves", "100%", "--offline", "wait", "--timeout", "120s", "--port", PORT)


class Place:
    """A fleet on a bridge: the operator's machine and the devices' hosts."""

    def __init__(self, operator: Operator, net: Net) -> None:
        self.operator, self.net = operator, net
        self.hosts: dict[str, Host] = {}
        self.agents: dict[str, AgentFolder] = {}

    def device(self, name: str) -> Host:
        host = self.net.host()
        agent = self.operator.device(name, host.command)
        agent.start()
        self.hosts[name], self.agents[name] = host, agent
        return host

    def online(self) -> None:
        """Until the controller knows that all are there."""
        eventually(lambda: all(one["online"] for one in self.operator("device", "list")))

    def answers(self, name: str, text: str) -> bool:
        return self.hosts[name].ask(PORT).startswith(text)

    def until_answers(self, name: str, text: str, within_s: float = 60.0) -> None:
        eventually(lambda: self.answers(name, text), within_s)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with namespaces.network() as net, operating(tmp_path, address=net.address) as operator:
        broker = operator.mosquitto()
        try:
            operator.controller()
            yield Place(operator, net)
        finally:
            operator.close()
            broker.kill()


@pytest.mark.timeout(300)
def test_cut_off_slow_and_lossy_hosts_come_to_what_is_wished_for(place: Place) -> None:
    namespaces.require_shaping()
    operator = place.operator
    cut, slow, lossy = (place.device(name) for name in ("cut", "slow", "lossy"))
    place.online()
    operator.deploy(operator.version("one"), *ONE_WAVE)
    assert operator.until("complete")["counts"] == {"good": 3}
    cut.cut()
    slow.slow(256_000)
    lossy.lose(0.1)
    operator.deploy(operator.version("two"), *ONE_WAVE)
    place.until_answers("slow", "two", 90)
    place.until_answers("lossy", "two", 90)
    assert place.answers("cut", "one")  # nobody can reach it, and it serves
    place.agents["cut"].process.kill()  # type: ignore[union-attr]
    place.agents["cut"].start()
    place.until_answers("cut", "one")  # also after a restart without any network
    assert eventually(lambda: operator.rollout()["counts"].get("good") == 2)
    cut.mend()
    place.until_answers("cut", "two", 120)
    assert eventually(lambda: operator.rollout()["counts"] == {"good": 3})


@pytest.mark.timeout(300)
def test_a_half_open_connection_is_noticed_and_made_anew(place: Place) -> None:
    operator = place.operator
    deaf = place.device("deaf")
    place.online()
    operator.deploy(operator.version("one"), *ONE_WAVE)
    operator.until("complete")
    deaf.deafen()
    operator.deploy(operator.version("two"), *ONE_WAVE)
    time.sleep(10)  # longer than the keepalive: the broker has given it up, or it the broker
    assert place.answers("deaf", "one")
    deaf.mend()
    place.until_answers("deaf", "two", 90)
    assert operator.until("complete")["counts"] == {"good": 1}
