"""Steps of an encoding as data: their widths, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scoring.errors import CircuitError
from scoring.quantum.features import (
    Constant,
    Encoding,
    Power,
    Product,
    Round,
    Scale,
    Step,
    qubits_for,
)


@pytest.mark.parametrize(
    ("steps", "width"),
    [
        ((), 3),
        ((Product(),), 4),
        ((Constant((1.0, 2.0)), Product()), 6),
        ((Power(1),), 3),
        ((Power(2),), 16),
        ((Product(), Power(3)), 64),
        ((Scale((0.0,) * 3, (1.0,) * 3), Round(0.1)), 3),
    ],
)
def test_how_wide_rows_become(steps: tuple[Step, ...], width: int) -> None:
    assert Encoding(3, steps).width() == width


@pytest.mark.parametrize(("width", "qubits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10)])
def test_how_many_qubits_hold_them(width: int, qubits: int) -> None:
    assert qubits_for(width) == qubits


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scale((float("nan"),), (1.0,)), "offset of a scale step is nan"),
        (lambda: Scale((1.0,), (float("inf"),)), "factor of a scale step is inf"),
        (lambda: Constant(()), "appends no value"),
        (lambda: Constant((True,)), "is True"),
        (lambda: Product(float("nan")), "scale of a product step"),
        (lambda: Power(0), "0 copies"),
        (lambda: Power(2.5), "2.5 copies"),  # type: ignore[arg-type]
        (lambda: Power(31), "31 copies"),
        (lambda: Round(0.0), "has to be over 0"),
        (lambda: Encoding(0), "rows of 0 features"),
        (lambda: Encoding(2, (Scale((1.0,), (1.0,)),)), "1 numbers as its offset, for 2"),
        (lambda: Encoding(2, (Scale((1.0, 1.0), (1.0,)),)), "1 numbers as its factor, for 2"),
        (lambda: Encoding(1024, (Power(4),)), "Use fewer tensor powers"),
    ],
)
def test_what_is_no_step(make: Callable[[], object], message: str) -> None:
    with pytest.raises(CircuitError) as caught:
        make()
    assert message in f"{caught.value} {caught.value.hint}"
