"""What devices and controllers write to each other over HTTPS, before and beside MQTT."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from edge.protocol.messages import Message
from edge.security.freshtime import Nonce

AUTHORITY: Final = "/fleet/v1/authority"
ENROL: Final = "/fleet/v1/enrol"
RENEW: Final = "/fleet/v1/renew"
TIME: Final = "/fleet/v1/time"
METADATA: Final = "/fleet/v1/metadata/"

_RENEWAL: Final = b"fieldpost renewal v1\n"

Pem = Annotated[str, msgspec.Meta(max_length=16384)]


class EnrolRequest(Message, kw_only=True):
    """A device asks to be let in.

    Attributes:
        token: Its claim.
        csr: A request for a certificate, by the key that it made.
    """

    token: Annotated[str, msgspec.Meta(max_length=512)]
    csr: Pem

    def __repr__(self) -> str:
        return "EnrolRequest()"


class RenewRequest(Message, kw_only=True):
    """A device asks for its next certificate; it may ask with one that has expired.

    Attributes:
        certificate: The one that it has.
        csr: A request, by a new key.
        proof: Signature of `renewal_bytes` by the key that it has, in hexadecimal.
    """

    certificate: Pem
    csr: Pem
    proof: Annotated[str, msgspec.Meta(max_length=2048, pattern="^([0-9a-f]{2})*$")]


class EnrolAnswer(Message, kw_only=True, omit_defaults=True):
    """A device is let in.

    Attributes:
        site: Where it is.
        device: Its name from now on.
        certificate: In PEM.
        authority: The certificates to know brokers and controllers by, in PEM.
        root: The first root metadata; empty where the fleet signs none, and when renewing.
        settings: Where things are: `broker`, `controller`.
    """

    site: str
    device: str
    certificate: Pem
    authority: Annotated[str, msgspec.Meta(max_length=65536)]
    root: str = ""
    settings: dict[str, str] = msgspec.field(default_factory=dict)


class TimeRequest(Message, kw_only=True):
    """A device asks what time it is.

    Attributes:
        nonce: Of this question.
    """

    nonce: Nonce


def renewal_bytes(csr: str) -> bytes:
    """What the old key signs to ask for a certificate of the new one."""
    return _RENEWAL + csr.encode()
