"""The user's own logins: what `docker login` and `podman login` have left.

They are looked for when a registry asks, so that nobody's helper runs for a registry that lets
everyone in. Nothing of a secret is ever in a `repr` or in an error.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scoring.errors import RegistryDeniedError, RegistryError
from serve.distribution.reference import DEFAULT_REGISTRY, Reference

HELPER_TIMEOUT_S = 60.0
MAX_FILE_BYTES = 4 << 20

_HUB_KEY = "https://index.docker.io/v1/"
_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_TOKEN_USER = "<token>"  # noqa: S105 - the name that stands for an identity token
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_NOT_FOUND = ("credentials not found", "credentials not initialized", "no credentials")

_log = logging.getLogger(__name__)
Document = Mapping[str, Any]


class Credential:
    """A login; its `repr` shows the user's name and no secret.

    Attributes:
        username: Empty for an identity token.
        password: Its password, or an access token in the place of one.
        identity_token: An OAuth2 refresh token, exchanged for a short-lived one.
        registry_token: A bearer token that is sent as it is.
    """

    __slots__ = ("identity_token", "password", "registry_token", "username")

    def __init__(
        self,
        username: str = "",
        password: str = "",
        *,
        identity_token: str = "",
        registry_token: str = "",
    ) -> None:
        self.username = username
        self.password = password
        self.identity_token = identity_token
        self.registry_token = registry_token

    def basic(self) -> str:
        """The value of `Authorization` for this login."""
        joined = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(joined).decode()}"

    def __repr__(self) -> str:
        return f"Credential({self.username or 'a token'!r})"


class Logins:
    """The logins that this user's files and helpers have.

    Args:
        environ: The environment variables; those of the process by default.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ

    def find(self, reference: Reference) -> Credential | None:
        """The login for a repository; None for none.

        Raises:
            RegistryError: A file of logins cannot be read.
            RegistryDeniedError: A credential helper fails.
        """
        for name, document in self._documents():
            found = _in_document(document, reference, name)
            if found is not None:
                return found
        return None

    def _documents(self) -> Iterator[tuple[str, Document]]:
        inline = self._environ.get("DOCKER_AUTH_CONFIG", "")
        if inline:
            yield "DOCKER_AUTH_CONFIG", _parse(inline, "DOCKER_AUTH_CONFIG")
        for path in self._files():
            text = _read(path)
            if text is not None:
                yield str(path), _parse(text, str(path))

    def _files(self) -> list[Path]:
        """Docker's file first, then those of Podman, Buildah and Skopeo; a named one before all."""
        home = Path(self._environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111
        config = Path(self._environ.get("XDG_CONFIG_HOME") or home / ".config")
        docker = Path(self._environ.get("DOCKER_CONFIG") or home / ".docker")
        named = self._environ.get("REGISTRY_AUTH_FILE", "")
        runtime = self._environ.get("XDG_RUNTIME_DIR", "") or f"/run/user/{os.getuid()}"
        return [
            *([Path(named)] if named else []),
            docker / "config.json",
            Path(runtime) / "containers" / "auth.json",
            config / "containers" / "auth.json",
        ]


def _read(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(str(path)) from error


def _parse(text: str, name: str) -> Document:
    try:
        document = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        raise _unreadable(name) from None  # the error of the parser would quote the file
    if not isinstance(document, dict):
        raise _unreadable(name)
    return document


def _unreadable(name: str) -> RegistryError:
    return RegistryError(
        f"The logins in {name} cannot be read: that is no JSON object.",
        hint="Correct the file, or remove it and log in again ('docker login REGISTRY').",
        where=name,
    )


def _in_document(document: Document, reference: Reference, name: str) -> Credential | None:
    keys = list(_keys(reference))
    helpers = _mapping(document, "credHelpers")
    for key in keys:
        helper = helpers.get(key)
        if isinstance(helper, str) and helper:
            return _ask_helper(helper, key)
    store = document.get("credsStore")
    if isinstance(store, str) and store:
        key = _HUB_KEY if reference.registry == DEFAULT_REGISTRY else reference.registry
        found = _ask_helper(store, key)
        if found is not None:
            return found
    logins = {_normal(key): value for key, value in _mapping(document, "auths").items()}
    entries = (logins.get(key) for key in keys)
    return next((_entry(each, name) for each in entries if isinstance(each, dict) and each), None)


def _mapping(document: Document, name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _keys(reference: Reference) -> Iterator[str]:
    """What a login may be filed under, the nearest first: Podman files them by folder, too."""
    parts = reference.repository.split("/") if reference.repository else []
    for length in range(len(parts), 0, -1):
        yield f"{reference.registry}/{'/'.join(parts[:length])}"
    yield reference.registry
    if reference.registry == DEFAULT_REGISTRY:
        yield from sorted(_HUB - {DEFAULT_REGISTRY})
        yield _HUB_KEY


def _normal(key: str) -> str:
    """A key without scheme, end and the version that old clients wrote."""
    bare = key.partition("://")[2] or key
    bare = bare.rstrip("/")
    host, _, path = bare.partition("/")
    return host if path in {"v1", "v2"} else bare


def _entry(entry: dict[str, Any], name: str) -> Credential | None:
    def text(field: str) -> str:
        value = entry.get(field)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if text("auth"):
        username, password = _decode(text("auth"), name)
    if username == _TOKEN_USER:
        return Credential(identity_token=password)
    if not (username or text("identitytoken") or text("registrytoken")):
        return None
    return Credential(
        username,
        password,
        identity_token=text("identitytoken"),
        registry_token=text("registrytoken"),
    )


def _decode(auth: str, name: str) -> tuple[str, str]:
    try:
        joined = base64.b64decode(auth, validate=True).decode()
    except (binascii.Error, ValueError):
        joined = ""
    username, colon, password = joined.partition(":")
    if not colon:
        raise RegistryError(
            f"A login in {name} is damaged: its 'auth' is no base64 of USER:PASSWORD.",
            hint="Log in again: 'docker login REGISTRY'.",
            where=name,
        )
    return username, password.rstrip("\0")


def _ask_helper(helper: str, server: str) -> Credential | None:
    """Asks `docker-credential-HELPER`, the way that Docker does: the server on its stdin."""
    if not _HELPER.fullmatch(helper):
        raise _helper_failed(helper, "its name has characters that no program's has")
    program = f"docker-credential-{helper}"
    import subprocess  # noqa: PLC0415 - for helpers only

    try:
        answer = subprocess.run(  # noqa: S603 - the program that the user's configuration names
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=HELPER_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise _helper_failed(helper, "it is not installed") from error
    except subprocess.TimeoutExpired:
        raise _helper_failed(helper, f"it gave no answer in {HELPER_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise _helper_failed(helper, error.strerror or str(error)) from error
    if answer.returncode:
        words = answer.stdout.decode(errors="replace").lower()
        if any(each in words for each in _NOT_FOUND):
            return None
        raise _helper_failed(helper, f"it left with status {answer.returncode}")
    return _from_helper(helper, answer.stdout)


def _from_helper(helper: str, output: bytes) -> Credential | None:
    try:
        document = json.loads(output)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _helper_failed(helper, "its answer is no login") from None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise _helper_failed(helper, "its answer is no login")
    if username == _TOKEN_USER:
        return Credential(identity_token=secret)
    return Credential(username, secret) if username or secret else None


def _helper_failed(helper: str, reason: str) -> RegistryDeniedError:
    return RegistryDeniedError(
        f"The credential helper docker-credential-{helper} fails: {reason}.",
        hint="Repair it, or take it out of credsStore and credHelpers in ~/.docker/config.json.",
    )
