"""What `--set` takes for Docker and Podman."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from scoring.errors import UsageError
from serve.targets.local.settings import ServingSettings, check_serving, speaks_tls
from serve.targets.settings import parse_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Restart = Literal["no", "always", "unless-stopped", "on-failure"]

_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_LEAST_MEMORY = 32 << 20
_LABEL = re.compile(r"[^\s=,]+")
_GPUS = re.compile(r"all|[0-9]{1,3}|device=[^,\s]+(?:,[^,\s]+)*")
_USER = re.compile(r"[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)?")
_RESERVED = "dev.fieldpost."
_VOLUME_PARTS = (2, 3)
# Files of this machine that a worker reads: they are mounted where they are.
_FILES = ("api_keys", "tls_cert", "tls_key", "tls_client_ca")


class DockerSettings(ServingSettings, frozen=True, kw_only=True):
    """Settings of a deployment in containers: those of serving, and these.

    Each worker is a container; limits are those of one worker.

    Attributes:
        memory: The most memory: `512m`, `2Gi`.
        cpus: The most processor time: `1.5`.
        gpus: `all`, a number, or `device=ID,ID`.
        restart: What the engine does where a worker ends by itself.
        network: The network that the containers join. `none` takes the workers off every network;
            requests reach them all the same.
        read_only: The containers' files cannot be written, `/tmp` excepted.
        pids: The most processes and threads.
        tmp: The most bytes in `/tmp`, which counts as memory.
        user: `UID[:GID]`; by default that of the image, which is not root.
        base: The base under the package.
        image: An image of the package in a registry, which the engine pulls.
        volumes: `SOURCE:TARGET[:ro]`, several with commas: folders of the engine's machine, or
            volumes.
        labels: `KEY=VALUE`, several with commas.
        engine: The engine's address, as `DOCKER_HOST` is written.
    """

    memory: str | None = None
    cpus: Annotated[float, msgspec.Meta(gt=0, le=1024)] | None = None
    gpus: str | None = None
    restart: Restart = "unless-stopped"
    network: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    read_only: bool = True
    pids: Annotated[int, msgspec.Meta(ge=16, le=1_000_000)] = 1024
    tmp: str = "256m"
    user: str | None = None
    base: str | None = None
    image: str | None = None
    volumes: str | None = None
    labels: str | None = None
    engine: str | None = None

    @property
    def memory_bytes(self) -> int:
        """0 for no limit."""
        return parse_size("memory", self.memory) if self.memory else 0

    @property
    def tls(self) -> bool:
        """Whether the deployment is reached over https."""
        return speaks_tls(self)


def parse(given: Mapping[str, Any]) -> DockerSettings:
    """The settings, checked as far as they can be without the engine.

    Raises:
        UsageError: An unknown key, or a value that is not valid.
    """
    settings = parse_settings(DockerSettings, given)
    check_serving(settings)
    if settings.memory:
        parse_size("memory", settings.memory)
    parse_size("tmp", settings.tmp)
    _match("gpus", settings.gpus, _GPUS, "gpus=all, gpus=2 or gpus=device=GPU-ID")
    _match("user", settings.user, _USER, "user=1000 or user=1000:1000")
    if settings.network == "host":
        raise UsageError(
            "The network 'host' would give the port of every container to this machine.",
            hint="Use host=0.0.0.0 to answer on all addresses, or the name of a network.",
            where="network",
        )
    if settings.base and settings.image:
        raise UsageError(
            "An image that is pulled has its base already.",
            hint="Set base or image, not both.",
            where="base",
        )
    list(volumes_of(settings))
    labels_of(settings)
    return settings


def parse_size(name: str, text: str) -> int:
    """Bytes of `512m`, `2Gi` or `1073741824`; letters are powers of 1024, as engines have it.

    Raises:
        UsageError: It is no size, or too small to start anything in.
    """
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"The setting {name!r} cannot be {text!r}: it is no size.",
            hint=f"Write {name}=512m or {name}=2Gi.",
            where=name,
        )
    power = " kmgt".index(match[2].lower() or " ")
    size = int(float(match[1]) * 1024**power)
    if size < _LEAST_MEMORY:
        raise UsageError(
            f"The setting {name!r} is {text!r}, {size} bytes: too little for anything to start.",
            hint=f"Write {name}=512m or {name}=2Gi.",
            where=name,
        )
    return size


def volumes_of(settings: DockerSettings) -> Iterator[dict[str, Any]]:
    """The mounts that were asked for, as the Engine API has them.

    Raises:
        UsageError: One is not `SOURCE:TARGET[:ro]`.
    """
    for text in filter(None, (settings.volumes or "").split(",")):
        parts = text.split(":")
        fine = len(parts) in _VOLUME_PARTS and all(parts) and parts[2:] in ([], ["ro"], ["rw"])
        if not fine or not parts[1].startswith("/"):
            raise UsageError(
                f"The setting 'volumes' has {text!r}, which is no mount.",
                hint="Write volumes=/folder/of/the/machine:/folder/in/the/container:ro.",
                where="volumes",
            )
        yield {
            "Type": "bind" if parts[0].startswith("/") else "volume",
            "Source": parts[0],
            "Target": parts[1],
            "ReadOnly": parts[2:] == ["ro"],
        }


def files_of(settings: DockerSettings) -> Iterator[dict[str, Any]]:
    """Mounts of the files of this machine that the settings of the server name."""
    named = [getattr(settings, name) or settings.server.get(name) for name in _FILES]
    named.append(settings.server.get("oidc_jwks"))
    targets = [mount["Target"] for mount in volumes_of(settings)]
    for path in dict.fromkeys(filter(None, named)):
        covered = any(Path(path).is_relative_to(target) for target in targets)
        if path.startswith("/") and not covered:
            yield {"Type": "bind", "Source": path, "Target": path, "ReadOnly": True}


def labels_of(settings: DockerSettings) -> dict[str, str]:
    """The labels that were asked for.

    Raises:
        UsageError: One is not `KEY=VALUE`, or is one of ours.
    """
    found = {}
    for text in filter(None, (settings.labels or "").split(",")):
        key, separator, value = text.partition("=")
        if not separator or not _LABEL.fullmatch(key) or key.startswith(_RESERVED):
            raise UsageError(
                f"The setting 'labels' has {text!r}, which is no label.",
                hint=f"Write labels=team=forecast,stage=test; {_RESERVED}* are Fieldpost's own.",
                where="labels",
            )
        found[key] = value
    return found


def _match(name: str, value: str | None, form: re.Pattern[str], example: str) -> None:
    if value is not None and not form.fullmatch(value):
        raise UsageError(
            f"The setting {name!r} cannot be {value!r}.", hint=f"Write {example}.", where=name
        )
