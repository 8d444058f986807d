"""One request, from its last byte to the end of its answer."""

from __future__ import annotations

from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from scoring.http import Request, Response
from serve.server.status import code_of, failure_response
from serve.server.wire import split_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from serve.server.access.principal import Principal
    from serve.server.protocol import Connection
    from serve.server.telemetry.channel import Channel, Details, Phase
    from serve.server.telemetry.context import Trace
    from serve.server.telemetry.telemetry import Telemetry


class Cancellable(Protocol):
    """What computes an answer."""

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        ...


class Exchange:
    """A request that waits for its answer. Everything here runs on the event loop's thread.

    Attributes:
        method: Upper case.
        path: Decoded, without the query.
        query: Raw.
        headers: As they came, names in lower case.
        body: Without transfer codings; content codings are undone by the routes.
        keep_alive: The connection may be used again.
        old: The client speaks HTTP/1.0, and knows no chunks.
        credential: What the client says who it is; see `serve.server.access`.
        principal: Who the client is; None where the server asks nobody.
        begun: In `time.perf_counter()`: when the request was whole.
        deadline: In `time.monotonic()`, from the `timeout-ms` header; infinite without it.
        target: The raw request target.
        address: Of the client.
        channel: Counts the answer; None: by the route alone.
        route: The path with the names of its parameters, for metrics.
        shape: Makes an error's answer, in the form that its protocol has.
        error: The code of the error that it is answered with; empty for none.
        job: What computes the answer, where that is not the loop itself.
        protocol: What the request counts as, where it asks no model: `http`.
    """

    __slots__ = (
        "_answered", "_connection", "_gone", "address", "begun", "body", "channel", "credential",
        "deadline", "error", "headers", "job", "keep_alive", "method", "old", "path", "phases",
        "principal", "protocol", "query", "route", "shape", "target", "trace",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        method: bytes,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes | bytearray,
        *,
        keep_alive: bool,
        old: bool = False,
        credential: bytes = b"",
        principal: Principal | None = None,
        address: str = "",
    ) -> None:
        self._connection = connection
        self._answered = False
        self._gone = False
        self.method = method.decode("ascii")
        self.path, self.query = split_target(target)
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.old = old
        self.credential = credential
        self.address = address
        self.target = target
        self.route = ""
        self.error = ""
        self.shape: Callable[[BaseException, str], Response] = failure_response
        self.channel: Channel | None = None
        self.trace: Trace | None = None
        self.phases: Callable[[], Iterable[Phase]] | None = None
        self.principal = principal
        self.protocol = "http"
        self.begun = perf_counter()
        self.deadline = inf
        self.job: Cancellable | None = None

    def header(self, name: bytes) -> str:
        """The values of a header (name in lower case), joined as HTTP allows."""
        found = b""
        for key, value in self.headers:
            if key == name:
                found = found + b", " + value if found else value
        # The parser leaves the blanks behind a value, which are none of it.
        return found.decode("latin-1").strip(" \t") if found else ""

    def request(self) -> Request:
        """The request as a plain value."""
        headers = [
            (name.decode("latin-1"), text.decode("latin-1").strip(" \t"))
            for name, text in self.headers
        ]
        return Request(self.method, self.path, self.query, headers, bytes(self.body))

    def details(self, client: bytes) -> Details:
        """What the access log and traces want to know.

        Args:
            client: The address, as the log writes it.
        """
        from serve.server.telemetry.channel import Details  # noqa: PLC0415 - only if they are on

        return Details(
            client=client,
            method=self.method.encode(),
            target=self.target,
            headers=self.headers,
            principal=self.principal.id if self.principal is not None else "",
            error=self.error,
            trace=self.trace,
            phases=self.phases,
        )

    def tell(self, telemetry: Telemetry, client: bytes, status: int, size: int) -> None:
        """Counts and logs the answer, when it has been written.

        Args:
            telemetry: The server's.
            client: The address, as the log writes it.
            status: Of the answer.
            size: Of its body; 0 where that is not known.
        """
        channel = self.channel or telemetry.channel(self.protocol, route=self.route)
        details = self.details(client) if telemetry.details else None
        channel.answered(status, self.begun, len(self.body), size, details)
        if self.error:
            channel.failed(self.error)
        self.phases = None  # of a job that knows this: no cycle is left for the collector

    def respond(self, response: Response) -> None:
        """Answers; a second answer, or one to a client that has gone, is dropped."""
        self.channel = getattr(self.job, "channel", None) or self.channel
        if self.trace is not None:
            self.phases = getattr(self.job, "phases", None)
        self.job = None
        if self._gone or self._answered:
            self._connection.hub.discard(response)
        else:
            self._answered = True
            self._connection.answer(self, response)

    def fail(self, error: BaseException) -> None:
        """Answers with an error; one that is not in our tree is logged and told as internal."""
        self.error = code_of(error)
        self.respond(self.shape(error, f"{self.method} {self.path}"))

    def settle(self, response: Response | None, error: BaseException | None) -> None:
        """Answers with what a job brought."""
        if error is not None or response is None:
            self.fail(error or RuntimeError("a job returned no response"))
        else:
            self.respond(response)

    def abandon(self) -> None:
        """The client has gone: what has not begun is not computed."""
        self._gone = True
        if self.job is not None:
            self.job.cancel()
