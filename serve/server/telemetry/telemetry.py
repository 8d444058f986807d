"""The way in to all telemetry of a server: made once, asked for channels and meters, told the time.

    telemetry = Telemetry.from_settings(settings, loop.call_soon_threadsafe)
    channel = telemetry.channel("v2", "iris", "1", route="/v2/models/{model}/infer")   # once
    channel.answered(200, begun, size_in, size_out)                             # for each request

Everything here is for the event loop's thread, where nothing else is said.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring import __version__
from scoring.errors import UsageError
from scoring.http import Response
from serve.server.telemetry import families as f
from serve.server.telemetry import metrics, process
from serve.server.telemetry.channel import (
    Channel,
    ModelMeter,
    Teller,
    UncountedChannel,
    cell,
)
from serve.server.telemetry.counters import Cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from serve.server.exchange import Exchange
    from serve.server.settings import ServerSettings
    from serve.server.telemetry.accesslog import AccessLog
    from serve.server.telemetry.context import Headers, Trace
    from serve.server.telemetry.inputs import InputWatch
    from serve.server.telemetry.sharing import SharedCells
    from serve.server.telemetry.traces import Tracer

logger = logging.getLogger(__name__)

SLOT_VARIABLE = "FIELDPOST_WORKER_SLOT"
PATH = "/metrics"
INPUTS_PATH = "/inputs"

_SLOT = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")
_MOST_CHANNELS = 4096
_MANY_BLOCKS = 1000

Post = Callable[..., object]
"""Runs a callable on the event loop's thread (`loop.call_soon_threadsafe`)."""


