"""Values of a parsed body to one array of a model's input.

`fast` converts with numpy at once and gives up (None) at the first doubt. `exact` then looks at
every element: it either raises the error with the place, or builds the array that `fast` could not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import WrongShapeError, WrongTypeError
from scoring.payload.places import quoted
from scoring.payload.walk import Walk, double, missing, number, require_single
from scoring.payload.words import kind_of
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.schema import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scoring.payload.places import Place

_LOWEST = -(2**63)


class Converter:
    """Makes arrays of one input.

    Args:
        spec: The input.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.dtype = NUMPY_DTYPES[spec.dtype]
        self._rank = len(spec.shape)
        self._fixed = [(axis, size) for axis, size in enumerate(spec.shape) if size is not None]
        # Without a free dimension behind them, the sizes of one row are compared at once.
        self._row = (
            spec.shape[1:] if None not in spec.shape[1:] and spec.shape[:1] == (None,) else ()
        )
        self._fast = _FAST.get(self.dtype.kind)
        self._leaf = _anything if spec.unused else _LEAVES[self.dtype.kind]
        self._bound = 0.0
        if self.dtype.kind == "f":
            self._bound = float(np.finfo(self.dtype).max) ** 2 if self.dtype.itemsize < 8 else 1e300  # noqa: PLR2004

    def array(self, value: Any, place: Place, *, plain: bool) -> NDArray[Any]:
        """The array of a value.

        Args:
            value: Nested lists, or a single value for an input without dimensions.
            place: Where it stands.
            plain: See `Document`.

        Returns:
            An array of the input's dtype and rank, its fixed dimensions right, none of them 0.

        Raises:
            InputError: What is wrong, with its place.
        """
        array: NDArray[Any] | None = None
        if self._rank == 1 and type(value) is list:
            array = self._fast_column(value)
        elif plain:
            array = self.fast(value)
        return self.exact(value, place) if array is None else array

    def fast(self, value: Any) -> NDArray[Any] | None:
        """The array of a value without booleans; None where anything may be wrong with it."""
        if self._fast is None:
            return None
        try:
            array = np.array(value)
        except (ValueError, OverflowError, TypeError):
            return None
        if array.ndim != self._rank or not array.size:
            return None
        shape = array.shape
        if self._row:
            if shape[1:] != self._row:
                return None
        elif any(shape[axis] != size for axis, size in self._fixed):
            return None
        return self._fast(array, self.dtype, self._bound)

    def _fast_column(self, value: list[Any]) -> NDArray[Any] | None:
        """One dimension, whose types are all seen at once; strings and booleans, too."""
        kinds = set(map(type, value))
        if kinds <= {int, float}:
            return self.fast(value)
        wanted = {"O": str, "b": bool}.get(self.dtype.kind)
        if kinds == {wanted} and self.spec.shape in {(None,), (len(value),)}:
            array = np.empty(len(value), dtype=self.dtype)
            array[:] = value
            return array
        return None

    def exact(self, value: Any, place: Place) -> NDArray[Any]:
        """The array of a value, element by element; raises like `array`."""
        walk = Walk(self.spec, place, self._element)
        walk.down(value, 0, ())
        if self.dtype.kind == "O":
            array = np.empty(len(walk.flat), dtype=object)
            array[:] = walk.flat
        else:
            array = np.array(walk.flat, dtype=self.dtype)
        return array.reshape(tuple(size or 0 for size in walk.sizes))

    def _element(self, value: Any, spec: TensorSpec) -> Any:
        return self._leaf(value, spec, self.dtype)


def _fast_float(array: NDArray[Any], dtype: np.dtype[Any], bound: float) -> NDArray[Any] | None:
    kind = array.dtype.kind
    if kind == "f" or (kind in "iu" and dtype.itemsize == 2):  # noqa: PLR2004 - float16 ends early
        # The sum of squares is over the bound where one element is beyond the dtype, or is none.
        doubles = array.astype(np.float64, copy=False)
        if not np.vdot(doubles, doubles) <= bound:
            return None
    elif kind not in "iu":
        return None
    return array.astype(dtype, copy=False)


def _fast_int(array: NDArray[Any], dtype: np.dtype[Any], _bound: float) -> NDArray[Any] | None:
    if array.dtype.kind not in "iu":
        return None
    if array.dtype != dtype:
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            return None
    return array.astype(dtype, copy=False)


_FAST: dict[str, Callable[[NDArray[Any], np.dtype[Any], float], NDArray[Any] | None]] = {
    "f": _fast_float,
    "i": _fast_int,
    "u": _fast_int,
}


# Each of these raises errors whose messages begin with the verb; the walk adds the subject.
Leaf = Callable[[Any, TensorSpec, "np.dtype[Any]"], Any]


def _float(value: Any, spec: TensorSpec, dtype: np.dtype[Any]) -> float:
    return double(value, spec, partial(_fits, dtype))


def _fits(dtype: np.dtype[Any], found: float) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.array(found).astype(dtype)))


def _int(value: Any, spec: TensorSpec, dtype: np.dtype[Any]) -> int:
    found = number(value, spec)
    if isinstance(found, float):
        if not math.isfinite(found):
            raise missing("NaN" if math.isnan(found) else "infinite")
        if not found.is_integer():
            raise WrongTypeError(
                f"is {quoted(value)}; {spec.name!r} takes whole numbers ({spec.dtype})."
            )
        # The parser makes a float of a whole number beyond 64 bits: the lowest one may be such.
        found = int(found) if found > _LOWEST else _LOWEST - 1
    limits = np.iinfo(dtype)
    if not limits.min <= found <= limits.max:
        raise WrongTypeError(
            f"is {quoted(value)}, beyond the range of {spec.dtype}.",
            hint=f"Send a whole number from {limits.min} to {limits.max}.",
        )
    return found


def _bool(value: Any, spec: TensorSpec, _dtype: np.dtype[Any]) -> bool:
    if value is None:
        raise missing("null")
    require_single(value, spec)
    if not isinstance(value, bool):
        raise WrongTypeError(f"is {kind_of(value)}; {spec.name!r} takes true or false.")
    return value


def _string(value: Any, spec: TensorSpec, _dtype: np.dtype[Any]) -> str | None:
    # A NaN from pandas, in a column of strings.
    if value is None or (isinstance(value, float) and math.isnan(value)):
        if spec.missing:
            return None
        raise missing("null" if value is None else "NaN")
    require_single(value, spec)
    if not isinstance(value, str):
        raise WrongTypeError(f"is {kind_of(value)}; {spec.name!r} takes strings.")
    return value


def _anything(value: Any, _spec: TensorSpec, _dtype: np.dtype[Any]) -> str | None:
    """A value that the model drops."""
    return None if value is None else str(value)


_LEAVES: dict[str, Leaf] = {"f": _float, "i": _int, "u": _int, "b": _bool, "O": _string}


def require_same_batch(arrays: dict[str, NDArray[Any]], specs: tuple[TensorSpec, ...]) -> None:
    """Inputs whose first dimension is free have to have the same number of rows.

    Raises:
        WrongShapeError: They do not.
    """
    batched = [spec.name for spec in specs if spec.shape[:1] == (None,)]
    for first, second in pairwise(batched):
        if len(arrays[first]) != len(arrays[second]):
            raise WrongShapeError(
                f"{first!r} has {len(arrays[first])} rows and {second!r} {len(arrays[second])}.",
                hint="Send as many rows for every input.",
                where=second,
            )
