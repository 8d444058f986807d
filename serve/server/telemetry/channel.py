"""What the hot path calls: one call for each request, one for each run of a model.

Everything that does not change from request to request is found once, when a channel is made.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import msgspec

from serve.server.telemetry import families as f
from serve.server.telemetry.context import Headers, Trace
from serve.server.telemetry.counters import OTHER, NoRoomError
from serve.server.telemetry.statuses import code_of

if TYPE_CHECKING:
    from serve.server.telemetry.counters import Cells

Phase = tuple[str, float, float]
"""A part of a request's time: name, begin and end, as `perf_counter` gives them."""

_SECONDS, _BYTES, _ROWS = list(f.SECONDS), list(f.BYTES), list(f.ROWS)
_SECONDS_SUM, _BYTES_SUM, _ROWS_SUM = (len(b) + 1 for b in (_SECONDS, _BYTES, _ROWS))


class Details(msgspec.Struct, gc=False):
    """What the access log and traces want to know of a request; cheap to make, and to leave out.

    Attributes:
        client: Its address, as `accesslog.quoted` has made it once for the connection.
        method: As it came.
        target: As it came: path and query.
        headers: As they came, names in lower case (gRPC: the metadata).
        principal: The id of who asks; empty where nobody knows.
        error: The code of the error that it was answered with; empty for none.
        trace: What `Telemetry.trace` gave for it, where that was asked.
        phases: Gives the parts of its time, for the spans of those that are traced.
    """

    client: bytes
    method: bytes
    target: bytes
    headers: Headers
    principal: str = ""
    error: str = ""
    trace: Trace | None = None
    phases: Callable[[], Iterable[Phase]] | None = None


class Teller(Protocol):
    """The access log, or the tracer."""

    def tell(
        self,
        channel: Channel,
        status: int,
        begun: float,
        ended: float,
        size_in: int,
        size_out: int,
        details: Details,
    ) -> None:
        """Takes a request that has been answered."""
        ...


class Channel:
    """Requests of one protocol to one version of a model, on one route.

    Made by `Telemetry.channel`; lives on the event loop's thread.

    Attributes:
        protocol: `score`, `v2`, `grpc`, ... or `http` for what is no inference.
        model: Its name; empty where there is none.
        version: Of the model.
        route: The path with its parameters' names, as in `/v2/models/{model}/infer`; for gRPC
            `package.Service/Method`.
        prefix: The constant part of its lines in the access log.
    """

    __slots__ = (
        "_cells", "_codes", "_duration", "_in", "_out", "_store", "_tellers", "model", "prefix",
        "protocol", "route", "version",
    )  # fmt: skip

    def __init__(
        self,
        cells: Cells,
        tellers: tuple[Teller, ...],
        *,
        protocol: str,
        model: str = "",
        version: str = "",
        route: str = "",
    ) -> None:
        self.protocol = protocol
        self.model = model
        self.version = version
        self.route = route
        self.prefix = b""
        self._store = cells
        self._tellers = tellers
        self._cells = cells.values
        self._duration = self._cell(f.DURATION)
        self._in = self._cell(f.SIZE_IN)
        self._out = self._cell(f.SIZE_OUT)
        self._codes: dict[int, int] = {}

    def answered(
        self,
        status: int,
        begun: float,
        size_in: int,
        size_out: int,
        details: Details | None = None,
    ) -> None:
        """Counts a request that is answered; call it right before or after the answer is written.

        Args:
            status: Of HTTP, or of gRPC in a channel of the protocol `grpc`.
            begun: `perf_counter()` when the request was whole.
            size_in: Bytes of its body.
            size_out: Bytes of the answer's body.
            details: For the access log and traces; wanted if `Telemetry.details` says so.
        """
        ended = perf_counter()
        seconds = ended - begun
        cells = self._cells
        try:
            cells[self._codes[status]] += 1.0
        except KeyError:
            cells[self._code(status)] += 1.0
        first = self._duration
        cells[first + bisect_left(_SECONDS, seconds)] += 1.0
        cells[first + _SECONDS_SUM] += seconds
        first = self._in
        cells[first + bisect_left(_BYTES, size_in)] += 1.0
        cells[first + _BYTES_SUM] += size_in
        first = self._out
        cells[first + bisect_left(_BYTES, size_out)] += 1.0
        cells[first + _BYTES_SUM] += size_out
        if details is not None:
            for teller in self._tellers:
                teller.tell(self, status, begun, ended, size_in, size_out, details)

    def failed(self, kind: str) -> None:
        """Counts an error by its code; call it beside `answered`, not instead of it."""
        self._cells[self._cell(f.ERRORS, kind)] += 1.0

    def _code(self, status: int) -> int:
        """The cell of a status that this channel has not seen yet."""
        cell = self._cell(f.REQUESTS, code_of(self.protocol, status))
        self._codes[status] = cell
        return cell

    def _cell(self, family: f.Family, *more: str) -> int:
        try:
            return self._store.block(family, self.model, self.version, self.protocol, *more)
        except NoRoomError:
            return self._store.block(family, OTHER, "", self.protocol, *more)


