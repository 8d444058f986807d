"""Quantities as Kubernetes writes them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from scoring.errors import UsageError
from serve.targets.kubernetes import quantities


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("500m", Decimal("0.5")),
        ("1.5Gi", 3 << 29),
        ("512Mi", 512 << 20),
        ("2k", 2000),
        ("1G", 10**9),
        ("1Ei", 1 << 60),
    ],
)
def test_numbers_with_and_without_a_unit(text: str, value: Decimal | int) -> None:
    assert quantities.parse("memory", text) == value


@pytest.mark.parametrize("text", ["", "1gb", "Gi", "1 Gi", "-1", "1e3", ".5", "1,5", "0x10", "½"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        quantities.parse("memory", text)
    assert caught.value.hint


def test_bytes_have_bounds() -> None:
    assert quantities.require_bytes("memory", "64Mi", 64 << 20) == 64 << 20
    for text in ("63Mi", "500m", "2048Pi"):
        with pytest.raises(UsageError):
            quantities.require_bytes("memory", text, 64 << 20)


def test_cores_have_thousandths() -> None:
    assert quantities.require_cores("cpu", "0.25") == Decimal("0.25")
    for text in ("0", "0.0005", "1.0001", "1000000"):
        with pytest.raises(UsageError):
            quantities.require_cores("cpu", text)


def test_mebibytes_are_rounded_up() -> None:
    assert quantities.mebibytes((1 << 20) + 1) == "2Mi"
