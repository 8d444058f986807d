"""The messages, and how they become bytes and back.

JSON with sorted keys, at most 64 KiB; telemetry may be compressed by zlib. A reader takes fields
that it does not know (a newer sender adds some) and refuses what it cannot be right about: another
major version, a wrong type, an impossible name or digest, more bytes than allowed.
"""

from __future__ import annotations

import zlib
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from edge.protocol.names import check_name
from edge.protocol.topics import Class
from scoring import digest as digests
from scoring.errors import InvalidNameError, MalformedPayloadError, PayloadTooLargeError

VERSION: Final = 1
MOST_BYTES: Final = 64 * 1024
"""Of a message on the wire."""

MOST_UNPACKED: Final = 1024 * 1024
"""Of compressed telemetry, when it is unpacked."""

_JSON_BEGINS = b"{"

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]

Phase = Literal[
    "waiting",  # for its window, or for what it needs
    "fetching",
    "verifying",
    "staging",
    "probing",
    "switching",
    "soaking",
    "good",
    "reverting",
    "reverted",
    "failed",
    "stopped",
]
"""Where a module is on its way to the wished-for package."""

SETTLED: Final[frozenset[Phase]] = frozenset({"good", "reverted", "failed", "stopped"})


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What every message has.

    Attributes:
        v: The major version of the protocol.
    """

    v: int = VERSION


class Window(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a device may switch, in its own local time; kept there, so that it holds offline.

    Attributes:
        begins: Minutes after midnight.
        ends: Minutes after midnight; before `begins`: on the next day.
        days: 0 for Monday to 6 for Sunday, of the beginning; all where there are none.
    """

    begins: Annotated[int, msgspec.Meta(ge=0, lt=1440)]
    ends: Annotated[int, msgspec.Meta(ge=0, lt=1440)]
    days: tuple[Annotated[int, msgspec.Meta(ge=0, le=6)], ...] = ()


class Soak(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a new version has to show before it is good.

    Attributes:
        seconds: For how long it has to answer.
        most_errors: The part of requests that may fail; 1 for any.
        most_latency_s: What the slowest hundredth may take; 0 for any.
    """

    seconds: Annotated[float, msgspec.Meta(ge=0, le=86400 * 7)] = 10.0
    most_errors: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    most_latency_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class Module(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One package that a device is to run.

    Attributes:
        package: The digest of its manifest.
        release: The release counter of the signed metadata: a device goes to no lower one.
        port: Where it answers on the device; 0: the one that it has had, or a free one.
        settings: As for other targets: `{"env.NAME": "..."}`.
        run: `process` (unpacked layers), `container`, `circuit` (in plain Python, of which only the
            model is fetched), or `auto`.
        soak: Before it is good.
        timeout_s: For each phase before that.
    """

    package: str
    release: Count = 0
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    settings: dict[str, str] = {}
    run: Literal["auto", "process", "container", "circuit"] = "auto"
    soak: Soak = Soak()
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86400)] = 600.0


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where blobs are fetched from.

    Attributes:
        url: Of a repository, as in `https://registry.example/v2/team/iris`: `/blobs/DIGEST` is
            added, and asked with `Range`.
        kind: `registry` speaks the distribution protocol, `controller` asks for the device's
            certificate.
    """

    url: Text
    kind: Literal["registry", "controller"] = "controller"


class Desired(Message, kw_only=True, omit_defaults=True):
    """What a device is to run. Signed, retained, and bound to the device and its generation.

    Attributes:
        site: Of the device.
        device: Which one.
        generation: Counts up with every change for this device; an older one is a replay.
        issued_at: Seconds since the epoch, by the controller's clock.
        modules: Name to package; what is not here any more is stopped.
        sources: Where to fetch from, the best first.
        window: When it may switch; None for any time.
        rate: Bytes a second that fetching may take; 0 for all.
        rollout: Which one this belongs to; empty for none.
        metadata: Name to version of the signed metadata that this was chosen under.
    """

    site: str
    device: str
    generation: Positive
    issued_at: float
    modules: dict[str, Module] = {}
    sources: tuple[Source, ...] = ()
    window: Window | None = None
    rate: Count = 0
    rollout: str = ""
    metadata: dict[str, Count] = {}

    def __post_init__(self) -> None:
        check_name(self.site, "site")
        check_name(self.device, "device")
        for name, module in self.modules.items():
            check_name(name, "module")
            digests.parse(module.package)


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something did not work.

    Attributes:
        code: Of the tree of errors.
        message: One sentence.
        phase: In which it happened.
        detail: The end of a log or a traceback.
        generation: Of the desired state that was refused; 0 where that cannot be known.
    """

    code: Text
    message: Text
    phase: Text = ""
    detail: Annotated[str, msgspec.Meta(max_length=16384)] = ""
    generation: Count = 0


