"""Puts the login on every request: tokens, files of tokens, plugins of cloud providers."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec

from scoring.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Generator

    from lightkube.config.models import User, UserExec

_UNAUTHORIZED = 401
_EARLY = timedelta(seconds=30)
_PLUGIN_S = 120.0
_SHOWN = 400


class TokenFile(httpx2.Auth):
    """A token in a file, which is replaced from time to time."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def sync_auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Reads the file for each request: it is small, and the pod's own changes every hour."""
        request.headers["Authorization"] = f"Bearer {self._token()}"
        yield request

    def _token(self) -> str:
        try:
            return self._path.read_text().strip()
        except OSError as error:
            raise TargetError(f"The token file {self._path} cannot be read: {error}.") from error


class Plugin(httpx2.Auth):
    """A program that prints a credential: those of cloud providers work so."""

    def __init__(self, plugin: UserExec, cluster: dict[str, Any]) -> None:
        self._plugin = plugin
        self._cluster = cluster
        self._token = ""
        self._until: datetime | None = None

    def sync_auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Asks the plugin where its last token is over, or is not accepted any more."""
        fresh = self._refresh()
        request.headers["Authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code == _UNAUTHORIZED and not fresh:
            self._token = ""
            self._refresh()
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def _refresh(self) -> bool:
        """Makes sure that there is a token; whether it was got now."""
        if self._token and (self._until is None or datetime.now(UTC) < self._until - _EARLY):
            return False
        status = self._run().get("status") or {}
        if not status.get("token"):
            raise TargetError(
                f"The login plugin {self._plugin.command!r} gave no token.",
                hint="Plugins that give certificates are not supported: use one with tokens.",
            )
        self._token = str(status["token"])
        self._until = _time(status.get("expirationTimestamp"))
        return True

    def _run(self) -> dict[str, Any]:
        try:
            done = subprocess.run(  # noqa: S603 - what the kubeconfig names, as kubectl runs it
                [self._plugin.command, *(self._plugin.args or ())],
                env=self._environment(),
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=_PLUGIN_S,
                check=True,
            )
            return dict(msgspec.json.decode(done.stdout))
        except FileNotFoundError as error:
            raise TargetError(
                f"The login plugin {self._plugin.command!r} of the kubeconfig is not installed.",
                hint=self._plugin.installHint or "Install it, or log in another way.",
            ) from error
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()[-_SHOWN:]
            raise TargetError(
                f"The login plugin {self._plugin.command!r} ended with {error.returncode}.",
                hint="Log in again with your provider's tool.",
                detail=said,
            ) from error
        except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError, TypeError) as error:
            raise TargetError(
                f"The login plugin {self._plugin.command!r} gave no credential: "
                f"{type(error).__name__}."
            ) from error

    def _environment(self) -> dict[str, str]:
        info = {
            "apiVersion": self._plugin.apiVersion,
            "kind": "ExecCredential",
            "spec": {"interactive": False, "cluster": self._cluster},
        }
        given = {each.name: each.value for each in self._plugin.env or ()}
        return {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(info), **given}


class Bearer(httpx2.Auth):
    """A token that is known."""

    def __init__(self, token: str) -> None:
        self._token = token

    def sync_auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Adds it."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def login_of(user: User | None, server: str) -> httpx2.Auth | None:
    """How requests show who asks; None where certificates do, or nothing.

    Raises:
        TargetError: The kubeconfig wants what is not supported.
    """
    if user is None:
        return None
    if user.token_file:
        return TokenFile(user.token_file)
    if user.token:
        return Bearer(user.token)
    if user.exec:
        return Plugin(user.exec, {"server": server})
    if user.username and user.password is not None:
        return httpx2.BasicAuth(user.username, user.password)
    if user.auth_provider:
        raise TargetError(
            "The kubeconfig logs in with an 'auth-provider', which Kubernetes gave up in 1.26.",
            hint="Get a new kubeconfig from your cluster's provider.",
        )
    return None


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None
