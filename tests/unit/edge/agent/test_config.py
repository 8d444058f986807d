from __future__ import annotations

from pathlib import Path

import pytest

from edge.agent import config
from edge.agent.config import Broker
from scoring.errors import UsageError


def test_a_folder_without_a_file_has_the_defaults(tmp_path: Path) -> None:
    assert config.of_folder(tmp_path) == config.Config(state=str(tmp_path))


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('broker = "mqtts://b"\nhost = "0.0.0.0"\nshell = true\n')
    found = config.of_folder(tmp_path)
    assert (found.broker, found.host, found.shell) == ("mqtts://b", "0.0.0.0", True)


@pytest.mark.parametrize(
    "text", ["broker = 1", "brocker = 'x'", "site = 'A B'", "keepalive_s = 1", "= 3", "\xff"]
)
def test_a_file_that_is_not_understood_names_itself(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"agent\.toml"):
        config.read(path)


def test_no_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read") as raised:
        config.read(tmp_path / "none.toml")
    assert "--config" in raised.value.hint


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtts://broker.example", Broker("broker.example", 8883, tls=True)),
        ("mqtt://127.0.0.1:1884", Broker("127.0.0.1", 1884, tls=False)),
        ("mqtts://[::1]:8883", Broker("::1", 8883, tls=True)),
    ],
)
def test_urls_of_brokers(url: str, broker: Broker) -> None:
    assert config.broker(url) == broker


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://x", "mqtt://", "mqtt://x:99999", "mqtt://x:y", "x:1", "mqtt://x:0"),
        *("mqttss://x:8883", "ssl://x:8883", "http://x:1883"),  # none that is spoken without TLS
    ],
)
def test_what_is_no_url_of_a_broker(url: str) -> None:
    with pytest.raises(UsageError, match="no URL of a broker"):
        config.broker(url)


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError) as raised:
        config.broker("mqtt://me:secret@broker")
    assert "secret" not in raised.value.message + raised.value.hint
