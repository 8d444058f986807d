"""Signed messages: the exact bytes that were signed, and who signed them.

The bytes are kept as they are (no canonical form is made anew before checking), and checked before
they are read. Signing and checking themselves need cryptography, and stand elsewhere.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final

import msgspec

from edge.protocol.messages import MOST_BYTES
from scoring.errors import MalformedPayloadError, PayloadTooLargeError

_MOST_SIGNATURES: Final = 8
_TYPES: Final = ("desired", "command", "time")


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """One signature.

    Attributes:
        keyid: Of the key.
        sig: In hexadecimal.
    """

    keyid: Annotated[str, msgspec.Meta(max_length=128)]
    sig: Annotated[str, msgspec.Meta(max_length=1024, pattern="^([0-9a-f]{2})*$")]


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A message with its signatures (after DSSE: the type is signed as well).

    Attributes:
        type: `desired`, `command` or `time`: one cannot be passed off as the other.
        payload: The message's bytes, in base64.
        signatures: Over `signed_bytes`.
    """

    type: Annotated[str, msgspec.Meta(max_length=64)]
    payload: str
    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(max_length=_MOST_SIGNATURES)]

    def body(self) -> bytes:
        """The message's bytes.

        Raises:
            MalformedPayloadError: They are not in base64.
        """
        try:
            return base64.b64decode(self.payload, validate=True)
        except (binascii.Error, ValueError) as error:
            raise MalformedPayloadError("The payload of a signed message is not base64.") from error


def signed_bytes(kind: str, body: bytes) -> bytes:
    """What a signature is over: DSSE's pre-authentication encoding."""
    name = f"application/vnd.fieldpost.{kind}+json".encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(body), body)


def encode(kind: str, body: bytes, signatures: tuple[Signature, ...]) -> bytes:
    """The envelope as JSON.

    Raises:
        PayloadTooLargeError: It is over the size of a message.
    """
    payload = base64.b64encode(body).decode()
    data = msgspec.json.encode(
        Envelope(type=kind, payload=payload, signatures=signatures), order="sorted"
    )
    if len(data) > MOST_BYTES:
        raise PayloadTooLargeError(
            f"A signed message has {len(data)} bytes, and {MOST_BYTES} are the most.",
            hint="Give the device fewer modules, or shorter settings.",
        )
    return data


def decode(data: bytes) -> Envelope:
    """Reads an envelope; nothing of it is to be believed before its signatures are checked.

    Raises:
        MalformedPayloadError: It is none.
        PayloadTooLargeError: It is too large to be one.
    """
    if len(data) > MOST_BYTES:
        raise PayloadTooLargeError(f"A signed message has {len(data)} bytes: too many.")
    try:
        found = msgspec.json.decode(data, type=Envelope)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedPayloadError(f"This is no signed message: {error}.") from error
    if found.type not in _TYPES:
        raise MalformedPayloadError(
            f"There are no signed messages of the type {found.type[:64]!a}."
        )
    return found
