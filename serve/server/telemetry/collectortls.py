"""The TLS of the connection to a collector, by files that may be replaced while the server runs."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from scoring.errors import UsageError

if TYPE_CHECKING:
    from serve.server.telemetry.otlpsettings import Target

_VARIABLE = "OTEL_EXPORTER_OTLP_{}"


class Contexts:
    """Contexts for new connections: another one where a file has changed.

    Args:
        target: With the files.

    Raises:
        UsageError: One of them cannot be used.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._files = (target.certificate, target.client_certificate, target.client_key)
        self._seen = self._look()
        self._context = _make(target)

    def current(self) -> ssl.SSLContext:
        """For a connection that is opened now.

        Raises:
            UsageError: One of the files has changed, and cannot be used.
        """
        seen = self._look()
        if seen != self._seen:
            self._context = _make(self._target)
            self._seen = seen
        return self._context

    def _look(self) -> list[tuple[int, int, int]]:
        return [_state(file) for file in self._files if file]


def _state(file: str) -> tuple[int, int, int]:
    try:
        found = os.stat(file)  # noqa: PTH116 - no other part of a path is wanted
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def _make(target: Target) -> ssl.SSLContext:
    name, file = "CERTIFICATE", target.certificate
    try:
        context = ssl.create_default_context(cafile=file or None)
        if target.client_certificate:
            name, file = "CLIENT_CERTIFICATE", target.client_certificate
            key = target.client_key or None
            context.load_cert_chain(target.client_certificate, key, _no_passphrase)
    except (OSError, ValueError) as error:  # ssl.SSLError is one of the former
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"TLS to the collector of traces cannot be set up with {file}: {reason}.",
            hint="Give files of PEM that the server may read, a key without a passphrase.",
            where=_VARIABLE.format(name),
        ) from error
    return context


def _no_passphrase() -> str:
    """Instead of asking at the terminal, where nobody is."""
    raise ValueError("the key has a passphrase")
