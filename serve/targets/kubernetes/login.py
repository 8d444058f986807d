"""Puts the login on every request: tokens, files of tokens, plugins of cloud providers."""

from __future__ import annotations

import ssl
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from scoring.errors import TargetError
from serve.targets.kubernetes import plugins

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from lightkube.config.models import User

    from serve.targets.kubernetes.access import Access

_UNAUTHORIZED = 401
_EARLY = timedelta(seconds=30)


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
    """Asks a program for a token or a certificate, and puts it on requests.

    Args:
        command: The program.
        cluster: What it is told of the cluster, where it wants to be told.
        tls: Takes certificates; connections that are opened from then on show them.
    """

    def __init__(
        self,
        command: plugins.Command,
        cluster: Mapping[str, Any],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._command = command
        self._cluster = cluster
        self._tls = tls
        self._lock = threading.Lock()
        self._given: tuple[str, str] | None = None
        self._until: datetime | None = None

    def sync_auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Asks the plugin where its last credential is over, or is not accepted any more."""
        given, fresh = self._credential()
        _show(request, given)
        response = yield request
        if response.status_code == _UNAUTHORIZED and not fresh:
            _show(request, self._credential(refused=given)[0])
            yield request

    def _credential(self, refused: tuple[str, str] | None = None) -> tuple[tuple[str, str], bool]:
        """Token and certificate, and whether the plugin was asked for them now."""
        with self._lock:  # one question for all threads
            known = self._given
            over = self._until is not None and datetime.now(UTC) >= self._until - _EARLY
            if known is not None and not over and known is not refused:
                return known, False
            status = plugins.ask(self._command, self._cluster)
            self._given = self._taken(status)
            self._until = _time(status.get("expirationTimestamp"))
            return self._given, True

    def _taken(self, status: Mapping[str, Any]) -> tuple[str, str]:
        token = str(status.get("token") or "")
        certificate = str(status.get("clientCertificateData") or "")
        if not token and not certificate:
            raise TargetError(
                f"The login plugin {self._command.command!r} gave no token and no certificate.",
                hint="Log in again with your provider's tool.",
            )
        if certificate and self._tls is not None:
            self._wear(self._tls, certificate, str(status.get("clientKeyData") or ""))
        return token, certificate

    def _wear(self, tls: ssl.SSLContext, certificate: str, key: str) -> None:
        """Certificates are read from files only: theirs are gone at once."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "login.pem")
            path.touch(0o600)
            path.write_text(f"{certificate}\n{key}\n")
            try:
                tls.load_cert_chain(path)
            except (ssl.SSLError, OSError) as error:
                raise TargetError(
                    f"The certificate of the login plugin {self._command.command!r} cannot be "
                    f"used: {error}."
                ) from error


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


def login_of(access: Access, tls: ssl.SSLContext | None = None) -> httpx2.Auth | None:
    """How requests show who asks; None where certificates do, or nothing.

    Args:
        access: The cluster and the login.
        tls: Takes the certificate of a plugin that gives one.

    Raises:
        TargetError: The kubeconfig wants what is not supported.
    """
    user: User | None = access.config.user
    if user is None:
        return None
    if user.token_file:
        return TokenFile(user.token_file)
    if user.token:
        return Bearer(user.token)
    if access.plugin is not None:
        return Plugin(access.plugin, access.told, tls)
    if user.username and user.password is not None:
        return httpx2.BasicAuth(user.username, user.password)
    if user.auth_provider:
        raise TargetError(
            "The kubeconfig logs in with an 'auth-provider', which Kubernetes gave up in 1.26.",
            hint="Get a new kubeconfig from your cluster's provider.",
        )
    return None


def _show(request: httpx2.Request, given: tuple[str, str]) -> None:
    if given[0]:
        request.headers["Authorization"] = f"Bearer {given[0]}"


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)
