"""What a front is told: its settings, once, and its traffic, again and again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from scoring import durable
from scoring.errors import UsageError
from serve.endpoints.traffic import Traffic
from serve.targets.settings import parse_settings

CONFIG_FILE = "front.json"
FOLDER_VARIABLE = "FIELDPOST_FRONT_FOLDER"
SETTINGS_VARIABLE = "FIELDPOST_FRONT_SETTINGS"

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class FrontSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `--set` takes for an endpoint on this machine.

    Attributes:
        host: To listen on.
        port: 0 keeps the endpoint's port, or chooses a free one at first.
        workers: Processes.
        tls_cert: A PEM file of the certificate and its chain; the URL is https with it.
        tls_key: The PEM file of its key.
        connect_timeout_s: For a connection to a deployment.
        response_timeout_s: From the end of a request until its answer begins.
        idle_timeout_s: For the next piece of a body, from either side.
        keep_alive_s: How long a client's connection may lie idle.
        drain_timeout_s: For requests that a leaving worker has begun.
        max_connections: Of clients, for each worker.
        retry: `unsent`: a request goes to another deployment where the first one certainly has not
            seen it. `unanswered`: also where it may have begun with it and died; for models
            whose answers have no side effects.
        replay_bytes: Bodies up to this size can be sent again.
        shadow_in_flight: Copies under way, for each worker; more are dropped.
        shadow_bytes: Requests with longer bodies are not copied.
        metrics: Whether `/metrics` is answered, by whoever asks: no key is wanted for it.
    """

    host: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    tls_cert: str = ""
    tls_key: str = ""
    connect_timeout_s: Seconds = 2.0
    response_timeout_s: Seconds = 60.0
    idle_timeout_s: Seconds = 60.0
    keep_alive_s: Seconds = 75.0
    drain_timeout_s: Seconds = 30.0
    max_connections: Positive = 10_000
    retry: Literal["unsent", "unanswered"] = "unsent"
    replay_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 26)] = 1 << 20
    shadow_in_flight: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 64
    shadow_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 26)] = 1 << 20
    metrics: bool = True


class Address(msgspec.Struct, frozen=True):
    """Where a deployment answers.

    Attributes:
        url: Empty where it is nowhere now.
        certificate: The file of its certificate, for https.
    """

    url: str
    certificate: str = ""


class FrontConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go now.

    Attributes:
        name: The endpoint.
        generation: Of the record that this was made from.
        traffic: How they are spread.
        addresses: Where each deployment answers.
    """

    name: str
    generation: int
    traffic: Traffic
    addresses: dict[str, Address]


def parse(given: Mapping[str, Any]) -> FrontSettings:
    """The settings, checked.

    Raises:
        UsageError: An unknown key, a value that is not valid, or a relative path.
    """
    settings = parse_settings(FrontSettings, given)
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise UsageError(
            "tls_cert and tls_key belong together.", hint="Give both, or none.", where="tls_cert"
        )
    for name in ("tls_cert", "tls_key"):
        path = getattr(settings, name)
        if path and not Path(path).is_absolute():
            raise UsageError(
                f"The setting {name!r} is {path!r}, a path that depends on the present folder.",
                hint=f"Write {name}={Path(path).absolute()}.",
                where=name,
            )
    return settings


def read_config(folder: Path) -> FrontConfig:
    """What the folder's front was last told.

    Raises:
        OSError: There is nothing to read.
        msgspec.DecodeError: It is no configuration of this release.
    """
    return msgspec.json.decode((folder / CONFIG_FILE).read_bytes(), type=FrontConfig)


def write_config(folder: Path, config: FrontConfig) -> None:
    """Replaces it at once, for workers that start later.

    Raises:
        StorageFullError: No space is left; the one before is still there.
    """
    durable.write_bytes(folder / CONFIG_FILE, msgspec.json.encode(config))
