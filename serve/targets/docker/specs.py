"""The containers of a deployment as documents of the Engine API. Pure.

A deployment is a front, which holds the published port, and the workers of its revision, which get
the listening socket from it (docs/adr/0058). All of them run the package's image.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from serve.targets.docker import names
from serve.targets.docker.settings import files_of, labels_of, parse_size, volumes_of
from serve.targets.local.settings import worker_environment

if TYPE_CHECKING:
    from serve.targets.docker.names import Names
    from serve.targets.docker.settings import DockerSettings

Document = dict[str, Any]

PORT = 5001
RUN_FOLDER = "/run/fieldpost"
SOCKET = f"{RUN_FOLDER}/front.sock"
LEAVE_S = 5.0
"""Beyond the drain, until an engine kills a worker that has not gone."""

_FRONT_MEMORY = 64 << 20
_FRONT_PIDS = 32
_MAX_RETRIES = 10
_RUN_OPTIONS = "mode=1777,nosuid,nodev"
_RUN_SIZE = "size=512m"
_LOG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
_SELINUX_CATEGORIES = 1023


class ImageFacts(NamedTuple):
    """What containers need to know of an image.

    Attributes:
        id: The engine's name of it.
        command: Its entry point and arguments.
        package: The digest of the package in it.
    """

    id: str
    command: tuple[str, ...]
    package: str


class EngineFacts(NamedTuple):
    """What containers need to know of an engine.

    Attributes:
        kind: `docker` or `podman`.
        selinux: Containers are kept apart by it.
        restarts_later: The restart policy can be set when a revision answers.
        memory: It can limit memory; rootless ones often cannot.
        pids: It can limit processes.
    """

    kind: str
    selinux: bool = False
    restarts_later: bool = True
    memory: bool = True
    pids: bool = True


def run_options(engine: EngineFacts) -> dict[str, str]:
    """Of the volume that a front shares with its workers: in memory, for any user."""
    # Podman takes a size for a quota of the disk. Its tmpfs ends at half of the memory.
    options = f"{_RUN_OPTIONS},{_RUN_SIZE}" if engine.kind == "docker" else _RUN_OPTIONS
    return {"type": "tmpfs", "device": "tmpfs", "o": options}


def front(
    own: Names,
    revision: int,
    image: ImageFacts,
    settings: DockerSettings,
    engine: EngineFacts,
    port: int,
) -> Document:
    """The container that holds the port.

    Args:
        own: Of the deployment.
        revision: The one that it is made for.
        image: Any image with Python 3.
        settings: Of that revision.
        engine: Where it runs.
        port: To publish.
    """
    spec = front_spec(settings, port)
    labels = {names.ROLE: names.FRONT, names.FRONT_SPEC: spec, names.RUN: own.run(revision)}
    host = _host_config(own, revision, settings, engine)
    published = [{"HostIp": settings.host, "HostPort": str(port)}]
    host |= {
        "PortBindings": {f"{PORT}/tcp": published},
        "NetworkMode": _front_network(settings),
        "RestartPolicy": front_policy(settings),
        **({"Memory": _FRONT_MEMORY} if engine.memory else {}),
        **({"PidsLimit": _FRONT_PIDS} if engine.pids else {}),
    }
    tls = {key: text for key, text in _environment(settings).items() if "_TLS_" in key}
    return {
        **_container(own, revision, image, settings, labels),
        "Entrypoint": _python(image, "front"),
        "Cmd": [SOCKET, "0.0.0.0", str(PORT)],  # noqa: S104 - of its own network
        "Env": [f"{key}={text}" for key, text in sorted(tls.items())],
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "NetworkingConfig": _aliases(own, settings),
        "HostConfig": host,
    }


def front_spec(settings: DockerSettings, port: int) -> str:
    """What a front is made of: one of the same spec goes on for another revision."""
    made_of = [_source("front"), settings.host, port, settings.network, settings.tls]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def worker(
    own: Names,
    revision: int,
    slot: int,
    run: str,
    image: ImageFacts,
    settings: DockerSettings,
    engine: EngineFacts,
) -> Document:
    """The container of one worker.

    Args:
        own: Of the deployment.
        revision: The worker's.
        slot: Its place among its siblings, from 0.
        run: The volume of the front that it joins.
        image: The package's.
        settings: Of the revision.
        engine: Where it runs.
    """
    labels = {names.ROLE: names.WORKER, names.SLOT: str(slot), names.RUN: run}
    host = _host_config(own, revision, settings, engine, run=run)
    host |= {
        "NetworkMode": settings.network or "default",
        "RestartPolicy": {"Name": "no"} if engine.restarts_later else restart_policy(settings),
        **({"PidsLimit": settings.pids} if engine.pids else {}),
        "Tmpfs": {"/tmp": f"rw,nosuid,nodev,mode=1777,size={parse_size('tmp', settings.tmp)}"},  # noqa: S108
        **_limits(settings),
        **_gpus(settings, engine),
    }
    host["Mounts"] += [*volumes_of(settings), *files_of(settings)]
    return {
        **_container(own, revision, image, settings, labels),
        "Entrypoint": _python(image, "join"),
        "Cmd": [SOCKET, names.source(revision, slot), *image.command],
        "Env": _worker_env(settings, revision, slot),
        "Healthcheck": {"Test": ["NONE"]},  # the front's asks all of them, through the port
        "StopTimeout": int(settings.drain_timeout_s + LEAVE_S),
        "HostConfig": host,
    }


def restart_policy(settings: DockerSettings) -> Document:
    """As the Engine API has it."""
    policy: Document = {"Name": settings.restart}
    if settings.restart == "on-failure":
        policy["MaximumRetryCount"] = _MAX_RETRIES
    return policy


def front_policy(settings: DockerSettings) -> Document:
    """The restart policy of the container with the port.

    For Docker up to 20.10 whatever gets a signal was stopped by hand, and the front gets some: so
    it comes back always. A deployment that is stopped takes the policy back.
    """
    policy = restart_policy(settings)
    return {"Name": "always"} if policy["Name"] == "unless-stopped" else policy


def _container(
    own: Names,
    revision: int,
    image: ImageFacts,
    settings: DockerSettings,
    labels: dict[str, str],
) -> Document:
    document: Document = {
        "Image": image.id,
        "Labels": {
            **labels_of(settings),
            **own.labels,
            names.REVISION: str(revision),
            names.PACKAGE: image.package,
            **labels,
        },
    }
    if settings.user:
        document["User"] = settings.user
    return document


def _host_config(
    own: Names, revision: int, settings: DockerSettings, engine: EngineFacts, run: str = ""
) -> Document:
    """What all containers of a deployment have: no more rights than they need."""
    document: Document = {
        "ReadonlyRootfs": settings.read_only,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", *_selinux(own, engine)],
        "Mounts": [{"Type": "volume", "Source": run or own.run(revision), "Target": RUN_FOLDER}],
    }
    if engine.kind == "docker":  # else the log grows without an end
        document["LogConfig"] = _LOG
    return document


def _selinux(own: Names, engine: EngineFacts) -> list[str]:
    """One level for all containers of a deployment, or they could not pass sockets on."""
    if not engine.selinux:
        return []
    number = int(hashlib.sha256(own.base.encode()).hexdigest(), 16)
    low = number % _SELINUX_CATEGORIES
    high = low + 1 + (number >> 16) % (_SELINUX_CATEGORIES - low)
    return [f"label=level:s0:c{low},c{high}"]


def _limits(settings: DockerSettings) -> Document:
    found: Document = {}
    if settings.memory_bytes:  # without swap, in which answers would take seconds
        found |= {"Memory": settings.memory_bytes, "MemorySwap": settings.memory_bytes}
    if settings.cpus:
        found["NanoCpus"] = int(settings.cpus * 1e9)
    return found


def _gpus(settings: DockerSettings, engine: EngineFacts) -> Document:
    """Docker asks a driver; Podman has the devices by name (CDI)."""
    if not settings.gpus:
        return {}
    ids = settings.gpus.removeprefix("device=").split(",")
    by_name = settings.gpus.startswith("device=")
    if engine.kind == "podman":
        wanted = ids if by_name else _counted(settings.gpus)
        devices = [f"nvidia.com/gpu={each}" for each in wanted]
        return {"Devices": [{"PathOnHost": each, "PathInContainer": each} for each in devices]}
    request: Document = {"Driver": "", "Capabilities": [["gpu"]]}
    if by_name:
        request["DeviceIDs"] = ids
    else:
        request["Count"] = -1 if settings.gpus == "all" else int(settings.gpus)
    return {"DeviceRequests": [request]}


def _counted(gpus: str) -> list[str]:
    return ["all"] if gpus == "all" else [str(number) for number in range(int(gpus))]


def _worker_env(settings: DockerSettings, revision: int, slot: int) -> list[str]:
    """The user's own last; shares of the cores only where no limit gives each worker its own."""
    several = settings.workers > 1
    share = several and not settings.cpus
    kept = {"FIELDPOST_SERVER_JOBS_DIR": f"{RUN_FOLDER}/jobs"}
    if several:
        kept["FIELDPOST_SERVER_METRICS_DIR"] = f"{RUN_FOLDER}/metrics-r{revision}"
    place = {"FIELDPOST_WORKER_SLOT": str(slot), "FIELDPOST_WORKER_COUNT": str(settings.workers)}
    found = {**kept, **(place if share else {}), **_environment(settings)}
    return [f"{key}={text}" for key, text in sorted(found.items())]


def _environment(settings: DockerSettings) -> dict[str, str]:
    return worker_environment(settings, {})


def _front_network(settings: DockerSettings) -> str:
    """A front without a network could not publish anything."""
    return "default" if settings.network in (None, "none") else str(settings.network)


def _aliases(own: Names, settings: DockerSettings) -> Document:
    """On a network of the user's, others reach the deployment by its name."""
    network = _front_network(settings)
    if network in ("default", "bridge", "podman"):
        return {}
    return {"EndpointsConfig": {network: {"Aliases": [own.deployment]}}}


def _python(image: ImageFacts, script: str) -> list[str]:
    """The image's own interpreter, with nothing but the standard library."""
    interpreter = image.command[0] if image.command else "python3"
    return [interpreter, "-I", "-S", "-X", "utf8", "-c", _source(script)]


@cache
def _source(script: str) -> str:
    return resources.files(__package__).joinpath(f"{script}.py").read_text("utf-8")
