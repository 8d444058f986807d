"""A real agent behind a proxy that treats its link badly: slow, sliced, cut, half open, refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge.agent.config import Config
from edge.agent.device import Device
from tests.support import faultproxy
from tests.support.edge_site import EdgeSite, ask, package
from tests.support.faultproxy import FaultProxy, Faults
from tests.support.server import until

# The library leaves sockets whose TLS was not answered to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EdgeSite]:
    with EdgeSite(tmp_path).open() as site:
        yield site


@pytest.fixture
def link(site: EdgeSite) -> Iterator[FaultProxy]:
    """Between the agent and the broker."""
    with faultproxy.proxy(site.broker.port) as made:
        yield made


@pytest.fixture
def config(site: EdgeSite, link: FaultProxy, tmp_path: Path) -> Config:
    own = site.enrol(tmp_path / "device")
    return msgspec.structs.replace(own, broker=f"mqtts://127.0.0.1:{link.port}")


@pytest.mark.parametrize(
    "faults",
    [
        Faults(delay_s=0.3),
        Faults(bytes_s=3000),
        Faults(slice_bytes=7),
        Faults(end_after=5500),
        Faults(close_after=5500),
    ],
    ids=["late", "slow", "sliced", "reset", "ended"],
)
def test_a_bad_link_brings_every_version(
    site: EdgeSite, link: FaultProxy, config: Config, faults: Faults
) -> None:
    """Connections that break after some thousand bytes are made anew, until all is said."""
    link.faults = faults
    with Device(config):
        for text in ("one", "two", "three", "four"):
            made = package(text)
            site.wish(made)
            state = site.wait_for("good", made, 60)
            assert ask(state.port).startswith(text)
    assert link.connections > 1 or not (faults.end_after or faults.close_after)


@pytest.mark.parametrize("way", ["down", "up", "both"])
def test_a_half_open_connection_is_given_up(
    site: EdgeSite, link: FaultProxy, config: Config, way: str
) -> None:
    one, two = package("one"), package("two")
    with Device(config):
        site.wish(one)
        port = site.wait_for("good", one).port
        before = link.connections
        link.faults = Faults(silent_down=way != "up", silent_up=way != "down")
        site.wish(two)
        until(lambda: link.connections > before, 40)  # by its keepalive it has noticed
        # What was wished for may have come, where only its own words are lost.
        assert ask(port).startswith(("one", "two") if way == "up" else "one")
        link.faults = Faults()
        link.reset()
        site.wait_for("good", two, 60)
        assert ask(port).startswith("two")


def test_a_link_that_is_refused_for_a_while_costs_nothing_but_time(
    site: EdgeSite, link: FaultProxy, config: Config
) -> None:
    one, two = package("one"), package("two")
    with Device(config):
        site.wish(one)
        port = site.wait_for("good", one).port
        link.faults = Faults(refuse=True)
        link.reset()
        before = link.connections
        site.wish(two)
        until(lambda: link.connections >= before + 2, 40)
        assert ask(port).startswith("one")
        link.faults = Faults()
        site.wait_for("good", two, 60)
