"""What a scrape gets: all workers' cells added up, and written as Prometheus reads it. Pure.

Written here and not by `prometheus_client`, whose import costs 15 MiB in every worker; the tests
read it with that library's parsers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from serve.server.telemetry.families import COMPUTED, COUNTED, Family

if TYPE_CHECKING:
    from serve.server.telemetry.counters import Cells, Labels

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Samples = dict[Family, dict["Labels", list[float]]]
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def content_type(accept: str) -> str:
    """The better of the two formats for a client, by its `Accept` header."""
    qualities = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if kind in qualities:
            qualities[kind] = max(qualities[kind], _quality(parameters))
    openmetrics, text = qualities.values()
    return OPENMETRICS if openmetrics > text else TEXT


def add(samples: Samples, cells: Cells, *, alive: bool) -> None:
    """Adds a worker's cells to the samples; of one that has gone, only what it has counted."""
    for (family, labels), first in list(cells.blocks.items()):
        if family.kind == "gauge" and not alive:
            continue
        values = cells.read(family, first)
        table = samples.setdefault(family, {})
        known = table.get(labels)
        if known is None:
            table[labels] = values
        elif family.greatest:
            table[labels] = [max(pair) for pair in zip(known, values, strict=True)]
        else:
            table[labels] = [a + b for a, b in zip(known, values, strict=True)]


def put(samples: Samples, family: Family, value: float | None, *labels: str) -> None:
    """Adds a sample that no worker has counted; None is left out."""
    if value is not None:
        samples.setdefault(family, {})[labels] = [value]


def render(samples: Mapping[Family, Mapping[Labels, list[float]]], kind: str) -> bytes:
    """The samples as text.

    Args:
        samples: Of each family, the cells of each set of labels.
        kind: `TEXT` or `OPENMETRICS`.
    """
    lines: list[str] = []
    for family in (*COUNTED, *COMPUTED):
        table = samples.get(family)
        if table:
            lines += _family(family, table, openmetrics=kind == OPENMETRICS)
    if kind == OPENMETRICS:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode()


def _family(
    family: Family, table: Mapping[Labels, list[float]], *, openmetrics: bool
) -> Iterable[str]:
    sample = family.name + ("_total" if family.kind == "counter" else "")
    name = family.name if openmetrics else sample
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {family.kind}"
    for labels, values in sorted(table.items()):
        pairs = [
            f'{key}="{_escape(text)}"' for key, text in zip(family.labels, labels, strict=True)
        ]
        if family.kind == "histogram":
            yield from _histogram(family, ",".join(pairs), values)
        else:
            yield f"{sample}{_braced(','.join(pairs))} {number(values[0])}"


def _histogram(family: Family, pairs: str, values: list[float]) -> Iterable[str]:
    *buckets, total = values
    bounds = (*(repr(bound) for bound in family.bounds), "+Inf")
    before = f"{pairs}," if pairs else ""
    count = 0.0
    for bound, more in zip(bounds, buckets, strict=True):
        count += more
        yield f'{family.name}_bucket{{{before}le="{bound}"}} {number(count)}'
    yield f"{family.name}_count{_braced(pairs)} {number(count)}"
    yield f"{family.name}_sum{_braced(pairs)} {number(total)}"


def number(value: float) -> str:
    """A value as both formats take it; whole ones without a fraction."""
    if value in {float("inf"), float("-inf")}:
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(value)


def _braced(pairs: str) -> str:
    return f"{{{pairs}}}" if pairs else ""


def _escape(label: str) -> str:
    return label.translate(_ESCAPES)


def _quality(parameters: list[str]) -> float:
    text = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    try:
        return float(text)
    except ValueError:
        return 0.0
