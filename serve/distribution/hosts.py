"""How each registry is reached: over HTTPS or not, by which authorities, through which mirrors.

Read from the files that engines have: Docker's `daemon.json`, `registries.conf` of Podman and its
like, and `certs.d/HOST`.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from scoring.errors import RegistryDeniedError, RegistryError
from serve.distribution.reference import DEFAULT_REGISTRY, Reference

if TYPE_CHECKING:
    import ssl

Scheme = Literal["http", "https"]


class Place(msgspec.Struct, frozen=True):
    """A repository to ask, which may be a mirror's.

    Attributes:
        reference: Where.
        insecure: Its certificate is not looked at, and plain HTTP is tried where HTTPS fails.
        mirror: Whether another place is asked where this one has nothing.
    """

    reference: Reference
    insecure: bool = False
    mirror: bool = False


class Rule(msgspec.Struct, frozen=True):
    """One `[[registry]]` of `registries.conf`."""

    prefix: str
    location: str
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[tuple[str, bool, str], ...] = ()
    """Location, whether insecure, and for what: `all`, `digest-only` or `tag-only`."""


class Hosts:
    """What this machine's files say of registries.

    Args:
        environ: The environment variables; those of the process by default.
        plain_http: Registries (or all, for True) that are asked over plain HTTP alone.
        root: Where `/etc` is.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        plain_http: bool | Sequence[str] = False,
        root: Path = Path("/"),
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._plain = plain_http
        self._etc = root / "etc"

    def places(self, reference: Reference) -> list[Place]:
        """Where to pull from, in order: mirrors, then the registry itself.

        Raises:
            RegistryDeniedError: `registries.conf` blocks the registry.
            RegistryError: A file cannot be read.
        """
        own, rule = self.place(reference), self._rule(reference)
        found: list[Place] = []
        if rule is not None:
            for location, insecure, use in rule.mirrors:
                if use == "all" or (use == "digest-only") == bool(reference.digest):
                    there = _moved(reference, rule.prefix, location)
                    found.append(Place(there, insecure=insecure, mirror=True))
        if reference.registry == DEFAULT_REGISTRY:
            for mirror in self._hub_mirrors:
                there = msgspec.structs.replace(reference, registry=mirror[1])
                found.append(Place(there, insecure=mirror[0] == "http", mirror=True))
        return [*found, own]

    def place(self, reference: Reference) -> Place:
        """The registry itself, without mirrors: what a push goes to; raises like `places`."""
        rule = self._rule(reference)
        if rule is not None and rule.blocked:
            raise RegistryDeniedError(
                f"The registry of {reference} is blocked by registries.conf.",
                hint="Take 'blocked' out of its [[registry]], or use another registry.",
            )
        moved = _moved(reference, rule.prefix, rule.location) if rule else reference
        insecure = (rule is not None and rule.insecure) or self._is_listed(moved.registry)
        return Place(moved, insecure=insecure)

    def schemes(self, place: Place) -> tuple[Scheme, ...]:
        """What to try, in order. Plain HTTP is for this machine, or for where the user said so."""
        registry = place.reference.registry
        if self._plain is True or (self._plain and registry in self._plain):
            return ("http",)
        if place.insecure:
            return ("https", "http")
        if is_loopback(registry) and not self._certificates(registry):
            return ("http", "https")
        return ("https",)

    def tls(self, place: Place) -> ssl.SSLContext:
        """The authorities and the own certificate for a registry.

        Raises:
            RegistryError: A file of `certs.d` cannot be read.
        """
        import ssl  # noqa: PLC0415 - registries of this machine have none

        context = ssl.create_default_context()
        if place.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for folder in self._certificates(place.reference.registry):
            _load(context, folder)
        return context

    def _certificates(self, registry: str) -> list[Path]:
        """The folders of `certs.d` for a registry, the user's own last."""
        home = Path(self._environ.get("HOME") or "/nonexistent")
        above = [
            self._etc / "docker",
            self._etc / "containers",
            Path(self._environ.get("DOCKER_CONFIG") or home / ".docker"),
            home / ".config" / "docker",
            home / ".config" / "containers",
        ]
        folders = [each / "certs.d" / registry for each in above]
        return [each for each in folders if each.is_dir()]

    def _is_listed(self, registry: str) -> bool:
        host = registry.rpartition(":")[0] or registry
        return any(each in {registry, host} or within(host, each) for each in self._insecure)

    @cached_property
    def _daemon(self) -> dict[str, Any]:
        """Docker's daemon's settings: the system's, then those of a rootless one."""
        home = self._environ.get("HOME") or "/nonexistent"
        config = self._environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
        merged: dict[str, Any] = {}
        for path in (self._etc / "docker" / "daemon.json", Path(config) / "docker/daemon.json"):
            merged |= _json(path)
        return merged

    @cached_property
    def _insecure(self) -> list[str]:
        return _texts(self._daemon.get("insecure-registries"))

    @cached_property
    def _hub_mirrors(self) -> list[tuple[str, str]]:
        """Scheme and host of `registry-mirrors`."""
        found = []
        for text in _texts(self._daemon.get("registry-mirrors")):
            scheme, separator, rest = text.partition("://")
            host = (rest if separator else text).rstrip("/")
            found.append((scheme if separator else "https", host))
        return found

    def _rule(self, reference: Reference) -> Rule | None:
        """The rule with the longest prefix that the reference begins with."""
        fitting = [each for each in self._rules if _begins(reference, each.prefix)]
        return max(fitting, key=lambda each: len(each.prefix), default=None)

    @cached_property
    def _rules(self) -> list[Rule]:
        rules: dict[str, Rule] = {}
        for path in self._conf_files():
            for entry in _entries(_toml(path)):
                rule = _parse_rule(entry)
                if rule is not None:
                    rules[rule.prefix] = rule
        return list(rules.values())

    def _conf_files(self) -> Iterator[Path]:
        named = self._environ.get("CONTAINERS_REGISTRIES_CONF", "")
        home = Path(self._environ.get("HOME") or "/nonexistent") / ".config" / "containers"
        system = self._etc / "containers"
        if named:
            yield Path(named)
            return
        own = home / "registries.conf"
        yield own if own.is_file() else system / "registries.conf"
        for folder in (system, home):
            yield from sorted((folder / "registries.conf.d").glob("*.conf"))