class UncountedChannel(Channel):
    """A channel of a server without metrics: it only tells the access log and traces."""

    __slots__ = ()

    def answered(
        self,
        status: int,
        begun: float,
        size_in: int,
        size_out: int,
        details: Details | None = None,
    ) -> None:
        """Tells of a request that is answered; see `Channel.answered`."""
        if details is not None:
            ended = perf_counter()
            for teller in self._tellers:
                teller.tell(self, status, begun, ended, size_in, size_out, details)


class ModelMeter:
    """What is counted of one loaded model, whoever asks it. Made by `Telemetry.model`.

    Two may count for the same model while one takes the other's place.

    Attributes:
        depth: Says how many requests wait for it; set by its owner, asked twice a second.
        depth_cell: Where the sum of these is kept.
        gone: The model is not there any more.
    """

    __slots__ = (
        "_cells", "_is_loaded", "_load_s", "_loaded", "_requests", "_rows", "_runs", "_store",
        "_who", "depth", "depth_cell", "gone",
    )  # fmt: skip

    def __init__(self, cells: Cells, name: str, version: str, runtime: str, form: str) -> None:
        self.depth: Callable[[], int] | None = None
        self.gone = self._is_loaded = False
        self._store = cells
        self._cells = cells.values
        self._who = name, version
        self._rows = cell(cells, f.BATCH_ROWS, name, version)
        self._runs = cell(cells, f.RUN_SECONDS, name, version)
        self._requests = cell(cells, f.BATCH_REQUESTS, name, version)
        self.depth_cell = cell(cells, f.QUEUE, name, version)
        self._load_s = cell(cells, f.LOAD_SECONDS, name, version)
        self._loaded = cell(cells, f.LOADED, name, version, runtime, form)

    def ran(self, requests: int, rows: int, seconds: float) -> None:
        """Counts one run of the model, on the event loop's thread.

        Args:
            requests: How many it answered.
            rows: How many rows it had.
            seconds: How long it took.
        """
        cells = self._cells
        first = self._rows
        cells[first + bisect_left(_ROWS, rows)] += 1.0
        cells[first + _ROWS_SUM] += rows
        first = self._runs
        cells[first + bisect_left(_SECONDS, seconds)] += 1.0
        cells[first + _SECONDS_SUM] += seconds
        cells[self._requests] += requests

    def loaded(self, seconds: float) -> None:
        """The model is there now; it took that long."""
        if not self._is_loaded:
            self._is_loaded = True
            self._cells[self._loaded] += 1.0
        self._cells[self._load_s] = seconds
        self._cells[cell(self._store, f.LOADS, *self._who, "ok")] += 1.0

    def load_failed(self) -> None:
        """It could not be loaded."""
        self.gone = True
        self._cells[cell(self._store, f.LOADS, *self._who, "failed")] += 1.0

    def unloaded(self) -> None:
        """The model takes no more requests, and is not asked for its depth once it is empty."""
        self.gone = True
        if self._is_loaded:
            self._is_loaded = False
            self._cells[self._loaded] -= 1.0


def cell(cells: Cells, family: f.Family, *labels: str) -> int:
    """The first cell of a family's samples; where there is no room, of `other`'s."""
    try:
        return cells.block(family, *labels)
    except NoRoomError:
        return cells.block(family, *(OTHER for _ in labels))
