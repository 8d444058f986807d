"""Nested lists element by element: the exact way, that finds the place of what is wrong.

Without numpy: `arrays` makes arrays of what is collected here, and small servers go on with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scoring.errors import InputError, MissingValueError, WrongShapeError, WrongTypeError
from scoring.payload.places import quoted
from scoring.payload.words import kind_of, shape_text

if TYPE_CHECKING:
    from scoring.payload.places import Index, Place
    from scoring.schema import TensorSpec

Leaf = Callable[[Any, "TensorSpec"], Any]
"""Checks one element. The messages of its errors begin with the verb; the walk adds the subject."""


class Walk:
    """One pass over nested lists that collects the elements and the sizes of the dimensions."""

    def __init__(self, spec: TensorSpec, place: Place, leaf: Leaf) -> None:
        self.spec = spec
        self.place = place
        self.leaf = leaf
        self.sizes: list[int | None] = list(spec.shape)
        self.flat: list[Any] = []

    def down(self, value: Any, axis: int, index: Index) -> None:
        """Collects the elements below one index."""
        if axis == len(self.sizes):
            self.flat.append(self._element(value, index))
            return
        if not isinstance(value, list):
            raise self._not_a_list(value, axis, index)
        self._check_size(len(value), axis, index)
        for number, inner in enumerate(value):
            self.down(inner, axis + 1, (*index, number))

    def _check_size(self, size: int, axis: int, index: Index) -> None:
        wanted = self.sizes[axis]
        if wanted is None and size:
            self.sizes[axis] = size
        elif size == 0 or size != wanted:
            raise self._wrong_size(size, wanted, axis, self.place.at(index))

    def _wrong_size(self, size: int, wanted: int | None, axis: int, where: str) -> InputError:
        if size == 0:
            return WrongShapeError(
                f"{where} is empty.", hint="Send at least one row of values.", where=where
            )
        fixed = self.spec.shape[axis] is not None
        reason = f"{self.spec.name!r} takes {wanted}" if fixed else f"those before have {wanted}"
        return WrongShapeError(
            f"{where} has {size} {'value' if size == 1 else 'values'}; {reason}.",
            hint=f"The shape has to be {shape_text(self.spec)}.",
            where=where,
        )

    def _not_a_list(self, value: Any, axis: int, index: Index) -> InputError:
        where = self.place.at(index)
        hint = f"The shape has to be {shape_text(self.spec)}."
        if isinstance(value, dict):
            return WrongTypeError(f"{where} is an object, not a list.", hint=hint, where=where)
        missing = len(self.sizes) - axis
        wanted = "a list is" if missing == 1 else f"lists nested {missing} deep are"
        return WrongShapeError(
            f"{where} is {kind_of(value)}; {wanted} wanted here.", hint=hint, where=where
        )

    def _element(self, value: Any, index: Index) -> Any:
        try:
            return self.leaf(value, self.spec)
        except InputError as error:
            raise self._placed(error, index) from None

    def _placed(self, error: InputError, index: Index) -> InputError:
        """The error of a single value with its place, and the name of its column."""
        where = self.place.at(index)
        name = self.place.name(index)
        shown = f"{where} (column {name!r})" if name else where
        return type(error)(f"{shown} {error.message}", hint=error.hint, where=where)


def double(value: Any, spec: TensorSpec, fits: Callable[[float], bool] = lambda _: True) -> float:
    """A number as a double; NaN where one may be missing.

    Args:
        value: As it was parsed.
        spec: The input.
        fits: Whether the type of the input, where it is a smaller one, has such a number.
    """
    if value is None and spec.missing:
        return math.nan
    found = number(value, spec)
    if isinstance(found, float) and not math.isfinite(found):
        if math.isnan(found) and spec.missing:
            return math.nan
        raise missing("NaN" if math.isnan(found) else "infinite")
    try:
        result = float(found)
    except OverflowError:  # a whole number beyond any double
        result = math.inf
    if result in {math.inf, -math.inf} or not fits(result):
        raise WrongTypeError(f"is {quoted(value)}, beyond the range of {spec.dtype}.")
    return result


def number(value: Any, spec: TensorSpec) -> int | float:
    """A single number, which may be NaN or infinite."""
    if value is None:
        raise missing("null")
    require_single(value, spec)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongTypeError(
            f"is {kind_of(value)} ({quoted(value)}); a number is wanted.",
            hint="Send numbers without quotation marks." if isinstance(value, str) else "",
        )
    return value


def require_single(value: Any, spec: TensorSpec) -> None:
    """Refuses lists and objects where a single value has to stand."""
    hint = f"The shape has to be {shape_text(spec)}."
    if isinstance(value, list):
        raise WrongShapeError(f"is a list, nested deeper than {spec.name!r} takes.", hint=hint)
    if isinstance(value, dict):
        raise WrongTypeError("is an object, not a single value.", hint=hint)


def missing(kind: str) -> MissingValueError:
    """The error for what is not there, in an input that takes no such thing."""
    return MissingValueError(
        f"is {kind}, which the model does not take.",
        hint="Leave such rows out, or put a value in its place.",
    )