class ModuleState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One module as it is.

    Attributes:
        phase: On the way to `wanted`.
        wanted: The package of the last desired state.
        package: What answers; empty for nothing.
        release: Of what answers.
        healthy: Whether it answers now.
        port: Where.
        restarts: Since it answers.
        failure: Why `wanted` does not answer, where it does not.
    """

    phase: Phase
    wanted: str = ""
    package: str = ""
    release: Count = 0
    healthy: bool = False
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    restarts: Count = 0
    failure: Failure | None = None


class Reported(Message, kw_only=True, omit_defaults=True):
    """What a device is and does. Retained.

    Attributes:
        device: Which one.
        boot: Its boot counter.
        seq: Counts up within a boot: with `boot` it orders reports, however they arrive.
        generation: The newest desired state that it has taken on; 0 for none.
        at: Seconds since the epoch, by its own clock.
        modules: Name to state.
        facts: What conditions may ask for: `{"platform": "linux/arm64", "memory_mib": 1024}`.
        refused: Why a newer desired state was not taken on; None where it was.
    """

    device: str
    boot: Count
    seq: Count
    generation: Count
    at: float
    modules: dict[str, ModuleState] = {}
    facts: dict[str, str | int | float | bool] = {}
    refused: Failure | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing is on its way."""
        return all(module.phase in SETTLED for module in self.modules.values())


class Status(Message, kw_only=True, omit_defaults=True):
    """Whether a device is connected. Retained; the last will says `online: false`.

    Attributes:
        device: Which one.
        online: Whether it is.
        boot: Its boot counter: the will of an earlier connection is told by it.
        session: Counts connections within a boot, for the same reason.
    """

    device: str
    online: bool
    boot: Count
    session: Count = 0


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a device tells.

    Attributes:
        seq: Its number in the stream of its epoch, whatever its class.
        at: Seconds since the epoch, by the device's clock.
        kind: `requests`, `inputs`, `sample`, `module`, `resources`, ...
        data: What it tells.
        late: It waited in the spool for a connection.
    """

    seq: Count
    at: float
    kind: Text
    data: dict[str, Any] = {}
    late: bool = False


class Telemetry(Message, kw_only=True, omit_defaults=True):
    """A batch of one class.

    Attributes:
        device: Which one.
        epoch: Names a spool; a new one begins at sequence 0.
        records: In the order of their sequence.
        dropped: Class to the number of records that were lost to the caps of this spool, ever.
        floor: No record with a lower number will come any more: it was taken, or dropped.
    """

    device: str
    epoch: Text
    records: tuple[Record, ...]
    dropped: dict[Class, Count] = {}
    floor: Count = 0


class Ack(Message, kw_only=True, omit_defaults=True):
    """What the controller has on its disk: only that does a device delete.

    Attributes:
        device: Which one.
        epoch: Of the spool.
        ranges: First and last sequence of each run of records.
    """

    device: str
    epoch: Text
    ranges: tuple[tuple[Count, Count], ...] = ()

    def __post_init__(self) -> None:
        if any(first > last for first, last in self.ranges):
            raise ValueError("a range ends before it begins")


class Command(Message, kw_only=True, omit_defaults=True):
    """Something to do now. Signed like `Desired`.

    Attributes:
        site: Of the device.
        device: Which one.
        id: Of this request; the answer carries it.
        key: The same for a request that is sent again: it is done once.
        deadline: Seconds since the epoch: not begun after that.
        verb: `restart`, `logs`, `report`, `shell`, ...
        arguments: Of the verb.
    """

    site: str
    device: str
    id: Text
    key: Text
    deadline: float
    verb: Text
    arguments: dict[str, Any] = {}


class CommandResult(Message, kw_only=True, omit_defaults=True):
    """What came of a command, in parts where it is long.

    Attributes:
        device: Which one.
        id: Of the request.
        part: The number of this part, from 0.
        parts: How many there are.
        ok: Whether it was done.
        output: What it says.
        failure: Why it was not done.
    """

    device: str
    id: Text
    part: Count = 0
    parts: Positive = 1
    ok: bool = True
    output: str = ""
    failure: Failure | None = None


M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """The message as JSON: the same bytes for the same message.

    Raises:
        PayloadTooLargeError: It is over `MOST_BYTES`.
    """
    data = msgspec.json.encode(message, order="sorted")
    return _require_small(data)


def encode_compressed(message: Message) -> bytes:
    """The same, compressed by zlib where that makes it smaller; raises like `encode`."""
    data = msgspec.json.encode(message, order="sorted")
    packed = zlib.compress(data, 6)
    return _require_small(min(data, packed, key=len))


def decode(data: bytes, kind: type[M]) -> M:
    """Reads a message.

    Raises:
        MalformedPayloadError: It is none of this kind, or of another major version.
        PayloadTooLargeError: It is larger than a message may be, packed or unpacked.
    """
    _require_small(data)
    text = data if data.startswith(_JSON_BEGINS) else _unpack(data)
    try:
        message = msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError, InvalidNameError) as error:
        raise _malformed(kind, str(error)) from error
    if message.v != VERSION:
        raise _malformed(kind, f"it has version {message.v}, and this side speaks {VERSION}")
    return message


def _unpack(data: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(data, MOST_UNPACKED)
    except zlib.error as error:
        raise _malformed(Message, f"neither JSON nor zlib: {error}") from error
    if unpacking.unconsumed_tail:
        raise PayloadTooLargeError(
            f"A message unpacks to more than {MOST_UNPACKED} bytes.", hint="Send smaller batches."
        )
    if not unpacking.eof or unpacking.unused_data:
        raise _malformed(Message, "its compressed form is cut off, or something follows it")
    return text


def _require_small(data: bytes) -> bytes:
    if len(data) > MOST_BYTES:
        raise PayloadTooLargeError(
            f"A message has {len(data)} bytes, and {MOST_BYTES} are the most.",
            hint="Send it in parts.",
        )
    return data


def _malformed(kind: type[Message], reason: str) -> MalformedPayloadError:
    return MalformedPayloadError(f"This is no {kind.__name__} message: {reason}.")