def is_loopback(registry: str) -> bool:
    """Whether a registry is on this machine, by its name."""
    host = registry
    if not registry.endswith("]"):
        host = registry.rpartition(":")[0] or registry
    host = host.strip("[]")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def within(host: str, network: str) -> bool:
    """Whether a host is an address of a network, `10.0.0.0/8`."""
    try:
        return ipaddress.ip_address(host.strip("[]")) in ipaddress.ip_network(network)
    except ValueError:
        return False


def _begins(reference: Reference, prefix: str) -> bool:
    if prefix.startswith("*."):
        host, slash, path = prefix.partition("/")
        return reference.registry.endswith(host[1:]) and (
            not slash or f"{reference.repository}/".startswith(f"{path}/")
        )
    return f"{reference.name}/".startswith(f"{prefix}/")


def _moved(reference: Reference, prefix: str, location: str) -> Reference:
    """The reference with the location in the place of the prefix."""
    if not location or prefix.startswith("*."):
        return reference
    registry, _, repository = (location + reference.name[len(prefix) :]).partition("/")
    return msgspec.structs.replace(reference, registry=registry, repository=repository)


def _entries(document: dict[str, Any]) -> list[dict[str, Any]]:
    found = document.get("registry")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _parse_rule(entry: dict[str, Any]) -> Rule | None:
    location = _text(entry.get("location"))
    prefix = _text(entry.get("prefix")) or location
    if not prefix:
        return None
    digest_only = entry.get("mirror-by-digest-only") is True
    mirrors = [each for each in entry.get("mirror") or () if isinstance(each, dict)]
    return Rule(
        prefix=prefix,
        location=location,
        insecure=entry.get("insecure") is True,
        blocked=entry.get("blocked") is True,
        mirrors=tuple(
            (
                _text(each.get("location")),
                each.get("insecure") is True,
                _text(each.get("pull-from-mirror")) or ("digest-only" if digest_only else "all"),
            )
            for each in mirrors
            if _text(each.get("location"))
        ),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes() or b"{}")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    return document if isinstance(document, dict) else {}


def _toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        import tomllib  # noqa: PLC0415 - most machines have no such file

        return tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _load(context: ssl.SSLContext, folder: Path) -> None:
    """Authorities are `*.crt`; a certificate of our own is `NAME.cert` with `NAME.key`."""
    import ssl  # noqa: PLC0415 - as above

    for path in sorted(folder.iterdir()):
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(cafile=path)
            elif path.suffix == ".cert":
                context.load_cert_chain(path, path.with_suffix(".key"))
        except (OSError, ssl.SSLError) as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RegistryError:
    return RegistryError(
        f"The registry settings in {path} cannot be read: {error}.",
        hint="Correct the file; it says how registries are reached from this machine.",
        where=str(path),
    )
