"""Topics and the names that fill their levels."""

from __future__ import annotations

import pytest

from edge.protocol import topics
from edge.protocol.names import check_name, is_name
from scoring.errors import InvalidNameError


@pytest.mark.parametrize("kind", topics.KINDS)
def test_topics_are_read_as_they_are_written(kind: topics.Kind) -> None:
    made = topics.topic("berlin", "cam-1", kind)
    assert topics.parse(str(made)) == made
    assert made.retained == (kind in {"desired", "reported", "status"})


@pytest.mark.parametrize(
    "text",
    [
        *("", "fleet", "fleet/v1", "fleet/v1/a/b", "fleet/v1/a/b/", "fleet/v2/a/b/status"),
        *("fleet/v1/a/b/status/x", "fleet/v1/a/b/tele", "fleet/v1/a/b/tele/other"),
        *("fleet/v1/A/b/status", "fleet/v1/a/+/status", "/fleet/v1/a/b/status"),
        *("fleet/v1//b/status", "fleet/v1/a/b\0/status", "$SYS/broker/uptime", "a/b/c/d/e/f/g"),
    ],
)
def test_other_topics_are_nobodys(text: str) -> None:
    assert topics.parse(text) is None


@pytest.mark.parametrize(
    "name", ["", "+", "#", "a/b", "a#", "A", "-a", "a-", "a" * 64, "ä", "a\n", "a..b", "."]
)
def test_names_fill_exactly_one_level(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(InvalidNameError):
        check_name(name, "device")
    with pytest.raises(InvalidNameError):
        topics.topic("site", name, "status")


def test_each_kind_has_one_writer() -> None:
    assert topics.BY_DEVICE.isdisjoint(topics.BY_CONTROLLER)
    assert set(topics.KINDS) == topics.BY_DEVICE | topics.BY_CONTROLLER


def test_subscriptions_cover_what_the_other_side_writes() -> None:
    assert set(topics.for_device("s", "d")) == {
        "fleet/v1/s/d/desired",
        "fleet/v1/s/d/ack",
        "fleet/v1/s/d/cmd/req",
    }
    patterns = topics.for_controller()
    for kind in topics.BY_DEVICE:
        text = str(topics.topic("s", "d", kind))
        assert any(_matches(pattern, text) for pattern in patterns), text
    shared = topics.for_controller(shared="ingest")
    assert "$share/ingest/fleet/v1/+/+/tele/#" in shared


def _matches(pattern: str, text: str) -> bool:
    parts, levels = pattern.split("/"), text.split("/")
    if parts[-1] == "#":
        parts, levels = parts[:-1], levels[: len(parts) - 1]
    return len(parts) == len(levels) and all(
        part in {"+", level} for part, level in zip(parts, levels, strict=True)
    )