class Telemetry:
    """Counts, traces and logs what a server answers. Make it with `from_settings`.

    Args:
        post: See `Post`.
        cells: Where this worker counts.
        shared: The cells of all workers, where there are several.
        log: The access log, where one is kept.
        tracer: Of traces, where they are on.
        counts: Whether metrics are on.
        inputs: Looks at what models are asked, where that is on.

    Attributes:
        details: `Channel.answered` wants `Details`: the access log or traces are on.
        traces: Traces are on: a request's `Details` want its phases.
        routes: Path to method to handler.
    """

    def __init__(
        self,
        post: Post,
        cells: Cells,
        shared: SharedCells | None = None,
        log: AccessLog | None = None,
        tracer: Tracer | None = None,
        *,
        counts: bool = True,
        inputs: InputWatch | None = None,
    ) -> None:
        self._post = post
        self._cells = cells
        self._shared = shared
        self._log = log
        self._tracer = tracer
        self._tellers: tuple[Teller, ...] = tuple(t for t in (log, tracer) if t is not None)
        self._inputs = inputs
        self._make = Channel if counts else UncountedChannel
        self._channels: dict[tuple[str, str, str, str], Channel] = {}
        self._meters: list[ModelMeter] = []
        self._gauges: list[tuple[int, Callable[[], int]]] = []
        self._copied: list[_Copied] = list(self._copies())
        self._waiting: list[tuple[Exchange, str]] = []
        self._name = shared.name if shared else "0"
        self.details = bool(self._tellers)
        self.traces = tracer is not None
        self.routes: Mapping[str, Mapping[str, Callable[[Exchange], None]]] = {
            **({PATH: {"GET": self.route}} if counts else {}),
            **({INPUTS_PATH: {"GET": inputs.route}} if inputs else {}),
        }
        cells.values[cell(cells, f.STARTS)] += 1.0

    @classmethod
    def from_settings(
        cls, settings: ServerSettings, post: Post, environment: Mapping[str, str] | None = None
    ) -> Telemetry:
        """What the settings ask for.

        Args:
            settings: Of the server.
            post: See `Post`.
            environment: With the worker's slot; the process's own if None.

        Raises:
            UsageError: The slot or the endpoint of traces is not valid, or the access log, the
                folder of metrics or a certificate for traces cannot be opened.
        """
        environment = os.environ if environment is None else environment
        slot = environment.get(SLOT_VARIABLE) or "0"
        if not _SLOT.match(slot):
            raise UsageError(
                f"{SLOT_VARIABLE} is {slot!r}.", hint="Use letters and digits.", where=SLOT_VARIABLE
            )
        counts = settings.metrics == "on"
        shared = _share(settings.metrics_dir, slot) if counts and settings.metrics_dir else None
        cells = shared.own if shared else Cells.in_memory()
        log, tracer = _open_log(settings), _open_tracer(settings)
        inputs = _open_inputs(settings)
        return cls(post, cells, shared, log, tracer, counts=counts, inputs=inputs)

    # What others ask once

    def channel(
        self, protocol: str, model: str = "", version: str = "", *, route: str = ""
    ) -> Channel:
        """What counts the requests of one protocol to one model on one route.

        Args:
            protocol: `score`, `v2`, `grpc`, ...; `http` for all that is no inference.
            model: One that the server has; empty for requests to none or to an unknown one.
            version: Of the model.
            route: The path with the names of its parameters; for gRPC `package.Service/Method`.
        """
        key = protocol, model, version, route
        known = self._channels.get(key)
        if known is None:
            if len(self._channels) >= _MOST_CHANNELS:
                self._channels.clear()
            known = self._channels[key] = self._make(
                self._cells,
                self._tellers,
                protocol=protocol,
                model=model,
                version=version,
                route=route,
            )
        return known

    def model(self, name: str, version: str, *, runtime: str = "", form: str = "") -> ModelMeter:
        """What counts the runs and loads of one version of a model; a new one for each load.

        Args:
            name: Of the model.
            version: Of the model.
            runtime: What runs it.
            form: The format of its file.
        """
        meter = ModelMeter(self._cells, name, version, runtime, form)
        self._meters.append(meter)
        return meter

    def watched(
        self, name: str, version: str, predict: Callable[[Any], dict[str, Any]]
    ) -> Callable[[Any], dict[str, Any]]:
        """The model itself, or with a look at what it is asked, where the settings say so."""
        return self._inputs.watched(name, version, predict) if self._inputs else predict

    def watch(self, *, in_flight: Callable[[], int], connections: Callable[[], int]) -> None:
        """Says how to find out what is going on; asked twice a second and at each scrape."""
        for family, ask in ((f.IN_FLIGHT, in_flight), (f.CONNECTIONS, connections)):
            self._gauges.append((cell(self._cells, family, self._name), ask))

    # What others tell

    def rejected(self, reason: str) -> None:
        """Counts a request or connection turned away: `overloaded`, `unauthorized`, ..."""
        self._cells.values[cell(self._cells, f.REJECTED, reason)] += 1.0

    def trace(self, headers: Headers) -> Trace | None:
        """The place in a trace of a request that begins; None while traces are off.

        Ask it where the code of the request shall see its context, or where the request has a
        `traceparent`; for others `Channel.answered` decides itself.
        """
        return self._tracer.begin(headers) if self._tracer else None

    def tick(self) -> None:
        """Takes down what is looked at now and then, and lets the log write; twice a second."""
        values = self._cells.values
        for gauge, ask in self._gauges:
            values[gauge] = ask()
        self._sample_queues(values)
        for copied in self._copied:
            copied.take(values)
        if self._log is not None:
            self._log.flush()

    def _sample_queues(self, values: memoryview[float]) -> None:
        depths: dict[int, int] = {}
        for meter in self._meters:
            waiting = meter.depth() if meter.depth is not None else 0
            depths[meter.depth_cell] = depths.get(meter.depth_cell, 0) + waiting
            if meter.gone and not waiting:
                meter.depth = None  # the model can be freed
        for place, depth in depths.items():
            values[place] = depth
        self._meters = [m for m in self._meters if not m.gone or m.depth is not None]

    def close(self) -> None:
        """Writes and sends what is left, within some seconds. The last call."""
        if self._tracer is not None:
            self._tracer.close()
        if self._log is not None:
            self._log.close()
        self.tick()
        if self._shared is not None:
            self._shared.close()

    # The scrape

    def route(self, exchange: Exchange) -> None:
        """Answers `GET /metrics`: where there is much to write, from a thread of its own."""
        kind = metrics.content_type(exchange.header(b"accept"))
        self.tick()
        if len(self._cells.blocks) < _MANY_BLOCKS:
            exchange.respond(_response(self.page(kind), kind))
            return
        self._waiting.append((exchange, kind))
        if len(self._waiting) == 1:
            threading.Thread(target=self._write, args=({kind},), daemon=True).start()

    def page(self, kind: str) -> bytes:
        """All metrics of all workers as text; on any one thread at a time."""
        samples: metrics.Samples = {}
        born, alive = time.time(), 0
        for name, cells, lives in self._workers():
            metrics.add(samples, cells, alive=lives)
            born = min(born, cells.born)
            if lives:
                alive += 1
                _put_process(samples, name, cells.pid)
        metrics.put(samples, f.WORKERS, alive)
        metrics.put(samples, f.UPTIME, max(time.time() - born, 0.0))
        metrics.put(samples, f.BUILD, 1, __version__, platform.python_version())
        return metrics.render(samples, kind)

    def _workers(self) -> Iterable[tuple[str, Cells, bool]]:
        return self._shared.all() if self._shared else [(self._name, self._cells, True)]

    def _write(self, kinds: set[str]) -> None:
        """Writes pages on a thread, for all who wait."""
        pages = {kind: self.page(kind) for kind in kinds}
        self._post(self._wrote, pages)

    def _wrote(self, pages: dict[str, bytes]) -> None:
        waiting, self._waiting = self._waiting, []
        for exchange, kind in waiting:
            if kind in pages:
                exchange.respond(_response(pages[kind], kind))
            else:
                self._waiting.append((exchange, kind))
        if self._waiting:
            kinds = {kind for _, kind in self._waiting}
            threading.Thread(target=self._write, args=(kinds,), daemon=True).start()

    def _copies(self) -> Iterator[_Copied]:
        """What threads count by themselves, for a cell has one writer."""
        sources: list[tuple[f.Family, str, Callable[[], int]]] = []
        if (log := self._log) is not None:
            sources += [
                (f.LINES, "written", lambda: log.written),
                (f.LINES, "dropped", lambda: log.dropped),
            ]
        if (tracer := self._tracer) is not None:
            sources += [
                (f.SPANS, "exported", lambda: tracer.exported),
                (f.SPANS, "dropped", lambda: tracer.dropped),
            ]
        for family, outcome, ask in sources:
            yield _Copied(cell(self._cells, family, outcome), ask)


