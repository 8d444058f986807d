"""Mosquitto's configuration for a fleet: certificates both ways, default deny, bounds on all.

Written for Mosquitto 2.0 (Debian 12 has 2.0.11) and newer. Every topic has one writer; who a
client is, its certificate says, and its client id is the same, so that none can put another out.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from edge.protocol.messages import MOST_BYTES
from edge.protocol.topics import BY_CONTROLLER, BY_DEVICE, KINDS, RETAINED, ROOT
from edge.security.names import controller_name
from scoring import durable
from scoring.errors import UsageError

CONFIG: Final = "mosquitto.conf"
ACL: Final = "acl"
REVOKED: Final = "revoked.pem"
AUTHORITY: Final = "authority.pem"
CERTIFICATE: Final = "broker.pem"
KEY: Final = "broker.key"

_PACKET_HEAD: Final = 1024
"""For a message's topic and, in MQTT 5, its properties."""


class Broker(msgspec.Struct, frozen=True, kw_only=True):
    """What to write a configuration of.

    Attributes:
        folder: Where the files will be, for the configuration names them.
        data: Where the broker keeps sessions and retained messages.
        port: Of TLS.
        address: To listen at; empty for all.
        controllers: How many may connect: each has a name of its own.
        devices: How many connections at most.
        queued_messages: Of one client that is away, or slow. A controller that connects gets what
            is retained of all devices at once; what is over the bound is dropped without a word.
        queued_bytes: Likewise.
        forget: After how long a client that is away loses its session.
        user: Whom Mosquitto becomes when it is started by root; empty for its default.
    """

    folder: Path
    data: Path
    port: int = 8883
    address: str = ""
    controllers: int = 4
    devices: int = 20_000
    queued_messages: int = 100_000
    queued_bytes: int = 64 * 1024 * 1024
    forget: str = "14d"
    user: str = ""


def config(broker: Broker) -> str:
    """The text of `mosquitto.conf`.

    Raises:
        UsageError: A path or an address would break a line, or a number is out of range.
    """
    _require_sound(broker)
    folder = broker.folder
    listener = f"listener {broker.port} {broker.address}".rstrip()
    lines = [
        "# Written by 'fieldpost fleet broker-config'.",
        "per_listener_settings false",
        "allow_anonymous false",
        f"acl_file {folder / ACL}",
        *([f"user {broker.user}"] if broker.user else []),
        "",
        "# Retained wishes and sessions outlive the broker; at most this much is lost with power,",
        "# and the controller says all wishes again when it has connected again.",
        "persistence true",
        f"persistence_location {broker.data}/",
        "autosave_interval 30",
        f"persistent_client_expiration {broker.forget}",
        "",
        "# Bounds: nobody fills the memory of the broker or of a device.",
        f"max_packet_size {MOST_BYTES + _PACKET_HEAD}",
        f"max_queued_messages {broker.queued_messages}",
        f"max_queued_bytes {broker.queued_bytes}",
        "max_inflight_messages 20",
        "max_keepalive 3600",
        "queue_qos0_messages false",
        "check_retain_source true",
        "sys_interval 0",
        "set_tcp_nodelay true",
        "connection_messages true",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "",
        listener,
        f"max_connections {broker.devices + broker.controllers}",
        f"cafile {folder / AUTHORITY}",
        f"certfile {folder / CERTIFICATE}",
        f"keyfile {folder / KEY}",
        f"crlfile {folder / REVOKED}",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "tls_version tlsv1.2",
    ]
    return "\n".join(lines) + "\n"


def acl(controllers: int) -> str:
    """The text of the access list: what is not in it is denied.

    A device's name fills the whole level of its topics (`%u`, from its certificate); its site it
    could lie about, so controllers check that.

    Args:
        controllers: How many there may be.
    """
    lines = ["# Written by 'fieldpost fleet broker-config'. What is not here is denied.", ""]
    for number in range(1, controllers + 1):
        lines += [f"user {controller_name(number)}", *_controller_rules(), ""]
    lines.append("# Devices. Patterns are for every user; no device has a controller's name.")
    for kind in KINDS:
        access = "write" if kind in BY_DEVICE else "read"
        lines.append(f"pattern {access} {ROOT}/+/%u/{kind}")
    return "\n".join(lines) + "\n"


def _controller_rules() -> list[str]:
    # Nobody writes a wish but controllers, and none of them writes a device's words; what is
    # retained of a removed device (its last words) a controller may take away by an empty message.
    rules = [f"topic read {ROOT}/+/+/{kind}" for kind in KINDS if kind in BY_DEVICE]
    for kind in KINDS:
        if kind in BY_CONTROLLER:
            access = "readwrite" if kind in RETAINED else "write"
            rules.append(f"topic {access} {ROOT}/+/+/{kind}")
    return rules


def write(
    broker: Broker, *, authority: bytes, certificate: bytes, key: bytes, revoked: bytes
) -> list[Path]:
    """Writes all files of a broker into its folder, each whole; returns their paths.

    Args:
        broker: What to write.
        authority: Whom clients are known by, in PEM.
        certificate: The broker's, in PEM.
        key: The broker's, in PEM.
        revoked: The list of revoked certificates, in PEM.

    Raises:
        WorkspaceError: The folder cannot be written.
        StorageFullError: No space is left.
        UsageError: See `config`.
    """
    contents = {
        CONFIG: (config(broker).encode(), 0o644),
        ACL: (acl(broker.controllers).encode(), 0o644),
        AUTHORITY: (authority, 0o644),
        CERTIFICATE: (certificate, 0o644),
        KEY: (key, 0o600),
        REVOKED: (revoked, 0o644),
    }
    with durable.storage_errors("the broker's configuration"):
        durable.make_folder(broker.folder, mode=0o755)
        durable.make_folder(broker.data, mode=0o700)
    for name, (content, mode) in contents.items():
        durable.write_bytes(broker.folder / name, content, mode=mode)
    with durable.storage_errors("the broker's configuration"):
        _hand_over(broker)
    return [broker.folder / name for name in contents]


def _hand_over(broker: Broker) -> None:
    """Gives the key and the data to whom Mosquitto becomes: it reads the key as that user."""
    if not broker.user or os.geteuid() != 0:
        return
    try:
        owner = pwd.getpwnam(broker.user)
    except KeyError:  # a user of the machine that the files are for
        return
    for path in (broker.folder / KEY, broker.data):
        os.chown(path, owner.pw_uid, owner.pw_gid)


def write_revoked(folder: Path, revoked: bytes) -> Path:
    """Writes a newer list of revoked certificates; the broker reads it at SIGHUP."""
    path = folder / REVOKED
    durable.write_bytes(path, revoked)
    return path


def _require_sound(broker: Broker) -> None:
    words: Iterable[str] = (
        str(broker.folder),
        str(broker.data),
        broker.address,
        broker.forget,
        broker.user,
    )
    for word in words:
        if any(sign.isspace() or not sign.isprintable() for sign in word):
            raise UsageError(
                f"Mosquitto's configuration cannot name {word[:200]!a}.",
                hint="Choose a path and an address without blanks.",
            )
    if not 0 < broker.port < 65536:  # noqa: PLR2004 - of TCP
        raise UsageError(f"{broker.port} is no port.", where="port")
    if min(broker.queued_messages, broker.queued_bytes, broker.devices) < 1:
        raise UsageError("A queue without a bound, or of nothing, is not configured here.")
    controller_name(broker.controllers)
