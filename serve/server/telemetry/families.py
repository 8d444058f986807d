"""Every metric that workers count, with its labels and buckets: the one table of them. Pure.

A family's samples lie in cells: one for a counter or a gauge; for a histogram one for each bucket,
one for what is above them all, and the sum. The names are written out in docs/reference/metrics.md,
and a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SECONDS = (
    0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0,
)  # fmt: skip
BYTES = tuple(float(64 << 2 * step) for step in range(11))
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0)

_CHANNEL = ("model", "version", "protocol")
_MODEL = ("model", "version")


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One metric.

    Attributes:
        name: Without the `_total` that a counter's samples have.
        kind: Its type, as Prometheus calls it.
        help: One sentence.
        labels: Their names.
        bounds: Of a histogram's buckets, without the infinite one.
        greatest: Workers' values are not added up; the greatest one counts.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    greatest: bool = False

    @property
    def width(self) -> int:
        """How many cells the samples of one set of labels have."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


REQUESTS = Family(
    "fieldpost_requests",
    "counter",
    "Requests answered, by status (HTTP status or name of the gRPC status).",
    (*_CHANNEL, "code"),
)
DURATION = Family(
    "fieldpost_request_duration_seconds",
    "histogram",
    "Time from the last byte of a request to its answer.",
    _CHANNEL,
    SECONDS,
)
SIZE_IN = Family("fieldpost_request_bytes", "histogram", "Size of request bodies.", _CHANNEL, BYTES)
SIZE_OUT = Family(
    "fieldpost_response_bytes", "histogram", "Size of response bodies.", _CHANNEL, BYTES
)
ERRORS = Family(
    "fieldpost_errors", "counter", "Requests answered with an error, by its code.",
    (*_CHANNEL, "kind"),
)  # fmt: skip
REJECTED = Family(
    "fieldpost_rejected",
    "counter",
    "Requests and connections turned away before the model saw them, by reason.",
    ("reason",),
)
BATCH_ROWS = Family(
    "fieldpost_batch_rows", "histogram", "Rows of one run of a model.", _MODEL, ROWS
)
BATCH_REQUESTS = Family(
    "fieldpost_batch_requests", "counter", "Requests that runs of a model have answered.", _MODEL
)
RUN_SECONDS = Family(
    "fieldpost_model_run_seconds", "histogram", "Time of one run of a model.", _MODEL, SECONDS
)
QUEUE = Family(
    "fieldpost_queue_depth", "gauge", "Requests that wait for a model.", _MODEL
)  # fmt: skip
LOADED = Family(
    "fieldpost_model_loaded",
    "gauge",
    "How many workers have the model loaded.",
    (*_MODEL, "runtime", "format"),
)
LOAD_SECONDS = Family(
    "fieldpost_model_load_seconds",
    "gauge",
    "How long the last load of a model took, in the slowest worker.",
    _MODEL,
    greatest=True,
)
LOADS = Family(
    "fieldpost_model_loads", "counter", "Loads of a model, by outcome (ok or failed).",
    (*_MODEL, "outcome"),
)  # fmt: skip
LINES = Family(
    "fieldpost_access_log_lines",
    "counter",
    "Lines of the access log, by outcome (written or dropped).",
    ("outcome",),
)
SPANS = Family(
    "fieldpost_spans", "counter", "Spans of traces, by outcome (exported or dropped).",
    ("outcome",),
)  # fmt: skip
STARTS = Family("fieldpost_worker_starts", "counter", "Workers started.")
IN_FLIGHT = Family("fieldpost_in_flight", "gauge", "Requests without an answer yet.", ("worker",))
CONNECTIONS = Family("fieldpost_connections", "gauge", "Open connections.", ("worker",))

COUNTED = (
    REQUESTS, DURATION, SIZE_IN, SIZE_OUT, ERRORS, REJECTED, BATCH_ROWS, BATCH_REQUESTS,
    RUN_SECONDS, QUEUE, LOADED, LOAD_SECONDS, LOADS, LINES, SPANS, STARTS, IN_FLIGHT, CONNECTIONS,
)  # fmt: skip
"""The families that lie in cells."""

BUILD = Family("fieldpost_build_info", "gauge", "Versions, as labels.", ("version", "python"))
WORKERS = Family("fieldpost_workers", "gauge", "Workers that are alive.")
UPTIME = Family("fieldpost_uptime_seconds", "gauge", "Time since the server's first worker.")
_WORKER = ("worker",)
CPU = Family("process_cpu_seconds", "counter", "User and system time of the process.", _WORKER)
RESIDENT = Family("process_resident_memory_bytes", "gauge", "Resident memory.", _WORKER)
VIRTUAL = Family("process_virtual_memory_bytes", "gauge", "Virtual memory.", _WORKER)
STARTED = Family(
    "process_start_time_seconds", "gauge", "Start of the process, since the epoch.", _WORKER
)
OPEN_FDS = Family("process_open_fds", "gauge", "Open file descriptors.", _WORKER)
MAX_FDS = Family("process_max_fds", "gauge", "How many file descriptors may be open.", _WORKER)

COMPUTED = (
    BUILD, WORKERS, UPTIME, CPU, RESIDENT, VIRTUAL, STARTED, OPEN_FDS, MAX_FDS,
)  # fmt: skip
"""The families that are made at a scrape."""
