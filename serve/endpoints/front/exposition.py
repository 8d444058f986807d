"""A front's counts in the text format of Prometheus. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from serve.endpoints.front.stats import BOUNDS_S

if TYPE_CHECKING:
    from serve.endpoints.front.stats import Counts, Report

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX = "fieldpost_endpoint_"
Sample = tuple[str, dict[str, str], float]


def render(endpoint: str, report: Report) -> bytes:
    """All metrics of an endpoint.

    Args:
        endpoint: Its name, which labels every sample.
        report: Of all its workers.
    """
    lines: list[str] = []
    for name, kind, text, samples in _families(report):
        lines += [f"# HELP {_PREFIX}{name} {text}", f"# TYPE {_PREFIX}{name} {kind}"]
        lines += [
            _line(suffix, {"endpoint": endpoint, **labels}, v) for suffix, labels, v in samples
        ]
    return ("\n".join(lines) + "\n").encode()


def _families(report: Report) -> Iterator[tuple[str, str, str, list[Sample]]]:
    served = sorted(report.backends.items())
    yield "requests_total", "counter", "Answers of deployments, by status.", _statuses(served)
    yield (
        *("request_seconds", "histogram", "From a request's head to the end of its answer."),
        [sample for name, counts in served for sample in _histogram(name, counts)],
    )
    yield (
        *("failures_total", "counter", "Requests that a deployment gave no answer to."),
        [
            ("failures_total", {"deployment": name, "reason": reason}, count)
            for name, counts in served
            for reason, count in sorted(counts.failures.items())
        ],
    )
    for attribute, kind, text in (
        ("retries", "counter", "Requests that were sent once more."),
        ("tunnels", "counter", "HTTP/2 connections that were passed through."),
        ("in_flight", "gauge", "Requests under way."),
    ):
        family = f"{attribute}_total" if kind == "counter" else attribute
        yield (
            *(family, kind, text),
            [(family, {"deployment": n}, getattr(counts, attribute)) for n, counts in served],
        )
    yield "weight", "gauge", "The share of a deployment.", _gauges("weight", report.weights)
    yield "up", "gauge", "Whether a deployment is believed to answer.", _gauges("up", report.up)
    yield "shadow_requests_total", "counter", "Copies of requests.", list(_shadows(report))
    yield (
        *("refused_total", "counter", "Requests that went to no deployment."),
        [("refused_total", {"status": str(s)}, n) for s, n in sorted(report.refused.items())],
    )
    yield (
        *("connections", "gauge", "Open connections of clients."),
        [("connections", {}, report.connections)],
    )


def _statuses(served: Iterable[tuple[str, Counts]]) -> list[Sample]:
    return [
        ("requests_total", {"deployment": name, "status": str(status)}, count)
        for name, counts in served
        for status, count in sorted(counts.statuses.items())
    ]


def _histogram(name: str, counts: Counts) -> Iterator[Sample]:
    total = 0
    for bound, count in zip((*BOUNDS_S, "+Inf"), counts.buckets, strict=True):
        total += count
        yield "request_seconds_bucket", {"deployment": name, "le": str(bound)}, total
    yield "request_seconds_sum", {"deployment": name}, counts.seconds
    yield "request_seconds_count", {"deployment": name}, total


def _gauges(name: str, values: dict[str, int] | dict[str, bool]) -> list[Sample]:
    return [(name, {"deployment": key}, int(value)) for key, value in sorted(values.items())]


def _shadows(report: Report) -> Iterator[Sample]:
    for name, shadow in sorted(report.shadows.items()):
        outcomes = {
            "succeeded": shadow.counts.successes,
            "failed": shadow.counts.requests - shadow.counts.successes,
            "dropped": shadow.dropped,
        }
        for outcome, count in outcomes.items():
            yield "shadow_requests_total", {"deployment": name, "outcome": outcome}, count


def _line(name: str, labels: dict[str, str], value: float) -> str:
    # Names of deployments and headers of statuses hold nothing that would need an escape.
    inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
    return (
        f"{_PREFIX}{name}{{{inside}}} {value:g}"
        if value != int(value)
        else (f"{_PREFIX}{name}{{{inside}}} {int(value)}")
    )
