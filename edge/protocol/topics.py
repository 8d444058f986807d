"""The topics: `fleet/v1/SITE/DEVICE/KIND`. Each has one writer, and ACLs say so.

| kind            | writer     | QoS | retained |
|-----------------|------------|-----|----------|
| `desired`       | controller | 1   | yes      |
| `reported`      | device     | 1   | yes      |
| `status`        | device, and its last will | 1 | yes |
| `tele/CLASS`    | device     | 1   | no       |
| `ack`           | controller | 1   | no       |
| `cmd/req`       | controller | 1   | no       |
| `cmd/res`       | device     | 1   | no       |
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

from edge.protocol.names import check_name, is_name

ROOT: Final = "fleet/v1"
QOS: Final = 1

Class = Literal["alarm", "status", "metric", "debug"]
"""Of telemetry, the most important first."""

CLASSES: Final[tuple[Class, ...]] = get_args(Class)

Kind = Literal[
    "desired",
    "reported",
    "status",
    "ack",
    "cmd/req",
    "cmd/res",
    "tele/alarm",
    "tele/status",
    "tele/metric",
    "tele/debug",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

RETAINED: Final[frozenset[Kind]] = frozenset({"desired", "reported", "status"})
TELEMETRY: Final[frozenset[Kind]] = frozenset(
    {"tele/alarm", "tele/status", "tele/metric", "tele/debug"}
)
BY_DEVICE: Final[frozenset[Kind]] = frozenset(
    kind for kind in KINDS if kind not in {"desired", "ack", "cmd/req"}
)
BY_CONTROLLER: Final[frozenset[Kind]] = frozenset(KINDS) - BY_DEVICE


class Topic(NamedTuple):
    """A topic of one device.

    Attributes:
        site: Where the device is.
        device: Its name, which is the common name of its certificate.
        kind: What is said there.
    """

    site: str
    device: str
    kind: Kind

    def __str__(self) -> str:
        return f"{ROOT}/{self.site}/{self.device}/{self.kind}"

    @property
    def retained(self) -> bool:
        """Whether the broker keeps the last message for those that come later."""
        return self.kind in RETAINED


def topic(site: str, device: str, kind: Kind) -> Topic:
    """A topic of a device.

    Raises:
        InvalidNameError: A name would not fill exactly one level.
    """
    return Topic(check_name(site, "site"), check_name(device, "device"), kind)


def parse(text: str) -> Topic | None:
    """What a topic says; None for one that is not ours."""
    levels = text.removeprefix(f"{ROOT}/").split("/", 2)
    if not text.startswith(f"{ROOT}/") or len(levels) != len(Topic._fields):
        return None
    site, device, kind = levels
    if not (is_name(site) and is_name(device)):
        return None
    return next((Topic(site, device, known) for known in KINDS if known == kind), None)


def of_class(name: Class) -> Kind:
    """The kind of telemetry of a class."""
    kinds: dict[Class, Kind] = {
        "alarm": "tele/alarm",
        "status": "tele/status",
        "metric": "tele/metric",
        "debug": "tele/debug",
    }
    return kinds[name]


def for_device(site: str, device: str) -> list[str]:
    """What a device subscribes to."""
    return [str(topic(site, device, kind)) for kind in KINDS if kind in BY_CONTROLLER]


def for_controller(*, shared: str = "") -> list[str]:
    """What a controller subscribes to.

    Args:
        shared: The name of a group of which each telemetry message goes to one member
            (MQTT 5's shared subscriptions, which mosquitto has for 3.1.1 clients, too); empty
            for brokers without.
    """
    group = f"$share/{shared}/" if shared else ""
    plain = [f"{ROOT}/+/+/{kind}" for kind in ("reported", "status", "cmd/res")]
    return [*plain, f"{group}{ROOT}/+/+/tele/#"]