class _Copied:
    """A count that is kept elsewhere, taken over into a cell that outlives this process."""

    def __init__(self, cell: int, ask: Callable[[], int]) -> None:
        self._cell = cell
        self._ask = ask
        self._seen = 0

    def take(self, values: memoryview[float]) -> None:
        count = self._ask()
        values[self._cell] += count - self._seen
        self._seen = count


def _share(folder: str, slot: str) -> SharedCells:
    from serve.server.telemetry.sharing import SharedCells  # noqa: PLC0415 - one worker needs none

    try:
        return SharedCells(Path(folder), slot)
    except OSError as error:
        raise UsageError(
            f"The folder of metrics {folder} cannot be used: {error.strerror}.",
            hint="Give a folder that every worker can write to.",
            where="metrics_dir",
        ) from error


def _open_log(settings: ServerSettings) -> AccessLog | None:
    if settings.access_log == "off":
        return None
    from serve.server.telemetry.accesslog import AccessLog  # noqa: PLC0415 - most servers keep none

    return AccessLog.open(settings.access_log)


def _open_tracer(settings: ServerSettings) -> Tracer | None:
    if not settings.traces:
        return None
    from serve.server.telemetry import scripts  # noqa: PLC0415 - most servers trace nothing
    from serve.server.telemetry.traces import Tracer  # noqa: PLC0415

    scheme = "https" if settings.tls_cert else "http"
    tracer = Tracer.open(settings.traces, settings.trace_ratio, settings.server_name, scheme)
    scripts.connect(tracer)
    return tracer


def _open_inputs(settings: ServerSettings) -> InputWatch | None:
    if settings.inputs == "off":
        return None
    from serve.server.telemetry.inputs import InputWatch  # noqa: PLC0415 - most servers look not

    return InputWatch(settings.payload_ratio)


def _response(page: bytes, kind: str) -> Response:
    return Response(200, page, [("content-type", kind)])


def _put_process(samples: metrics.Samples, name: str, pid: int) -> None:
    info = process.read(pid)
    if info is None:
        return
    for family, value in (
        (f.CPU, info.cpu_s),
        (f.RESIDENT, info.resident_bytes),
        (f.VIRTUAL, info.virtual_bytes),
        (f.STARTED, info.started_s),
        (f.OPEN_FDS, info.open_fds),
        (f.MAX_FDS, info.max_fds),
    ):
        metrics.put(samples, family, value, name)
