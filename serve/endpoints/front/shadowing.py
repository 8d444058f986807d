"""Copies of requests for shadows: bounded in number and size, their answers dropped.

A copy is sent when the request itself is on its way, over connections of its own. Nothing waits for
it: where there are too many under way, it is not sent, and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from serve.endpoints.front import heads
from serve.endpoints.front.stats import ShadowCounts

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from serve.endpoints.front.backend import Backend
    from serve.endpoints.front.downstream import Downstream
    from serve.endpoints.front.exchange import Request
    from serve.endpoints.front.front import Front
    from serve.endpoints.front.upstream import Upstream


class Shadowing:
    """All copies of a front's worker.

    Args:
        front: What they share with requests.

    Attributes:
        counts: By deployment.
    """

    def __init__(self, front: Front) -> None:
        self.counts: dict[str, ShadowCounts] = {}
        self._front = front
        self._under_way: set[_Copy] = set()

    def keep(self, names: AbstractSet[str]) -> None:
        """Counts these shadows from now on, and forgets others."""
        self.counts = {name: self.counts.get(name, ShadowCounts()) for name in names}

    def send(self, name: str, request: Request, body: bytes | None, client: Downstream) -> None:
        """Sends a copy, or drops it.

        Args:
            name: The shadow.
            request: What is copied.
            body: The whole of it; None where it was too long to be kept.
            client: Who has sent it.
        """
        counts = self.counts.get(name)
        if counts is None:
            return
        settings, backend = self._front.settings, self._front.backends[name]
        too_long = body is None or len(body) > settings.shadow_bytes
        if (
            too_long
            or len(self._under_way) >= settings.shadow_in_flight
            or not backend.seems_up(self._front.now())
        ):
            counts.dropped += 1
            return
        assert body is not None
        head = _head(request, client, body, self._front.config.name)
        copy = _Copy(self._front, backend, counts, request.method, self._under_way.discard)
        self._under_way.add(copy)
        copy.start(head + body)

    def tick(self, now: float) -> None:
        """Gives up those that take too long."""
        for copy in tuple(self._under_way):
            copy.check(now)


def _head(request: Request, client: Downstream, body: bytes, endpoint: str) -> bytes:
    """The head of a copy, which says that it is one: a deployment's log can leave it out."""
    length = None if request.length is None else len(body)
    head = heads.request(
        request.method,
        request.target,
        request.headers,
        address=client.address,
        tls=client.tls,
        length=len(body) if length is None else length,
    )
    return head[:-2] + b"%b: %b\r\n\r\n" % (heads.SHADOW, endpoint.encode())


class _Copy:
    """One copy; the `Sink` of the connection that carries it."""

    def __init__(
        self,
        front: Front,
        backend: Backend,
        counts: ShadowCounts,
        method: bytes,
        over: Callable[[_Copy], None],
    ) -> None:
        self.method = method
        self._front = front
        self._backend = backend
        self._counts = counts.counts
        self._over = over
        self._began = front.now()
        self._status = 0
        self._upstream: Upstream | None = None
        self._task: asyncio.Task[None] | None = None
        self._finished = False
        self._counts.in_flight += 1

    def start(self, message: bytes) -> None:
        """Sends it over an idle connection, or a new one."""
        upstream = self._backend.take()
        if upstream is not None:
            self._send(upstream, message)
        else:
            self._task = asyncio.ensure_future(self._connect(message))

    async def _connect(self, message: bytes) -> None:
        try:
            upstream = await self._backend.connect(self._front.settings.connect_timeout_s)
        except (OSError, ValueError):
            self._backend.failed(self._front.now())
            self._fail("connect")
            return
        self._task = None
        self._send(upstream, message)

    def _send(self, upstream: Upstream, message: bytes) -> None:
        self._upstream = upstream
        upstream.use(self)
        upstream.write(message)

    def check(self, now: float) -> None:
        """Gives it up where its answer takes too long."""
        if now - self._began > self._front.settings.response_timeout_s:
            if self._upstream is not None:
                self._upstream.close()
            if self._task is not None:
                self._task.cancel()
            self._fail("timeout")

    # `serve.endpoints.front.upstream.Sink`

    def head(self, status: int, reason: bytes, headers: heads.Fields, *, sized: bool) -> None:  # noqa: ARG002
        """Its answer begins."""
        self._status = status
        self._backend.answered()

    def data(self, part: bytes) -> None:
        """Drops a part of its answer."""

    def flush(self) -> None:
        """Nobody waits for it."""

    def done(self) -> None:
        """Its answer is whole."""
        upstream, self._upstream = self._upstream, None
        assert upstream is not None
        upstream.release()
        if upstream.usable:
            self._backend.keep(upstream)
        else:
            upstream.close()
        if not self._finished:
            self._counts.answered(self._status, self._front.now() - self._began)
        self._end()

    def lost(self, reason: str) -> None:
        """It will have no answer."""
        self._upstream = None
        self._fail(reason)

    def pause(self) -> None:
        """It is in the buffer, whole."""

    def resume(self) -> None:
        """As above."""

    def _fail(self, reason: str) -> None:
        if not self._finished:
            self._counts.failed(reason)
        self._end()

    def _end(self) -> None:
        if not self._finished:
            self._finished = True
            self._counts.in_flight -= 1
            self._over(self)
