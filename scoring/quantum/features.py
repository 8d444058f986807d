"""What happens to a row of features before it becomes amplitudes: steps, as data.

A circuit carries its steps, so that a compiled model takes the raw features and nothing of a
training script is needed to serve it. Pure data: `encoding` computes them with numpy, compilers
translate them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scoring.errors import CircuitError

MAX_WIDTH = 2**30
"""More features than the widest circuit has amplitudes."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Each feature becomes `(x - offset) * factor`.

    Attributes:
        offset: One number for each feature.
        factor: One number for each feature.
    """

    offset: tuple[float, ...]
    factor: tuple[float, ...]

    def __post_init__(self) -> None:
        check_numbers("offset of a scale step", self.offset)
        check_numbers("factor of a scale step", self.factor)

    def width(self, before: int) -> int:
        """The number of features after the step."""
        for name, values in (("offset", self.offset), ("factor", self.factor)):
            if len(values) != before:
                raise CircuitError(
                    f"A scale step has {len(values)} numbers as its {name}, for {before} features.",
                    hint="Give one offset and one factor for each feature.",
                )
        return before


@dataclass(frozen=True, slots=True)
class Constant:
    """Appends features that are the same in every row; they set the scale of the others.

    Attributes:
        values: What is appended.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        check_numbers("values of a constant step", self.values)
        if not self.values:
            raise CircuitError("A constant step appends no value.", hint="Give one, or leave it.")

    def width(self, before: int) -> int:
        """The number of features after the step."""
        return before + len(self.values)


@dataclass(frozen=True, slots=True)
class Product:
    """Appends the product of all features, times `scale`.

    Attributes:
        scale: The factor of the product.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_numbers("scale of a product step", (self.scale,))

    def width(self, before: int) -> int:
        """The number of features after the step."""
        return before + 1


@dataclass(frozen=True, slots=True)
class Power:
    """The row becomes its own tensor power `x ⊗ x ⊗ …`: feature `i·width + j` is `x[i]·x[j]`.

    A row whose width is no power of two is first filled with zeros to the next one, so that each
    factor lies on qubits of its own.

    Attributes:
        times: How many copies; 1 changes nothing.
    """

    times: int

    def __post_init__(self) -> None:
        if not is_integer(self.times) or not 1 <= self.times <= 30:  # noqa: PLR2004
            raise CircuitError(f"A power step has {self.times!r} copies; it takes 1 to 30.")

    def width(self, before: int) -> int:
        """The number of features after the step."""
        return before if self.times == 1 else 2 ** (qubits_for(before) * self.times)


@dataclass(frozen=True, slots=True)
class Round:
    """Each feature is rounded to a multiple of `step`, ties to the even multiple.

    As in the Q# library, a row of four features `a, b, c, d` with `a·d = b·c` (within 1e-12) and
    `|a| > 1e-4` stays as it is: there two rotations prepare it exactly. A step of 1e-9 or less
    changes nothing.

    Attributes:
        step: The tolerance that is rounded to.
    """

    step: float

    def __post_init__(self) -> None:
        check_numbers("step of a round step", (self.step,))
        if self.step <= 0:
            raise CircuitError(f"A round step has the step {self.step}; it has to be over 0.")

    def width(self, before: int) -> int:
        """The number of features after the step."""
        return before


Step = Scale | Constant | Product | Power | Round
LEAST_ROUNDING = 1e-9
PAIR = 4
PRODUCT_TOLERANCE = 1e-12
LEAST_FIRST = 1e-4
"""Which rows `Round` leaves as they are: see there."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """From a row of features to the amplitudes of a state.

    After the steps, feature `k` is the amplitude of `|k⟩` (qubit 0 is the least significant bit of
    `k`); what is missing to a power of two is zero, the row is divided by its norm, and a row of
    zeros becomes `|0…0⟩`.

    Attributes:
        features: How many numbers a raw row has.
        steps: What is done to them, in order.
    """

    features: int
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if not is_integer(self.features) or not 1 <= self.features <= MAX_WIDTH:
            raise CircuitError(f"A circuit cannot take rows of {self.features!r} features.")
        self.width()

    def width(self) -> int:
        """The number of amplitudes that the steps yield, before zeros are appended."""
        width = self.features
        for step in self.steps:
            width = step.width(width)
            if width > MAX_WIDTH:
                raise CircuitError(
                    f"The steps make {width} numbers of {self.features} features.",
                    hint="Use fewer tensor powers.",
                )
        return width


def qubits_for(width: int) -> int:
    """The fewest qubits whose states have `width` amplitudes; at least one."""
    return max(1, (width - 1).bit_length())


def is_integer(value: object) -> bool:
    """Whether a value is a whole number and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_numbers(what: str, values: Sequence[float]) -> None:
    """Raises `CircuitError` unless all values are finite numbers."""
    for index, value in enumerate(values):
        if not _is_finite(value):
            raise CircuitError(
                f"Number {index} of the {what} is {value!r}.",
                hint="Every number of a circuit has to be finite.",
            )


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False
