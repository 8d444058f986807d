from __future__ import annotations

import dataclasses

import pytest

from edge.circuits.settings import PREFIX, Settings, from_environment
from scoring.errors import UsageError
from serve.server.settings import ServerSettings


def test_defaults_are_those_of_the_server() -> None:
    theirs = dataclasses.asdict(ServerSettings())
    mine = dataclasses.asdict(Settings())
    mine.pop("max_connections")  # a device has less memory
    assert {name: theirs[name] for name in mine} == mine
    assert from_environment({"PATH": "/", "FIELDPOST_LISTEN_FD": "3"}) == Settings()


def test_settings_are_read() -> None:
    given = {"MAX_BODY_BYTES": "1000", "DRAIN_IDLE_S": "0", "INPUTS": "on", "PAYLOAD_RATIO": "0.5"}
    found = from_environment({PREFIX + name: text for name, text in given.items()})
    assert found == Settings(max_body_bytes=1000, drain_idle_s=0, inputs="on", payload_ratio=0.5)


def test_what_the_server_would_do_alike_is_no_matter() -> None:
    assert from_environment({f"{PREFIX}WORKERS": "1", f"{PREFIX}METRICS": "on"}) == Settings()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("API_KEYS", "/etc/keys"),
        ("TLS_CERT", "/etc/cert"),
        ("RATE_LIMIT", "5"),
        ("WORKERS", "2"),
        ("MAX_BODY_BYTES", "many"),
        ("MAX_BODY_BYTES", "0"),
        ("MAX_BODY_BYTES", "-1"),
        ("BODY_TIMEOUT_S", "inf"),
        ("BODY_TIMEOUT_S", "nan"),
        ("PAYLOAD_RATIO", "2"),
        ("INPUTS", "maybe"),
    ],
)
def test_what_would_be_lost_is_refused(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=name):
        from_environment({PREFIX + name: text})
