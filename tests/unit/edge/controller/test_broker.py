"""The controller's connection: which thread touches it, and what is said before it ends."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.controller.broker import BrokerSettings, Came, Link, Up, parse_url
from scoring.errors import UsageError
from tests.support import brokers
from tests.support.certificates import Authority

PUBLISHERS = 4
EACH = 250


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[BrokerSettings]:
    authority = Authority()
    file = authority.write(tmp_path / "authority.pem")
    broker, controller = (authority.issue(tmp_path, name) for name in ("broker", "controller"))
    with brokers.running(tmp_path / "broker", certificates=(file, *broker)) as running:
        yield BrokerSettings(
            host="127.0.0.1",
            port=running.port,
            tls=True,
            authority=file,
            certificate=controller[0],
            key=controller[1],
        )


def opened(settings: BrokerSettings, name: str, *topics: str) -> Link:
    link = Link(settings, name, topics)
    link.start()
    assert any(isinstance(one, Up) for _ in range(40) for one in link.take(0.5))
    return link


def heard(link: Link, count: int) -> list[str]:
    found: list[str] = []
    until = time.monotonic() + 20
    while len(found) < count and time.monotonic() < until:
        found += [one.payload.decode() for one in link.take(0.2) if isinstance(one, Came)]
    return found


def test_one_thread_alone_touches_the_socket(
    settings: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL's memory is destroyed where one thread reads while another writes."""
    touched: dict[str, set[str]] = {}

    def watch(name: str) -> None:
        original = getattr(ssl.SSLSocket, name)

        def watched(self: ssl.SSLSocket, *given: Any) -> Any:
            touched.setdefault(name, set()).add(threading.current_thread().name)
            return original(self, *given)

        monkeypatch.setattr(ssl.SSLSocket, name, watched)

    for name in ("send", "recv", "pending", "unwrap", "close"):
        watch(name)
    link = opened(settings, "one", "said/#")

    def say(number: int) -> None:
        for one in range(EACH):
            link.publish(f"said/{number}", f"{number}.{one}".encode(), retain=False)
            link.refresh("said/kept")

    threads = [threading.Thread(target=say, args=(n,), name=f"say-{n}") for n in range(PUBLISHERS)]
    for thread in threads:
        thread.start()
    found = heard(link, PUBLISHERS * EACH)
    for thread in threads:
        thread.join()
    link.close()
    assert sorted(found) == sorted(f"{n}.{one}" for n in range(PUBLISHERS) for one in range(EACH))
    assert set(touched) >= {"send", "recv"}
    assert set.union(*touched.values()) == {"fleet-broker"}


def test_what_was_said_before_the_end_arrives(settings: BrokerSettings) -> None:
    hearing = opened(settings, "hearing", "said/#")
    saying = opened(settings, "saying", "other")
    for one in range(100):
        saying.publish("said/last", str(one).encode(), retain=False)
    saying.close()
    assert saying.backlog == 0
    assert heard(hearing, 100) == [str(one) for one in range(100)]
    hearing.close()


@pytest.mark.parametrize("url", ["mqttss://x:8883", "ssl://x:8883", "http://x:1883", "mqtt://x:0"])
def test_what_is_no_url_of_mqtt_is_not_spoken_to_without_tls(url: str) -> None:
    with pytest.raises(UsageError, match="none of MQTT"):
        parse_url(url)


def test_urls_of_brokers() -> None:
    found = parse_url("mqtt://me:s%40cret@[::1]:1884", "other")
    assert (found.host, found.port, found.tls) == ("::1", 1884, False)
    assert (found.user, found.password) == ("me", "s@cret")
    found = parse_url("MQTTS://me@broker", "secret")
    assert (found.port, found.tls, found.password) == (8883, True, "secret")
    assert "secret" not in repr(found)
