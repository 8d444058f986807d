"""Where an engine may be: what the environment, contexts and customs say. Reads files, no sockets.

The order is that of the engines' own clients: a host that is given, `DOCKER_HOST`, the context in
use, then the customary sockets of root, of this user and of Docker Desktop. For Podman:
`CONTAINER_HOST`, the active connection, then its sockets.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scoring.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Kind = Literal["docker", "podman"]

UNIX = "unix://"
_SCHEMES = ("unix://", "tcp://", "http://", "https://", "ssh://", "http+unix://")


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates for an engine over the network; empty paths for none."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine may be.

    Attributes:
        host: `unix:///run/docker.sock`, `tcp://host:2376`, `ssh://user@host`.
        source: Who says so, for messages: `DOCKER_HOST`, `the context 'prod'`.
        tls: None for none.
        sure: The user said so: nothing else is tried where nobody answers.
    """

    host: str
    source: str
    tls: Tls | None = None
    sure: bool = True


def places(kind: Kind, environ: Mapping[str, str] = os.environ) -> list[Place]:
    """Where an engine of this kind may be, the first one first.

    Args:
        kind: `docker` or `podman`.
        environ: The environment; `HOME` and `XDG_RUNTIME_DIR` are looked at, too.

    Raises:
        UsageError: A host or context that is named does not exist.
    """
    named = _docker_named(environ) if kind == "docker" else _podman_named(environ)
    if named is not None:
        return [named]
    sockets = _docker_sockets(environ) if kind == "docker" else _podman_sockets(environ)
    return [Place(UNIX + path, path, sure=False) for path in sockets]


def given(host: str, environ: Mapping[str, str] = os.environ) -> Place:
    """The place that a setting or an option names.

    Raises:
        UsageError: It is no address of an engine.
    """
    checked = _checked(host, "The engine")
    return Place(checked, checked.removeprefix(UNIX), _environment_tls(host, environ))


def _checked(host: str, source: str) -> str:
    if host.startswith("/"):
        return UNIX + host
    if not host.startswith(_SCHEMES):
        raise UsageError(
            f"{source} is {host!r}, which is no address of an engine.",
            hint="Write unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST.",
        )
    return host.replace("http+unix://", UNIX, 1)


def _docker_named(environ: Mapping[str, str]) -> Place | None:
    if host := environ.get("DOCKER_HOST"):
        return Place(_checked(host, "DOCKER_HOST"), "DOCKER_HOST", _environment_tls(host, environ))
    folder = Path(environ.get("DOCKER_CONFIG") or _home(environ) / ".docker")
    name = environ.get("DOCKER_CONTEXT") or _current_context(folder)
    return _context(folder, name) if name and name != "default" else None


def _environment_tls(host: str, environ: Mapping[str, str]) -> Tls | None:
    if not host.startswith(("tcp://", "https://")):
        return None
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    folder = environ.get("DOCKER_CERT_PATH", "")
    if not (verify or folder):
        return None
    return _tls_of(Path(folder or _home(environ) / ".docker"), verify=verify)


def _tls_of(folder: Path, *, verify: bool) -> Tls:
    found = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key")}
    texts = {name: str(path) if path.is_file() else "" for name, path in found.items()}
    return Tls(**texts, verify=verify)


def _current_context(folder: Path) -> str:
    return str(_read_json(folder / "config.json").get("currentContext") or "")


def _context(folder: Path, name: str) -> Place:
    """The context of this name, as `docker context` keeps it."""
    key = hashlib.sha256(name.encode()).hexdigest()
    document = _read_json(folder / "contexts/meta" / key / "meta.json")
    endpoint = (document.get("Endpoints") or {}).get("docker") or {}
    host = str(endpoint.get("Host") or "")
    if not host:
        raise UsageError(
            f"The Docker context {name!r} is in use, and there is no such context in {folder}.",
            hint="'docker context ls' lists them; 'docker context use default' goes back.",
        )
    tls_folder = folder / "contexts/tls" / key / "docker"
    verify = not endpoint.get("SkipTLSVerify", False)
    tls = _tls_of(tls_folder, verify=verify) if tls_folder.is_dir() else None
    return Place(_checked(host, f"the context {name!r}"), f"the context {name!r}", tls)


def _podman_named(environ: Mapping[str, str]) -> Place | None:
    if host := environ.get("CONTAINER_HOST"):
        return Place(_checked(host, "CONTAINER_HOST"), "CONTAINER_HOST")
    home = Path(environ.get("XDG_CONFIG_HOME") or _home(environ) / ".config") / "containers"
    return _connection(environ, home)


def _connection(environ: Mapping[str, str], folder: Path) -> Place | None:
    """The connection in use, as `podman system connection` keeps it (Podman 5, then 4)."""
    kept = _read_json(folder / "podman-connections.json").get("Connection") or {}
    engine = _read_toml(folder / "containers.conf").get("engine") or {}
    name = environ.get("CONTAINER_CONNECTION") or kept.get("Default")
    name = name or engine.get("active_service")
    known = {**(engine.get("service_destinations") or {}), **(kept.get("Connections") or {})}
    if not name:
        return None
    found = known.get(name) or {}
    host = str(found.get("uri") or found.get("URI") or "")
    if not host:
        raise UsageError(
            f"The Podman connection {name!r} is in use, and there is no such connection.",
            hint="'podman system connection list' lists them.",
        )
    source = f"the connection {name!r}"
    return Place(_checked(host, source), source)


def _docker_sockets(environ: Mapping[str, str]) -> Iterator[str]:
    yield "/var/run/docker.sock"
    yield from _of_user(environ, "docker.sock")
    home = _home(environ) / ".docker"
    yield str(home / "run/docker.sock")
    yield str(home / "desktop/docker.sock")


def _podman_sockets(environ: Mapping[str, str]) -> Iterator[str]:
    if os.geteuid() == 0:
        yield "/run/podman/podman.sock"
        yield from _of_user(environ, "podman/podman.sock")
        return
    yield from _of_user(environ, "podman/podman.sock")
    yield "/run/podman/podman.sock"


def _of_user(environ: Mapping[str, str], name: str) -> Iterator[str]:
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        yield f"{runtime}/{name}"
    elif os.geteuid() != 0:
        yield f"/run/user/{os.getuid()}/{name}"


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or "/")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}.", hint="Repair it, or set DOCKER_HOST."
        ) from error
    return document if isinstance(document, dict) else {}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}.", hint="Repair it, or set CONTAINER_HOST."
        ) from error
