from __future__ import annotations

import queue
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.agent.config import Broker
from edge.agent.link import Came, Link, Login
from edge.agent.outbox import MOST_QUEUED
from edge.protocol import messages
from edge.protocol.messages import Status
from tests.support.brokers import Mosquitto, running


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with running(tmp_path) as broker:
        yield broker


class Heard:
    """A client that hears everything."""

    def __init__(self, broker: Mosquitto) -> None:
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda _c, _d, message: self.messages.put(message)
        self.client.on_connect = lambda client, *_: client.subscribe("fleet/v1/#", 1)
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def until(self, kind: str, true: Callable[[bytes], bool] = lambda _: True) -> bytes:
        while True:
            message = self.messages.get(timeout=20)
            payload = bytes(message.payload)
            if message.topic.endswith(kind) and true(payload):
                return payload

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def heard(broker: Mosquitto) -> Iterator[Heard]:
    heard = Heard(broker)
    yield heard
    heard.close()


@contextmanager
def linked(broker: Mosquitto, came: Callable[[Came], None] = lambda _: None) -> Iterator[Link]:
    link = Link(
        Broker("127.0.0.1", broker.port, tls=False),
        Login(),
        site="hall",
        device="camera",
        boot=7,
        came=came,
        keepalive_s=5,
        longest_wait_s=0.5,
    )
    link.start()
    try:
        yield link
    finally:
        link.close()


def online(payload: bytes) -> bool:
    return messages.decode(payload, Status).online


def test_it_says_that_it_is_there_and_that_it_goes(broker: Mosquitto, heard: Heard) -> None:
    with linked(broker) as link:
        assert messages.decode(heard.until("status", online), Status).boot == 7
        link.retain("reported", b"r1")
        assert heard.until("reported") == b"r1"
    assert not online(heard.until("status"))


def test_a_broker_that_forgot_everything_is_told_again(broker: Mosquitto, heard: Heard) -> None:
    with linked(broker) as link:
        link.retain("reported", b"r1")
        heard.until("reported")
        broker.kill()
        while link.is_up:
            time.sleep(0.01)
        sent: queue.Queue[bool] = queue.Queue()
        assert link.send("cmd/res", b"while it was away", sent.put)
        broker.start()
        assert heard.until("reported") == b"r1"
        assert sent.get(timeout=20)


def test_what_was_not_dealt_with_comes_again(broker: Mosquitto, heard: Heard) -> None:
    first: queue.Queue[Came] = queue.Queue()
    with linked(broker, first.put):
        heard.until("status", online)
        heard.client.publish("fleet/v1/hall/camera/cmd/req", b"do it", 1)
        first.get(timeout=20)  # and the agent ends here
    again: queue.Queue[Came] = queue.Queue()
    with linked(broker, again.put):
        message = again.get(timeout=20)
        assert (message.kind, message.payload) == ("cmd/req", b"do it")
        message.done()
        heard.client.publish("fleet/v1/hall/camera/cmd/req", b"next", 1)
        assert again.get(timeout=20).payload == b"next"


def test_the_queue_has_an_end(broker: Mosquitto) -> None:
    broker.kill()
    # It takes the connection and says nothing: one that fails drops telemetry, which is told again.
    with socket.create_server(("127.0.0.1", broker.port)), linked(broker) as link:
        taken = [link.send("tele/metric", b"x") for _ in range(MOST_QUEUED + 5)]
        assert taken == [True] * MOST_QUEUED + [False] * 5
        assert not link.is_up


def test_all_of_a_long_queue_arrives_in_order(broker: Mosquitto, heard: Heard) -> None:
    with linked(broker) as link:
        sent: queue.Queue[bool] = queue.Queue()
        for number in range(100):
            assert link.send("tele/metric", b"%d" % number, sent.put)
        assert [heard.until("tele/metric") for _ in range(100)] == [b"%d" % n for n in range(100)]
        assert all(sent.get(timeout=10) for _ in range(100))


def test_a_broker_that_refuses_is_asked_again(tmp_path: Path) -> None:
    with running(tmp_path, users={"other": "secret"}) as broker, linked(broker) as link:
        deadline = time.monotonic() + 20
        while link.sessions < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert link.sessions >= 3
        assert not link.is_up


def test_passwords_are_not_shown() -> None:
    assert "secret" not in repr(Login(user="me", password="secret"))
