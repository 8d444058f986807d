"""The metrics of a fleet in Prometheus' text format. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from edge.telemetry.families import Family, Histogram, Labels

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def render(families: Iterable[Family]) -> bytes:
    """The page that a scrape gets."""
    return ("\n".join(line for family in families for line in _family(family)) + "\n").encode()


def _family(family: Family) -> Iterator[str]:
    name = family.name + ("_total" if family.kind == "counter" else "")
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {family.kind}"
    for labels, value in family.points:
        if isinstance(value, Histogram):
            yield from _histogram(name, labels, value)
        else:
            yield f"{name}{_braced(labels)} {_number(value)}"


def _histogram(name: str, labels: Labels, value: Histogram) -> Iterator[str]:
    count = 0.0
    buckets = {math.inf: 0.0, **value.buckets}
    for bound, more in sorted(buckets.items()):
        count += more
        yield f"{name}_bucket{_braced({**labels, 'le': _number(bound)})} {_number(count)}"
    yield f"{name}_count{_braced(labels)} {_number(count)}"
    yield f"{name}_sum{_braced(labels)} {_number(value.sum)}"


def _braced(labels: Labels) -> str:
    pairs = [f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(value)
