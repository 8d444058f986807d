"""Quantities as Kubernetes writes them: `500m` of a core, `512Mi`."""

from __future__ import annotations

import re
from decimal import Decimal

from scoring.errors import UsageError

_MIB = 1 << 20
_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?", re.ASCII)
_DECIMAL: dict[str, Decimal | int] = {"m": Decimal("0.001"), "k": 10**3, "M": 10**6}
_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
_FACTORS: dict[str, Decimal | int] = {
    "": 1,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
    **_DECIMAL,
    **_BINARY,
}
_MOST_BYTES = 1 << 60
_MOST_CORES = 100_000


def parse(name: str, text: str) -> Decimal:
    """The number that a quantity stands for.

    Raises:
        UsageError: It is none.
    """
    found = _FORM.fullmatch(text)
    if not found:
        raise UsageError(
            f"The setting {name!r} cannot be {text!r}.",
            hint=f"Write {name}={'500m or 2' if 'cpu' in name else '512Mi or 2Gi'}.",
            where=name,
        )
    return Decimal(found[1]) * _FACTORS[found[2] or ""]


def require_bytes(name: str, text: str, least: int) -> int:
    """A number of bytes.

    Raises:
        UsageError: It is no quantity, or too small or large for anything.
    """
    value = parse(name, text)
    if text.endswith("m") or not least <= value < _MOST_BYTES:
        bound = "less than 1Ei" if value >= _MOST_BYTES else f"at least {mebibytes(least)}"
        raise UsageError(
            f"The setting {name!r} cannot be {text!r}: it has to be {bound}.",
            hint=f"Write {name}=512Mi or {name}=2Gi.",
            where=name,
        )
    return int(value)


def require_cores(name: str, text: str) -> Decimal:
    """A number of cores.

    Raises:
        UsageError: It is no quantity, not positive, or finer than a thousandth.
    """
    value = parse(name, text)
    if not Decimal("0.001") <= value <= _MOST_CORES or value * 1000 % 1:
        raise UsageError(
            f"The setting {name!r} cannot be {text!r}.",
            hint=f"Write {name}=500m or {name}=2.",
            where=name,
        )
    return value


def mebibytes(count: int) -> str:
    """Bytes as `…Mi`, rounded up."""
    return f"{-(-count // _MIB)}Mi"
