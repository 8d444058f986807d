"""What an agent is told by its file, `agent.toml`, and by its identity.

    state = "/var/lib/fieldpost-agent"   # where it keeps everything
    broker = "mqtts://broker.example:8883"
    host = "0.0.0.0"                     # the address that modules answer at
    [telemetry]
    requests_s = 30                      # how often is told what modules have answered

All but `state` have defaults: the identity names broker and controller.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from edge.protocol.names import is_name
from scoring.errors import UsageError

FILE: Final = "agent.toml"
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_MOST_PORT: Final = 65535

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Told(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a device tells of itself and of what it serves: the table `[telemetry]`.

    Attributes:
        on: Whether it tells anything.
        requests_s: How often is looked at what modules have answered.
        inputs_s: How often at what they were asked with.
        resources_s: How often at the device itself.
        most_bytes: Of what waits on its disk until the controller has it.
        alarm_s: How long an alarm waits; see `edge.telemetry.limits`.
        status_s: How long a status does.
        metric_s: How long a metric does.
        debug_s: How long debug output does.
    """

    on: bool = True
    requests_s: Seconds = 30.0
    inputs_s: Seconds = 300.0
    resources_s: Seconds = 60.0
    most_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 32 << 20
    alarm_s: Seconds = 90 * 86_400.0
    status_s: Seconds = 30 * 86_400.0
    metric_s: Seconds = 7 * 86_400.0
    debug_s: Seconds = 86_400.0


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an agent is set up.

    Attributes:
        state: Where it keeps everything.
        site: Of the device; empty for that of its identity.
        device: Its name; empty for that of its identity.
        broker: `mqtts://HOST[:PORT]`, or `mqtt://` where nobody else can listen; empty for what
            the identity names.
        controller: `https://HOST[:PORT]`; empty for what the identity names.
        user: For brokers that want a name and a password; empty for none.
        password_file: A file that holds the password.
        host: The address that modules answer at.
        keepalive_s: Between signs of life on the link.
        drain_s: How long a version that is replaced may take for what it has begun.
        shell: Whether the command `shell` is allowed.
        logins: Host of a registry to a file that holds `user:password`.
        telemetry: What it tells.
    """

    state: str
    site: str = ""
    device: str = ""
    broker: str = ""
    controller: str = ""
    user: str = ""
    password_file: str = ""
    host: str = "127.0.0.1"
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 30
    drain_s: Seconds = 30.0
    shell: bool = False
    logins: dict[str, str] = {}
    telemetry: Told = Told()

    def __post_init__(self) -> None:
        for name in (self.site, self.device):
            if name and not is_name(name):
                raise ValueError(f"{name!a} cannot name a site or a device")


class Broker(NamedTuple):
    """Where a broker is.

    Attributes:
        host: Its name or address.
        port: Its port.
        tls: Whether each side shows its certificate.
    """

    host: str
    port: int
    tls: bool


def read(path: Path) -> Config:
    """Reads the file.

    Raises:
        UsageError: It cannot be read, or says what is not understood.
    """
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
        return msgspec.convert({"state": str(path.parent), **found}, Config)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.",
            hint="Name the agent's file with --config, or its folder with --state.",
        ) from error
    except (ValueError, msgspec.ValidationError) as error:
        raise UsageError(f"{path} is not understood: {error}.", where=str(path)) from error


def of_folder(state: Path) -> Config:
    """The settings of a state folder: those of its `agent.toml`, where there is one."""
    path = state / FILE
    if path.exists():
        return msgspec.structs.replace(read(path), state=str(state))
    return Config(state=str(state))


def broker(url: str) -> Broker:
    """Where the broker of a URL is.

    Raises:
        UsageError: It is no URL of a broker.
    """
    try:
        parts = urlsplit(url)
        usual = _PORTS[parts.scheme]  # what is none of these would be spoken to without TLS
        port = usual if parts.port is None else parts.port
    except (ValueError, KeyError):
        port = 0
    if not port or not 0 < port <= _MOST_PORT or not parts.hostname or "@" in parts.netloc:
        raise UsageError(
            f"{urlsplit(url).scheme[:20]!a}... is no URL of a broker."
            if "@" in url
            else f"{url[:200]!a} is no URL of a broker.",
            hint="It looks like mqtts://HOST:8883; a password stands in a file of its own.",
            where="broker",
        )
    return Broker(parts.hostname, port, parts.scheme == "mqtts")
