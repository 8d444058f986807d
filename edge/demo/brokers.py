"""Brokers for the demo, on the loopback, with nobody let in who does not show who he is."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Final, Literal, NamedTuple

from edge.agent.config import Broker
from edge.controller.broker import BrokerSettings
from edge.demo.processes import Child
from edge.protocol.topics import BY_CONTROLLER, BY_DEVICE, ROOT
from edge.security import broker as configs
from edge.security import certificates
from edge.security.fleet import FleetSecurity
from edge.simulator.roster import Certificates
from edge.simulator.wire import Access
from scoring import durable
from scoring.errors import DeploymentFailedError, MissingDependencyError

Kind = Literal["mosquitto", "amqtt"]

HOST: Final = "127.0.0.1"
_START_S: Final = 20.0
_TRIES: Final = 3
_LISTENS: Final = "0A"  # in /proc/net/tcp
_SYSTEM: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"


class Running(NamedTuple):
    """A broker that runs.

    Attributes:
        kind: Which one.
        url: Where it is.
        pid: Of its process.
        controller: How the controller gets to it.
        devices: How devices do.
    """

    kind: Kind
    url: str
    pid: int
    controller: BrokerSettings
    devices: Access


def mosquitto() -> str | None:
    """Where Mosquitto is; distributions put it where only root looks."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=_SYSTEM)


def choose() -> Kind:
    """The broker that is on this machine.

    Raises:
        MissingDependencyError: There is none.
    """
    if mosquitto() is not None:
        return "mosquitto"
    if util.find_spec("amqtt") is not None:
        return "amqtt"
    raise MissingDependencyError(
        "There is no MQTT broker on this machine.",
        hint="Install one: 'apt-get install mosquitto', or 'pip install fieldpost[fleet]'.",
    )


@contextlib.contextmanager
def running(kind: Kind, folder: Path, security: FleetSecurity, site: str) -> Iterator[Running]:
    """A broker until the end of the block.

    Args:
        kind: Which one.
        folder: For its files.
        security: Of the fleet: its authority signs for Mosquitto's clients.
        site: Of the devices.

    Raises:
        MissingDependencyError: It is not on this machine.
        DeploymentFailedError: It does not start.
    """
    durable.make_folder(folder, mode=0o700)
    started = _start(kind, folder, security, site)
    with started.child:
        settings = started.settings
        url = f"mqtt{'s' if settings.tls else ''}://{HOST}:{settings.port}"
        yield Running(kind, url, started.child.pid, settings, started.access)


class _Started(NamedTuple):
    child: Child
    settings: BrokerSettings
    access: Access


def _start(kind: Kind, folder: Path, security: FleetSecurity, site: str) -> _Started:
    """Starts it; on another port where somebody was faster to take the one that was free."""
    for left in reversed(range(_TRIES)):
        start = _start_mosquitto if kind == "mosquitto" else _start_amqtt
        started = _Started(*start(folder, security, site, _free_port()))
        try:
            _wait(started.child, started.settings.port)
        except BaseException as error:
            started.child.end()
            if not (left and isinstance(error, DeploymentFailedError)):
                raise
        else:
            return started
    raise AssertionError("the last try returns or raises")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def _wait(child: Child, port: int) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        child.require_alive()
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((HOST, port)) == 0 and _listens(child.pid, port):
                return
        if time.monotonic() > deadline:
            raise DeploymentFailedError(
                f"The broker does not answer after {_START_S:.0f} s.", detail=child.log()
            )
        time.sleep(0.02)


def _listens(pid: int, port: int) -> bool:
    """Whether it is this process that listens at a port; only Linux tells."""
    table = Path("/proc/net/tcp")
    if not table.exists():
        return True
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == _LISTENS and row[1].endswith(f":{port:04X}")}
    try:
        links = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:  # it has just closed one, or ended
        return False
    return any(f"socket:[{inode}]" in links for inode in inodes)


# -- Mosquitto: as 'fieldpost fleet broker-config' sets it up


def _start_mosquitto(
    folder: Path, security: FleetSecurity, site: str, port: int
) -> tuple[Child, BrokerSettings, Access]:
    binary = mosquitto()
    if binary is None:
        raise MissingDependencyError(
            "Mosquitto is not on this machine.",
            hint="Install it with 'apt-get install mosquitto', or use --broker amqtt.",
        )
    authority = security.ensure_authority()
    described = configs.Broker(
        folder=folder,
        data=folder / "data",
        port=port,
        address=HOST,
        user="root" if os.geteuid() == 0 else "",  # it would not read the folder as another
    )
    server = certificates.for_server(authority, [HOST], time.time())
    configs.write(
        described,
        authority=authority.pem,
        certificate=server.certificate,
        key=server.key,
        revoked=security.enrolment().revocation_list(),
    )
    own = certificates.for_controller(authority, 1, ["localhost"], time.time())
    file = own.write(folder / "controller.pem")
    child = Child([binary, "-c", str(folder / configs.CONFIG)], folder / "broker.log")
    settings = BrokerSettings(
        host=HOST, port=port, tls=True, authority=folder / configs.AUTHORITY, certificate=file
    )
    access = Access(Broker(HOST, port, True), Certificates(authority, site), keepalive_s=10)
    return child, settings, access


# -- amqtt: passwords, since it does not take names from certificates


def _start_amqtt(
    folder: Path, security: FleetSecurity, site: str, port: int
) -> tuple[Child, BrokerSettings, Access]:
    del security, site
    if util.find_spec("amqtt") is None:
        raise MissingDependencyError(
            "amqtt is not installed.", hint="Install it with 'pip install fieldpost[fleet]'."
        )
    users = {name: secrets.token_urlsafe(24) for name in ("controller", "device")}
    path = folder / "amqtt.json"
    document = {"port": port, "users": users, "rules": _rules()}
    durable.write_bytes(path, json.dumps(document).encode(), mode=0o600)
    line = [sys.executable, "-m", "edge.demo.amqttd", str(path)]
    child = Child(line, folder / "broker.log")
    settings = BrokerSettings(host=HOST, port=port, user="controller", password=users["controller"])
    broker = Broker(HOST, port, False)
    access = Access(broker, None, "device", users["device"], keepalive_s=10)
    return child, settings, access


def _rules() -> dict[str, dict[str, list[str]]]:
    """Who may say what, and hear what; of all devices together."""
    by_device = sorted(f"{ROOT}/+/+/{kind}" for kind in BY_DEVICE)
    by_controller = sorted(f"{ROOT}/+/+/{kind}" for kind in BY_CONTROLLER)
    heard = [*by_device, f"{ROOT}/+/+/tele/#"]
    return {
        "publish": {"controller": by_controller, "device": by_device},
        "subscribe": {"controller": heard, "device": by_controller},
    }
