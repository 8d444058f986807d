"""One request on its way: to a deployment, to another one where that is safe, and back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from scoring.errors import FieldpostError, ScoringTimeoutError, TargetError, UnreachableError
from serve.endpoints.front import heads
from serve.endpoints.front.stats import CLIENT_GONE
from serve.server import wire
from serve.server.status import status_of

if TYPE_CHECKING:
    from serve.endpoints.front.backend import Backend
    from serve.endpoints.front.downstream import Downstream
    from serve.endpoints.front.front import Front
    from serve.endpoints.front.upstream import Upstream

MOST_WAITING_BYTES = 1 << 18
"""Of a request's body that wait for the deployment before its client is held back."""

_MOST_ATTEMPTS = 4


@dataclass(slots=True, eq=False)
class Request:
    """A request as it is read; `parts` wait to be sent on."""

    method: bytes = b""
    target: bytes = b""
    headers: heads.Fields = field(default_factory=list)
    length: int | None = 0
    old: bool = False
    keep_alive: bool = True
    expects: bool = False
    parts: list[bytes] = field(default_factory=list)
    waiting: int = 0
    complete: bool = False


class Exchange:
    """A request and its answer. It is the `Sink` of the connection that carries it.

    Args:
        front: What all clients share.
        client: Whose request it is.
        request: Its head is whole.
    """

    def __init__(self, front: Front, client: Downstream, request: Request) -> None:
        self.method = request.method
        self.request = request
        self.answering = False
        self.finished = False
        self._front = front
        self._client = client
        self._begun = front.now()
        self._backend: Backend | None = None
        self._upstream: Upstream | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._tried: set[str] = set()
        self._attempts = 0
        self._status = 0
        self._chunked = False
        self._paused = False
        self._ended_body = False
        self._turned_away = False
        # What was sent already, for another attempt or a copy; None: it has become too long.
        self._sent: list[bytes] | None = []
        self._sent_bytes = 0
        self._most = front.most_kept
        self._shadows = front.draw_shadows()

    # The way there

    def start(self) -> None:
        """Sends it to a deployment."""
        self._go()

    def pump(self) -> None:
        """Sends on what has come of the body since."""
        if self._upstream is not None and not self._paused and not self.finished:
            data = self._take_parts()
            if data:
                self._upstream.write(data)
        self._shade()

    @property
    def is_full(self) -> bool:
        """Whether the client has to wait before it sends more."""
        return self._paused or self.request.waiting > MOST_WAITING_BYTES

    def _go(self, *, fresh: bool = False) -> None:
        now = self._front.now()
        name = self._front.router.choose(
            self.request.headers,
            self._front.draw,
            without=self._tried,
            prefer=lambda each: self._front.backends[each].seems_up(now),
        )
        if name is None or self._attempts >= _MOST_ATTEMPTS:
            self._refuse(self._nobody())
            return
        self._attempts += 1
        self._backend = backend = self._front.backends[name]
        backend.counts.in_flight += 1
        upstream = None if fresh else backend.take()
        if upstream is not None:
            self._send(upstream)
        else:
            self._connecting = asyncio.ensure_future(self._connect(backend))

    async def _connect(self, backend: Backend) -> None:
        try:
            upstream = await backend.connect(self._front.settings.connect_timeout_s)
        except (OSError, ValueError):  # a time-out, and what is not believed, included
            self._connecting = None
            backend.failed(self._front.now())
            self._give_up("connect", backend)
            self._tried.add(backend.name)
            if not self.finished:
                self._again()
            return
        self._connecting = None
        if self.finished:
            backend.keep(upstream)
            return
        self._send(upstream)

    def _send(self, upstream: Upstream) -> None:
        assert self._backend is not None
        self._upstream = upstream
        self._paused = False
        upstream.use(self)
        head = heads.request(
            self.method,
            self.request.target,
            self.request.headers,
            address=self._client.address,
            tls=self._client.tls,
            length=self.request.length,
        )
        before = b"".join(self._framed(part) for part in self._sent or ())
        ended = wire.LAST_CHUNK if self._ended_body and self.request.length is None else b""
        upstream.write(head + before + ended + self._take_parts())
        if self.request.expects and not self.request.complete:
            self._client.invite()
        self._shade()
        self._client.steer()

    def _take_parts(self) -> bytes:
        """What is to be sent now; it is kept while it is short enough to be sent again."""
        request = self.request
        out = b""
        if request.parts:
            parts, request.parts, request.waiting = request.parts, [], 0
            self._remember(parts)
            out = b"".join(map(self._framed, parts))
        if request.complete and not self._ended_body:
            self._ended_body = True
            if request.length is None:
                out += wire.LAST_CHUNK
        return out

    def _framed(self, part: bytes) -> bytes:
        return wire.chunk(part) if self.request.length is None else part

    def _remember(self, parts: list[bytes]) -> None:
        if self._sent is None:
            return
        self._sent_bytes += sum(map(len, parts))
        if self._sent_bytes > self._most:
            self._sent = None
        else:
            self._sent += parts

    def _shade(self) -> None:
        """Sends the copies, once the request itself is on its way and whole."""
        if not self._shadows or not self._ended_body:
            return
        names, self._shadows = self._shadows, ()
        body = b"".join(self._sent) if self._sent is not None else None
        for name in names:
            self._front.shadowing.send(name, self.request, body, self._client)

    # The way back: `serve.endpoints.front.upstream.Sink`

    def head(self, status: int, reason: bytes, headers: heads.Fields, *, sized: bool) -> None:
        """The answer begins: from here on no other deployment can give it."""
        assert self._backend is not None
        if self._sent is not None and _turned_away(status, headers):
            self._turned_away = True
            return
        self._backend.answered()
        self.answering = True
        self._sent = None if not self._shadows else self._sent
        self._status = status
        self._chunked = not sized and not self.request.old
        self._client.begin_answer(
            heads.response(
                status,
                reason or b"OK",
                headers,
                deployment=self._backend.label,
                chunked=self._chunked,
                connection=self._client.connection_value(
                    self.request, lasts=sized or self._chunked
                ),
            )
        )

    def data(self, part: bytes) -> None:
        """A part of the answer's body."""
        if not self._turned_away:
            self._client.add(wire.chunk(part) if self._chunked else part)

    def flush(self) -> None:
        """Hands on what has been read."""
        if self.answering:
            self._client.flush()

    def done(self) -> None:
        """The answer is whole."""
        assert self._backend is not None
        assert self._upstream is not None
        if self._turned_away:
            self._ask_another(self._backend)
            return
        upstream, self._upstream = self._upstream, None
        upstream.release()
        if upstream.usable and self._ended_body:
            self._backend.keep(upstream)
        else:
            upstream.close()
        if self._chunked:
            self._client.add(wire.LAST_CHUNK)
        self._settle(self._status)
        self._client.flush()
        self._client.answered(self)

    def lost(self, reason: str) -> None:
        """The connection ended before the answer was whole."""
        backend, upstream = self._backend, self._upstream
        assert backend is not None
        assert upstream is not None
        self._upstream = None
        if self.answering:
            self._give_up(reason, backend)
            self.finished = True
            self._client.abort()  # the client sees that it was cut off
            return
        untouched = reason == "cut" and not upstream.has_reached()
        stale = reason == "cut" and upstream.reused
        if untouched and stale:  # the ordinary end of a connection that was idle
            self._leave(backend)
            backend.counts.retries += 1
            self._again(fresh=True)
            return
        self._give_up(reason, backend)
        if self._may_repeat(reason) and self._sent is not None:
            backend.counts.retries += 1
            self._tried.add(backend.name)
            self._again()
        else:
            self._refuse(
                TargetError(
                    f"The deployment {backend.name!r} ended the connection without an answer."
                    if reason == "cut"
                    else f"The deployment {backend.name!r} answered with what is not HTTP.",
                    hint="The request may have been computed: send it again if that does no harm.",
                )
            )

    def pause(self) -> None:
        """The deployment reads slowly: the client has to wait."""
        self._paused = True
        self._client.steer()

    def resume(self) -> None:
        """It takes more."""
        self._paused = False
        self.pump()
        self._client.steer()

    def hold_answer(self, *, hold: bool) -> None:
        """The client reads slowly: the deployment has to wait."""
        if self._upstream is not None:
            if hold:
                self._upstream.pause_reading()
            else:
                self._upstream.resume_reading()

    # Ends

    def expire(self) -> None:
        """The deployment has not answered in time."""
        backend = self._backend
        self._drop_upstream()
        if backend is None or self.finished:
            return
        self._give_up("timeout", backend)
        if self.answering:
            self.finished = True
            self._client.abort()
            return
        seconds = self._front.settings.response_timeout_s
        self._refuse(
            ScoringTimeoutError(
                f"The deployment {backend.name!r} did not answer within {seconds:g} s.",
                hint="Send less at once, or raise response_timeout_s of the endpoint.",
            )
        )

    def abandon(self) -> None:
        """The client has left."""
        if not self.finished:
            self._drop_upstream()
            self._settle(CLIENT_GONE)

    def _again(self, *, fresh: bool = False) -> None:
        self._go(fresh=fresh)

    def _ask_another(self, backend: Backend) -> None:
        """The deployment is about to stop, and has not looked at the request."""
        self._drop_upstream()
        self._turned_away = False
        backend.failed(self._front.now())
        backend.counts.retries += 1
        self._give_up("connect", backend)
        self._tried.add(backend.name)
        self._again()

    def _may_repeat(self, reason: str) -> bool:
        if reason != "cut":
            return False
        return (self.method in heads.IDEMPOTENT or self._front.settings.retry == "unanswered") or (
            self._upstream is not None and not self._upstream.has_reached()
        )

    def _drop_upstream(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None

    def _leave(self, backend: Backend) -> None:
        backend.counts.in_flight -= 1
        self._backend = None

    def _give_up(self, reason: str, backend: Backend) -> None:
        backend.counts.failed(reason)
        self._leave(backend)

    def _settle(self, status: int) -> None:
        if self.finished:
            return
        self.finished = True
        if self._backend is not None:
            self._backend.counts.answered(status, self._front.now() - self._begun)
            self._leave(self._backend)

    def _nobody(self) -> FieldpostError:
        tried = ", ".join(sorted(self._tried))
        return UnreachableError(
            f"No deployment of this endpoint can be reached{f' (tried {tried})' * bool(tried)}.",
            hint="Try again in a moment; 'fieldpost endpoint show' says what is the matter.",
        )

    def _refuse(self, error: FieldpostError) -> None:
        if not self.finished:
            self.finished = True
            self._front.refused(status_of(error))
            self._client.refuse(error, self)


def _turned_away(status: int, headers: heads.Fields) -> bool:
    unavailable = HTTPStatus.SERVICE_UNAVAILABLE
    return status == unavailable and any(name == heads.TURNED_AWAY for name, _ in headers)
