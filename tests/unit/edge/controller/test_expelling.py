"""Who is put out of a broker."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge.controller.broker import parse_url, take_over
from edge.controller.expelling import Expeller
from edge.controller.records import Fleet
from edge.controller.rows import write_devices
from tests.support import brokers
from tests.support.controllers import eventually


class Certificate(NamedTuple):
    device: str
    revoked_at: float | None
    expires_at: float = 4e9


class Revocations:
    def __init__(self, *found: Certificate) -> None:
        self.found = found

    def revoked(self) -> list[Certificate]:
        return [one for one in self.found if one.revoked_at is not None]

    def certificates(self, device: str = "") -> list[Certificate]:
        return [one for one in self.found if one.device == device]


def test_those_that_are_there_and_have_no_good_certificate(fleet: Fleet) -> None:
    for name in ("bad", "away", "again", "good"):
        device = fleet.add_device(name, "hall")
        device.online = name != "away"
        with fleet.database.write() as connection:
            write_devices(connection, [device])
    revocations = Revocations(
        *(Certificate(name, 1.0) for name in ("bad", "away", "again", "unknown")),
        Certificate("again", None),
        Certificate("bad", None, expires_at=2.0),
        Certificate("good", None),
    )
    out: list[tuple[str, str]] = []

    def put_out(site: str, device: str) -> bool:
        out.append((site, device))
        return True

    assert Expeller(fleet, revocations, put_out)() == ["bad"]
    assert out == [("hall", "bad")]


def test_a_broker_ends_the_connection_of_who_is_taken_over(tmp_path: Path) -> None:
    with brokers.running(tmp_path) as broker:
        lost: list[bool] = []
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id="hall.bad", reconnect_on_failure=False
        )
        client.on_disconnect = lambda *_: lost.append(True)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        eventually(client.is_connected)
        try:
            assert take_over(parse_url(broker.url), "hall.bad")
            eventually(lambda: lost)
        finally:
            client.loop_stop()
    assert not take_over(parse_url(broker.url), "hall.bad", patience_s=1.0)
