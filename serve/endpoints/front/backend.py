"""One deployment as a front sees it: where it is, its idle connections, whether it answers."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from serve.endpoints.front.stats import Counts
from serve.endpoints.front.upstream import Upstream

if TYPE_CHECKING:
    from serve.endpoints.front.config import Address

IDLE_S = 1.0
"""How long a connection is kept for the next request. Our servers leave idle connections open for
2 s when they go (`drain_idle_s`), so that none of ours is closed while a request is on its way."""

_MOST_IDLE = 256
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0


class Backend:
    """A deployment behind a front.

    Args:
        name: Of the deployment.
        address: Where it answers.

    Attributes:
        counts: Of its requests.
        shadow: Of the copies that it gets; they are counted apart.
        ready: What its own health last said.
    """

    def __init__(self, name: str, address: Address) -> None:
        parts = urlsplit(address.url)
        self.name = name
        self.label = name.encode()
        self.address = address
        self.host = parts.hostname or ""
        self.tls = _context(address) if parts.scheme == "https" else None
        self.port = _port(address.url) or (443 if self.tls else 80)
        self.counts = Counts()
        self.ready = True
        self._idle: list[tuple[float, Upstream]] = []
        self._closed = False
        self._pause_s = 0.0
        self._down_until = 0.0

    def take(self) -> Upstream | None:
        """An open connection that nobody uses; the one that was used last is the surest."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            since, upstream = self._idle.pop()
            if upstream.usable and now - since < IDLE_S:
                return upstream
            upstream.close()
        return None

    def keep(self, upstream: Upstream) -> None:
        """Keeps a connection for the next request."""
        if self._closed or len(self._idle) >= _MOST_IDLE:
            upstream.close()
            return
        self._idle.append((asyncio.get_running_loop().time(), upstream))

    def trim(self, now: float) -> None:
        """Closes what has been idle for too long."""
        old = [pair for pair in self._idle if now - pair[0] >= IDLE_S or not pair[1].usable]
        for pair in old:
            self._idle.remove(pair)
            pair[1].close()

    def close(self) -> None:
        """Closes idle connections; those in use go on to their end, and are not kept then."""
        self._closed = True
        for _, upstream in self._idle:
            upstream.close()
        self._idle.clear()

    async def connect(self, timeout_s: float) -> Upstream:
        """A new connection.

        Raises:
            OSError: Nothing answers there (`TimeoutError` included).
        """
        if not self.host:
            raise OSError(0, "the deployment has no address")
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout_s):
            _, upstream = await loop.create_connection(Upstream, self.host, self.port, ssl=self.tls)
        return upstream

    def failed(self, now: float) -> None:
        """It could not be reached: for a while others are asked first."""
        self._pause_s = min(max(self._pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        self._down_until = now + self._pause_s

    def answered(self) -> None:
        """It has begun an answer."""
        self._pause_s = self._down_until = 0.0

    def seems_up(self, now: float) -> bool:
        """Whether it is believed to answer."""
        return self.ready and now >= self._down_until


def _port(url: str) -> int:
    try:
        return urlsplit(url).port or 0
    except ValueError:
        return 0


def _context(address: Address) -> ssl.SSLContext:
    """A context that believes this deployment's own certificate, or the usual authorities.

    Raises:
        OSError: The certificate cannot be read (`ssl.SSLError` included).
    """
    made = ssl.create_default_context(cafile=address.certificate or None)
    if address.certificate:
        # The very file that the deployment shows: its name may be that of another host.
        made.check_hostname = False
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return made
