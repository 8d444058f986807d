"""What the small runtime counts: the same metrics as the server's, as far as it has them. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS: Final = (
    0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0,
)  # fmt: skip
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Counts:
    """Counts requests to the model.

    Args:
        model: Its name.
        version: Its version.
    """

    def __init__(self, model: str, version: str) -> None:
        names = (name.translate(_ESCAPES) for name in (model, version))
        self._model = 'model="{}",version="{}"'.format(*names)
        self._channel = f'{self._model},protocol="score"'
        self._codes: Counter[int] = Counter()
        self._kinds: Counter[str] = Counter()
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0
        self._runs, self._rows, self._run_s = 0, 0, 0.0

    def ran(self, rows: int, seconds: float) -> None:
        """A run of the model."""
        self._runs += 1
        self._rows += rows
        self._run_s += seconds

    def answered(self, status: int, seconds: float, kind: str = "") -> None:
        """An answer to a request for the model, and the code of its error."""
        self._codes[status] += 1
        if kind:
            self._kinds[kind] += 1
        place = next((n for n, bound in enumerate(_BOUNDS) if seconds <= bound), len(_BOUNDS))
        self._buckets[place] += 1
        self._seconds += seconds

    def page(self) -> bytes:
        """What a scrape gets."""
        lines = ["# TYPE fieldpost_requests_total counter"]
        for code, count in sorted(self._codes.items()):
            lines.append(f'fieldpost_requests_total{{{self._channel},code="{code}"}} {count}')
        lines.append("# TYPE fieldpost_errors_total counter")
        for kind, count in sorted(self._kinds.items()):
            lines.append(f'fieldpost_errors_total{{{self._channel},kind="{kind}"}} {count}')
        lines += self._durations()
        lines += _sum_and_count("fieldpost_batch_rows", self._model, self._rows, self._runs)
        lines += _sum_and_count("fieldpost_model_run_seconds", self._model, self._run_s, self._runs)
        return ("\n".join(lines) + "\n").encode()

    def _durations(self) -> list[str]:
        name = "fieldpost_request_duration_seconds"
        lines, count = [f"# TYPE {name} histogram"], 0
        bounds = (*(repr(bound) for bound in _BOUNDS), "+Inf")
        for bound, more in zip(bounds, self._buckets, strict=True):
            count += more
            lines.append(f'{name}_bucket{{{self._channel},le="{bound}"}} {count}')
        lines.append(f"{name}_count{{{self._channel}}} {count}")
        lines.append(f"{name}_sum{{{self._channel}}} {self._seconds!r}")
        return lines


def _sum_and_count(name: str, labels: str, total: float, count: int) -> list[str]:
    """A histogram without buckets: Prometheus calls that a summary."""
    return [
        f"# TYPE {name} summary",
        f"{name}_sum{{{labels}}} {total!r}",
        f"{name}_count{{{labels}}} {count}",
    ]
