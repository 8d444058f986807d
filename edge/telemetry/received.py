"""Telemetry as the controller reads it: what records tell stays the bytes that it came as."""

from __future__ import annotations

import zlib
from typing import Any, Final, NamedTuple

import msgspec

from edge.protocol.messages import Count, Message, Text, decode
from edge.protocol.topics import Class, Topic
from scoring.errors import MalformedPayloadError

_KIND: Final = "tele/"
_LEVEL: Final = 6


class Received(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record; see `messages.Record`."""

    seq: Count
    at: float
    kind: Text
    data: msgspec.Raw = msgspec.Raw(b"{}")
    late: bool = False

    def text(self) -> str:
        """What it tells, as JSON."""
        return bytes(self.data).decode("utf-8", "replace")


class Batch(Message, kw_only=True, omit_defaults=True):
    """Some records; see `messages.Telemetry`."""

    device: str
    epoch: Text
    records: tuple[Received, ...]
    dropped: dict[Class, Count] = msgspec.field(default_factory=dict)
    floor: Count = 0


class Delivery(NamedTuple):
    """A message, and how it came.

    Attributes:
        site: Of the device.
        name: The class of its records.
        batch: What it says.
        payload: Its bytes.
    """

    site: str
    name: str
    batch: Batch
    payload: bytes

    @property
    def device(self) -> str:
        """Who tells it."""
        return self.batch.device


def read(topic: Topic, payload: bytes) -> Delivery:
    """What a message on a topic of telemetry says.

    Raises:
        MalformedPayloadError: It is no telemetry, or not of the device whose topic it is.
        PayloadTooLargeError: It is too large.
    """
    if not topic.kind.startswith(_KIND):
        raise MalformedPayloadError(f"There is no telemetry on the topic {topic}.")
    batch = decode(payload, Batch)
    if batch.device != topic.device:
        raise MalformedPayloadError(
            f"On the topic of {topic.device} there is telemetry of {batch.device[:64]!a}.",
            where=str(topic),
        )
    if batch.floor > min((record.seq for record in batch.records), default=batch.floor):
        raise MalformedPayloadError("A record is below the floor that came with it.")
    return Delivery(topic.site, topic.kind.removeprefix(_KIND), batch, payload)


def body(delivery: Delivery, records: tuple[Received, ...]) -> bytes:
    """A message of some of the records: the one that came, where all are meant."""
    if records == delivery.batch.records:
        return delivery.payload
    batch = msgspec.structs.replace(delivery.batch, records=records)
    return zlib.compress(msgspec.json.encode(batch), _LEVEL)


def told(text: str | bytes) -> Any:
    """What a record tells, read; the text as it is where it cannot be.

    JSON may say more than can be held here (`1e999`), and bytes may be no UTF-8: whoever tells that
    is not to break what is made of others' records.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text if isinstance(text, str) else text.decode("utf-8", "replace")


def unpack(body: bytes) -> Batch:
    """What `body` has made, read again; it was checked when it came."""
    return msgspec.json.decode(body if body[:1] == b"{" else zlib.decompress(body), type=Batch)
