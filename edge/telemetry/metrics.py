"""What a worker's page of metrics says, and what has changed since the last one. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

_SAMPLE: Final = re.compile(
    r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\})? (\S+)(?: \S+)?"
)
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')
_ESCAPED: Final = re.compile(r"\\(.)")
_MOST_SAMPLES: Final = 20_000

_REQUESTS: Final = "fieldpost_requests_total"
_SECONDS: Final = "fieldpost_request_duration_seconds"
_ROWS: Final = "fieldpost_batch_rows_sum"
_RUN_S: Final = "fieldpost_model_run_seconds_sum"
_REJECTED: Final = "fieldpost_rejected_total"
_NO_INFERENCE: Final = "http"
_INFINITE: Final = "+Inf"
_SERVER_SIDE: Final = frozenset(
    {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "UNIMPLEMENTED"}
)


class Sample(NamedTuple):
    """One line of a page.

    Attributes:
        name: Of the metric.
        labels: Their names and values.
        value: The number.
    """

    name: str
    labels: dict[str, str]
    value: float


class Traffic(NamedTuple):
    """What a worker answered: since its start, or between two looks.

    Attributes:
        requests: To the model.
        errors: Answered with an error of the server, the model or the script.
        refused: Answered with an error of who asked.
        rejected: Turned away before the model saw them.
        rows: Of all runs of the model.
        seconds: That requests took, added up.
        run_s: That runs of the model took, added up.
        latency: Upper bound in seconds to the number of requests that took at most that, and more
            than the bound before.
    """

    requests: float = 0.0
    errors: float = 0.0
    refused: float = 0.0
    rejected: float = 0.0
    rows: float = 0.0
    seconds: float = 0.0
    run_s: float = 0.0
    latency: Mapping[float, float] = {}

    def since(self, before: Traffic) -> Traffic:
        """What came after an earlier look; all of it, where the counters began anew."""
        if any(now < then for now, then in zip(self[:-1], before[:-1], strict=True)):
            return self
        numbers = [now - then for now, then in zip(self[:-1], before[:-1], strict=True)]
        latency = {
            bound: count - before.latency.get(bound, 0.0) for bound, count in self.latency.items()
        }
        return _made(numbers, {bound: n for bound, n in latency.items() if n > 0})

    def plus(self, other: Traffic) -> Traffic:
        """Both together."""
        numbers = [a + b for a, b in zip(self[:-1], other[:-1], strict=True)]
        bounds = sorted({*self.latency, *other.latency})
        latency = {b: self.latency.get(b, 0.0) + other.latency.get(b, 0.0) for b in bounds}
        return _made(numbers, latency)

    def quantile(self, part: float) -> float:
        """The bound below which this part of the requests was answered; 0 where there were none."""
        total = sum(self.latency.values())
        count = 0.0
        for bound, number in sorted(self.latency.items()):
            count += number
            if number and count >= part * total:
                return bound
        return 0.0

    def to_dict(self) -> dict[str, object]:
        """For a record: what is zero is left out."""
        found: dict[str, object] = {
            name: round(value, 6)
            for name, value in zip(self._fields[:-1], self[:-1], strict=True)
            if value
        }
        if self.latency:
            found["latency"] = {_bound(b): n for b, n in sorted(self.latency.items()) if n}
        return found


def _made(numbers: Iterable[float], latency: Mapping[float, float]) -> Traffic:
    named = dict(zip(Traffic._fields[:-1], numbers, strict=True))
    return Traffic(**named, latency=latency)


def from_dict(data: Mapping[str, object]) -> Traffic:
    """What `Traffic.to_dict` has made; what is no number counts as 0."""
    numbers = [_number(data.get(name, 0.0)) for name in Traffic._fields[:-1]]
    table = data.get("latency")
    latency = {
        bound: _number(count)
        for text, count in (table.items() if isinstance(table, Mapping) else ())
        if not math.isnan(bound := _parsed(str(text)))
    }
    return _made(numbers, latency)


def parse(text: str) -> list[Sample]:
    """The samples of a page in Prometheus' text format; lines that are none are left out."""
    found = []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(line.strip())
        value = _parsed(match[3]) if match else math.nan
        if match and not math.isnan(value):
            found.append(Sample(match[1], _labels(match[2] or ""), value))
            if len(found) >= _MOST_SAMPLES:
                break
    return found


def traffic(samples: Iterable[Sample]) -> Traffic:
    """What a page says of inference; health checks and scrapes are none."""
    numbers = dict.fromkeys(Traffic._fields[:-1], 0.0)
    buckets: dict[float, float] = {}
    for name, labels, value in samples:
        if labels.get("protocol") == _NO_INFERENCE:
            continue
        if name == f"{_SECONDS}_bucket":
            bound = _parsed(labels.get("le", ""))
            buckets[bound] = buckets.get(bound, 0.0) + value
        for column in _columns(name, labels.get("code", "")):
            numbers[column] += value
    return Traffic(**numbers, latency=_apart(buckets))


def _columns(name: str, code: str) -> list[str]:
    plain = {
        f"{_SECONDS}_sum": "seconds",
        _ROWS: "rows",
        _RUN_S: "run_s",
        _REJECTED: "rejected",
    }
    if name != _REQUESTS:
        return [plain[name]] if name in plain else []
    if code.startswith("5") or code in _SERVER_SIDE:
        return ["requests", "errors"]
    fine = code.startswith(("1", "2", "3")) or code == "OK"
    return ["requests"] if fine else ["requests", "refused"]


def _apart(cumulative: Mapping[float, float]) -> dict[float, float]:
    """Buckets that do not contain one another."""
    found: dict[float, float] = {}
    before = 0.0
    for bound, count in sorted(cumulative.items()):
        if count > before:
            found[bound] = count - before
        before = max(before, count)
    return found


def _labels(text: str) -> dict[str, str]:
    pairs = _LABEL.findall(text)
    return {name: _ESCAPED.sub(_unescaped, value) for name, value in pairs}


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def _bound(bound: float) -> str:
    return _INFINITE if bound == math.inf else repr(bound)


def _parsed(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _number(value: object) -> float:
    number = finite(value)
    return number if number is not None and number >= 0 else 0.0


def finite(value: object) -> float | None:
    """A number of JSON, also one of 400 digits, as one to count with; None for all else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
