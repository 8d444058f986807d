"""Finds the engine that is meant, and says what is in the way where there is none."""

from __future__ import annotations

import os
import shutil
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scoring.errors import FieldpostError, TargetError, UnreachableError
from serve.engines import places
from serve.engines.engine import Engine
from serve.engines.faults import translated
from serve.engines.places import UNIX, Kind, Place

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_API = (1, 40)
CONNECT_S = 5.0
TIMEOUT_S = 120.0
_PORT, _TLS_PORT = 2375, 2376
_START = {
    "docker": "Start it ('systemctl start docker'), or name another one with DOCKER_HOST.",
    "podman": "Start it ('systemctl --user start podman.socket', or 'podman system service "
    "--time 0'), or name another one with CONTAINER_HOST.",
}


def find_engine(
    kind: Kind | None = None, host: str | None = None, environ: Mapping[str, str] = os.environ
) -> Engine:
    """A connection to the engine that is meant.

    Args:
        kind: None for Docker where it answers, else Podman.
        host: As `DOCKER_HOST` is written; None to look where the engines' own clients look.
        environ: The environment.

    Raises:
        UnreachableError: No engine answers.
        TargetError: It may not be used by this user, is too old, or its client is not installed.
        UsageError: The host is no address, or a context that is in use does not exist.
    """
    if host:
        return _connect(kind, places.given(host, environ))
    kinds: tuple[Kind, ...] = (kind,) if kind else ("docker", "podman")
    found: FieldpostError | None = None
    for each in kinds:
        for place in places.places(each, environ):
            try:
                return _connect(kind, place)
            except UnreachableError as error:
                if place.sure:
                    raise
                found = found or error
    raise _none(kinds, environ) if found is None or not found.detail else found


def _none(kinds: tuple[Kind, ...], environ: Mapping[str, str]) -> UnreachableError:
    looked = [place.source for kind in kinds for place in places.places(kind, environ)]
    names = " or ".join(each.title() for each in kinds)
    return UnreachableError(
        f"No {names} engine answers on this machine. Looked at {', '.join(looked)}.",
        hint=_START[kinds[0]],
    )


def _connect(kind: Kind | None, place: Place) -> Engine:
    if place.host.startswith(UNIX):
        _try_socket(place.host.removeprefix(UNIX), kind or "docker", place)
    else:
        _try_port(place)
    api = _client(place)
    with translated("tell its version", f"The engine at {place.host}"):
        version = api.version(api_version=False)
    return Engine(api, place.host, _kind_of(version), version, socket_kind=kind)


def _try_socket(path: str, kind: Kind, place: Place) -> None:
    """Says in our words why a socket does not take us."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(CONNECT_S)
    said = "" if place.source == path else f" ({place.source})"
    try:
        client.connect(path)
    except FileNotFoundError as error:
        raise UnreachableError(
            f"No {kind.title()} engine runs at {path}{said}: there is no such socket.",
            hint=_START[kind],
            detail=place.source if place.sure else "",
        ) from error
    except PermissionError as error:
        raise TargetError(
            f"This user may not use the {kind.title()} engine at {path}{said}.",
            hint=_permission_hint(kind),
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise UnreachableError(
            f"The {kind.title()} engine at {path}{said} does not answer: {reason}.",
            hint=_START[kind],
            detail="the socket is there",
        ) from error
    finally:
        client.close()


def _try_port(place: Place) -> None:
    """Does not wait minutes for a machine that is not there."""
    parts = urlsplit(place.host)
    if parts.scheme == "ssh" or not parts.hostname:
        return
    try:
        port = parts.port or (_TLS_PORT if place.tls else _PORT)
        socket.create_connection((parts.hostname, port), CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise _unreachable(place, error) from error


def _permission_hint(kind: Kind) -> str:
    if kind == "docker":
        return (
            "Add the user to the group docker ('sudo usermod -aG docker $USER', then log in "
            "again), or use a rootless engine."
        )
    return "Start one of your own: 'systemctl --user start podman.socket'."


def _client(place: Place) -> Any:
    """The maintained client, at the API version that both sides have."""
    try:
        import docker  # noqa: PLC0415 - heavy, and an extra
    except ImportError as error:
        raise TargetError(
            f"The client for container engines is not installed: {error}.",
            hint="Install it: pip install 'fieldpost[docker]'.",
        ) from error
    where = f"The engine at {place.host}"
    ssh = place.host.startswith("ssh://")
    if ssh and shutil.which("ssh") is None:
        raise TargetError(f"{where} is reached over ssh, which is not installed.")
    with translated("be reached", where):
        try:
            api = docker.APIClient(
                base_url=place.host,
                version="auto",
                timeout=TIMEOUT_S,
                tls=_tls(place) or False,
                use_ssh_client=ssh,
            )
        except docker.errors.DockerException as error:
            raise _unreachable(place, error) from error
    if tuple(int(part) for part in api.api_version.split(".")) < MIN_API:
        wanted = ".".join(map(str, MIN_API))
        raise TargetError(
            f"{where} is too old: its API has version {api.api_version}, and {wanted} is needed.",
            hint="Upgrade to Docker 19.03, Podman 3, or newer.",
        )
    return api


def _unreachable(place: Place, error: Exception) -> UnreachableError:
    reason = str(error.__cause__ or error).strip().rstrip(".")
    return UnreachableError(
        f"The engine at {place.host} ({place.source}) does not answer: {reason[:500]}.",
        hint="Look whether it runs and whether its address and certificates are right.",
    )


def _tls(place: Place) -> Any:
    if place.tls is None:
        return None
    from docker.tls import TLSConfig  # noqa: PLC0415

    tls = place.tls
    pair = (tls.cert, tls.key) if tls.cert and tls.key else None
    return TLSConfig(client_cert=pair, ca_cert=tls.ca or None, verify=tls.verify)


def _kind_of(version: dict[str, Any]) -> Kind:
    names = [str(each.get("Name", "")) for each in version.get("Components") or ()]
    return "podman" if any("podman" in name.lower() for name in names) else "docker"
