"""Who a certificate is for: `urn:fieldpost:device:SITE:DEVICE` among its alternative names."""

from __future__ import annotations

from typing import Final, NamedTuple

from edge.protocol.names import is_name
from scoring.errors import UsageError

CONTROLLER: Final = "CONTROLLER"
_DEVICE: Final = "urn:fieldpost:device:"
_CONTROLLER_NAME: Final = "FIELDPOST-CONTROLLER-"
MOST_CONTROLLERS: Final = 99


class Who(NamedTuple):
    """A device.

    Attributes:
        site: Where it is.
        device: Its name.
    """

    site: str
    device: str


def device_uri(site: str, device: str) -> str:
    """What a device's certificate says of it."""
    return f"{_DEVICE}{site}:{device}"


def parse_device(uri: str) -> Who | None:
    """Whom a URI names; None for nobody of ours."""
    site, colon, device = uri.removeprefix(_DEVICE).partition(":")
    if not uri.startswith(_DEVICE) or not colon or not (is_name(site) and is_name(device)):
        return None
    return Who(site, device)


def of_peer(peer: object) -> Who | None:
    """The device at the other end of a TLS connection.

    Args:
        peer: What `getpeercert()` of the connection says, once its authority was checked.
    """
    names = peer.get("subjectAltName", ()) if isinstance(peer, dict) else ()
    found = (parse_device(value) for kind, value in names if kind == "URI")
    return next((who for who in found if who is not None), None)


def controller_name(number: int) -> str:
    """The user name of a controller at the broker: in capitals, as no device's is.

    Raises:
        UsageError: There are not so many.
    """
    if not 1 <= number <= MOST_CONTROLLERS:
        raise UsageError(f"Controllers have the numbers 1 to {MOST_CONTROLLERS}.")
    return f"{_CONTROLLER_NAME}{number}"
