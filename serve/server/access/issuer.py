"""Where an issuer's keys come from, and when they are fetched anew.

Fetching runs on a thread of its own; everything else is on the event loop's thread.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scoring.errors import FieldpostError, OverloadedError, UnreachableError, UsageError
from serve.server.access import jwks
from serve.server.access.watched import Watched

if TYPE_CHECKING:
    from serve.server.access.jwks import SigningKey

logger = logging.getLogger(__name__)

Fetch = Callable[[], bytes]
Done = Callable[[FieldpostError | None], None]

_REFRESH_S = 600.0
_UNKNOWN_KEY_S = 30.0
_RETRY_S = 5.0
_LONGEST_S = 86_400.0
_MOST_WAITING = 1024
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Issuer:
    """The keys of an issuer, kept fresh.

    Args:
        fetch: Gets the document of keys; runs on a thread, may raise anything.
        post: Runs a callable on the event loop's thread.
        changed: Called when there are other keys than before.
        file: The document is this file, which is read when it changes instead of now and then.

    Attributes:
        keys: The keys; None before they came, or when they are too old.
    """

    def __init__(
        self,
        fetch: Fetch,
        post: Callable[..., object],
        changed: Callable[[], None] = lambda: None,
        file: Path | None = None,
    ) -> None:
        self.keys: tuple[SigningKey, ...] | None = None
        self._watched = None if file is None else Watched([file])
        self._fetch = fetch
        self._post = post
        self._changed = changed
        self._document = b""
        self._waiting: list[Done] = []
        self._fetching = False
        self._tried = self._fetched = float("-inf")
        self._error: FieldpostError | None = None

    def tick(self) -> None:
        """Fetches where it is time to; called about twice a second."""
        now = monotonic()
        if self.keys is not None and now - self._fetched > _LONGEST_S and self._watched is None:
            logger.error("The issuer's keys could not be fetched for a day; no token is taken")
            self._take(None)
        if self._watched is not None:
            due = self._watched.changed() or self._tried == float("-inf")
        else:
            pause_s = _REFRESH_S if self._error is None and self.keys else _RETRY_S
            due = now - self._tried > pause_s
        if due:
            self._begin(now)

    def refresh(self, done: Done) -> None:
        """Looks for newer keys, but not at the pace of those who send made-up names of keys.

        Args:
            done: Called once, with the reason where there are none at all.
        """
        now = monotonic()
        pause_s = _RETRY_S if self.keys is None else _UNKNOWN_KEY_S
        if self._fetching or now - self._tried > pause_s:
            if len(self._waiting) >= _MOST_WAITING:
                done(OverloadedError("Too many requests wait for the issuer's keys."))
                return
            self._waiting.append(done)
            self._begin(now)
        else:
            done(None if self.keys is not None else self._error)

    def _begin(self, now: float) -> None:
        if self._fetching:
            return
        self._fetching = True
        self._tried = now
        threading.Thread(target=self._work, name="issuer-keys", daemon=True).start()

    def _work(self) -> None:
        keys: tuple[SigningKey, ...] | None = None
        document = b""
        error: Exception | None = None
        try:
            document = self._fetch()
            keys = jwks.parse(document)
        except Exception as raised:  # noqa: BLE001 - logged; the old keys stay
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._post(self._end, keys, document, error)

    def _end(
        self, keys: tuple[SigningKey, ...] | None, document: bytes, error: Exception | None
    ) -> None:
        self._fetching = False
        if keys is None:
            logger.error("The issuer's keys cannot be had, the old ones stay: %s", error)
            self._error = UnreachableError(
                "The keys of the issuer of tokens cannot be had.",
                hint="Try again in a moment; the log of the server says why.",
            )
        else:
            self._fetched, self._error = monotonic(), None
            if document != self._document:
                self._document = document
                self._take(keys)
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(None if self.keys is not None else self._error)

    def _take(self, keys: tuple[SigningKey, ...] | None) -> None:
        self.keys = keys
        if keys is None:
            self._document = b""
        self._changed()


def source(issuer: str, location: str) -> tuple[Fetch, Path | None]:
    """What fetches an issuer's keys, and the file that they are in, where it is one.

    Args:
        issuer: Its URL.
        location: A URL or a file; empty to ask the issuer where they are.

    Raises:
        UsageError: A URL is none, or would be fetched without TLS.
    """
    require_safe(issuer, "oidc_issuer")
    if location and "://" not in location:
        path = Path(location)
        return path.read_bytes, path
    if location:
        require_safe(location, "oidc_jwks")

    def fetch() -> bytes:
        from serve.server.access import fetching  # noqa: PLC0415 - imports httpx and tenacity

        return fetching.signing_keys(issuer, location)

    return fetch, None


def require_safe(url: str, where: str) -> None:
    """Keys that come without TLS could be anyone's.

    Raises:
        UsageError: It is no https URL; http is taken from this machine alone.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)):
        raise UsageError(
            f"{where} is {url!r}, which is no https URL.",
            hint="Give one such as https://login.example.org.",
            where=where,
        )
