"""The inputs of a model as the protocol's tensors: what each has to be, and how it is read.

Shared by both forms of the protocol: REST gives JSON values or bytes, gRPC lists or bytes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import (
    MissingValueError,
    UnknownInputError,
    WrongShapeError,
    WrongTypeError,
)
from scoring.payload.arrays import Converter, require_same_batch
from scoring.payload.places import ArrayPlace, listed, quoted
from scoring.payload.words import kind_of
from scoring.schema import ModelSchema, TensorSpec
from serve.server.v2.datatypes import BF16, BINARY_ONLY, BY_SCHEMA, BYTES, NUMPY
from serve.server.v2.tensors import element_count, from_raw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from serve.server.v2.tensors import Raw

_COLUMN_RANK = 2
_MAX_SIZE = 2**63
_NUMBERS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""The numbers that JSON does not have, by the names that our own answers give them."""

_NETWORKS = frozenset({"onnx", "torch-export", "torchscript", "keras"})
"""Formats of models that compute with any float as IEEE 754 has it: NaN is no missing value."""


def takes_any_float(model_format: str) -> bool:
    """Whether bytes for a model of a format may hold NaN and infinities, whatever they do there.

    Models that were fitted to tables would answer nonsense, and refuse them as in JSON.
    """
    return model_format in _NETWORKS


class InputPort:
    """One input.

    Args:
        spec: What the model takes.
        column: It is a column of a table: its tensor may come without the dimension of 1.
        finite: Bytes with NaN and infinities are refused where the model takes no missing values.

    Attributes:
        spec: See above.
        name: Of the input.
        datatype: Of the protocol.
        shape: The sizes, -1 where they are free.
        unused: The model drops it: whatever comes is passed over.
    """

    def __init__(self, spec: TensorSpec, *, column: bool, finite: bool) -> None:
        self.spec = spec
        self.name = spec.name
        self.datatype = BY_SCHEMA[spec.dtype]
        self.unused = spec.unused
        self.shape = [-1 if size is None else size for size in spec.shape]
        self._column = column and len(spec.shape) == _COLUMN_RANK
        self._rank = len(spec.shape)
        self._nested = Converter(spec)
        self._flat = Converter(
            TensorSpec(spec.name, spec.dtype, (None,), spec.missing, spec.unused)
        )
        self._finite = finite and self.datatype.startswith("FP") and not spec.missing

    def check_shape(self, shape: Any, where: str) -> list[int]:
        """The shape of the model's input that a tensor's shape stands for.

        Args:
            shape: As it was sent.
            where: The tensor's place in the request.

        Raises:
            InputError: It is no shape, or not one that the model takes.
        """
        if not isinstance(shape, list) or not all(type(size) is int for size in shape):
            raise WrongTypeError(
                f"{where}.shape is {quoted(shape)}; a list of whole numbers is wanted.",
                where=f"{where}.shape",
            )
        wanted = shape
        if self._column and len(shape) == 1:
            wanted = [*shape, 1]
        if len(wanted) != self._rank or any(
            size < 1 or size >= _MAX_SIZE or expected not in {-1, size}
            for size, expected in zip(wanted, self.shape, strict=True)
        ):
            raise self._wrong_shape(shape, where)
        return wanted

    def _wrong_shape(self, shape: list[int], where: str) -> WrongShapeError:
        if len(shape) == len(self.shape) and any(size == 0 for size in shape):
            hint = "Send at least one row of values."
        else:
            hint = "-1 stands for any number." if -1 in self.shape else ""
        return WrongShapeError(
            f"{where}: unexpected shape for input '{self.name}'. Expected {self._expected()}, got "
            f"{quoted(shape)}.",
            hint=hint,
            where=f"{where}.shape",
        )

    def _expected(self) -> str:
        return "[-1] or [-1, 1]" if self._column and self.shape == [-1, 1] else str(self.shape)

    def shape_of_size(self, size: int, where: str) -> list[int]:
        """The shape of a tensor that came as bytes alone.

        Args:
            size: In bytes; of strings it is one, whatever its size.
            where: The tensor's place in the request.

        Raises:
            WrongShapeError: More than one size is free, or no number of rows has these bytes.
        """
        item = size if self.datatype == BYTES else NUMPY[self.datatype].itemsize
        known = element_count([length for length in self.shape if length > 0]) * item
        rows = size // known if known else 0
        shape = [rows if length < 0 else length for length in self.shape]
        if self.shape.count(-1) > 1 or rows * known != size or element_count(shape) * item != size:
            raise WrongShapeError(
                f"{where} has {size} bytes, which do not tell the shape of input '{self.name}' "
                f"({self.datatype} {self.shape}).",
                hint="Send Inference-Header-Content-Length, and the shape in JSON.",
                where=where,
            )
        return self.check_shape(shape, where)

    def check_datatype(self, datatype: Any, where: str) -> None:
        """Compares a tensor's datatype with the model's.

        Raises:
            WrongTypeError: They differ.
        """
        if datatype != self.datatype:
            raise WrongTypeError(
                f"{where}: inference input '{self.name}' data-type is {_name(datatype)}, but the "
                f"model expects '{self.datatype}'.",
                where=f"{where}.datatype",
            )

    def from_values(self, value: Any, shape: list[int], where: str, *, plain: bool) -> NDArray[Any]:
        """The array of a tensor that came as values, nested like its shape or in one list.

        Args:
            value: The data.
            shape: As `check_shape` gave it.
            where: The place of the data in the request.
            plain: No boolean and no NaN can stand in it.

        Raises:
            InputError: What is wrong, with its place.
        """
        if not isinstance(value, list):
            raise WrongTypeError(
                f"{where} is {kind_of(value)}, not a list.",
                hint="Send the elements in one list, or nested like the shape.",
                where=where,
            )
        if not self._is_nested(value):
            return self._from_flat(value, shape, where, plain=plain)
        array = self._converted(self._nested, value, where, plain=plain)
        if list(array.shape) != shape:
            raise WrongShapeError(
                f"{where} has the shape {list(array.shape)}, and the tensor says {shape}.",
                where=where,
            )
        return array

    def _is_nested(self, value: list[Any]) -> bool:
        return self._rank > 1 and bool(value) and isinstance(value[0], list)

    def _from_flat(
        self, value: list[Any], shape: list[int], where: str, *, plain: bool
    ) -> NDArray[Any]:
        count = element_count(shape)
        if len(value) != count:
            raise WrongShapeError(
                f"{where} has {len(value)} elements; the shape {shape} takes {count}.",
                where=where,
            )
        return self._converted(self._flat, value, where, plain=plain).reshape(shape)

    def _converted(
        self, converter: Converter, value: list[Any], where: str, *, plain: bool
    ) -> NDArray[Any]:
        place = ArrayPlace(where)
        try:
            return converter.array(value, place, plain=plain)
        except WrongTypeError:
            if not self.datatype.startswith("FP"):
                raise
            named = _with_numbers(value, self._rank)
            if named == value:
                raise
            return converter.exact(named, place)

    def from_raw(self, raw: Raw, shape: list[int], datatype: str, where: str) -> NDArray[Any]:
        """The array of a binary tensor.

        Args:
            raw: Its bytes.
            shape: As `check_shape` gave it.
            datatype: As `check_datatype` let it through.
            where: The tensor's place in the request.

        Raises:
            InputError: What is wrong, with its place.
        """
        array = from_raw(raw, datatype, shape, where)
        if self._finite and not _is_finite(array):
            raise self._not_finite(array, where)
        return array

    def _not_finite(self, array: NDArray[Any], where: str) -> MissingValueError:
        flat = array.ravel()
        number = int(np.argmin(np.isfinite(flat)))
        kind = "NaN" if np.isnan(flat[number]) else "infinite"
        return MissingValueError(
            f"{where}, element {number}, is {kind}, which the model does not take.",
            hint="Leave such rows out, or put a value in its place.",
            where=where,
        )

    def blank(self, rows: int) -> NDArray[Any]:
        """What stands for a column that the model drops and the request leaves out."""
        dtype = self._flat.dtype
        fill = None if dtype.kind == "O" else np.nan if dtype.kind == "f" else 0
        return np.full((rows, 1), fill, dtype=dtype)

    def takes(self, datatype: Any) -> bool:
        """Whether a binary tensor of another datatype is widened to the model's."""
        return bool(datatype == BF16 and self.datatype == "FP32")


def refuse_json(datatype: Any, name: str, where: str) -> None:
    """Refuses data in JSON of datatypes that only bytes carry.

    Raises:
        WrongTypeError: It is one of them.
    """
    if isinstance(datatype, str) and datatype in BINARY_ONLY:
        raise WrongTypeError(
            f"{where}: sending {datatype} data via JSON is not supported. Please use the binary "
            f"data format for input '{name}'.",
            where=where,
        )


class Inputs:
    """All inputs of a model.

    Args:
        schema: The model's.
        finite: See `InputPort`.

    Attributes:
        ports: By name, in the schema's order.
    """

    def __init__(self, schema: ModelSchema, *, finite: bool = True) -> None:
        column = schema.layout == "table"
        self.ports = {
            spec.name: InputPort(spec, column=column, finite=finite) for spec in schema.inputs
        }
        self._specs = schema.inputs
        self._required = {spec.name for spec in schema.inputs if not spec.unused}
        self._batched = len(schema.inputs) > 1

    def port(self, name: Any, where: str, given: Mapping[str, Any]) -> InputPort:
        """The input of a name.

        Args:
            name: As it was sent.
            where: The tensor's place in the request.
            given: The tensors before it.

        Raises:
            UnknownInputError: The model has no such input, or it stands twice.
        """
        port = self.ports.get(name) if isinstance(name, str) else None
        if port is None:
            raise UnknownInputError(
                f"{where}: unexpected inference input {_name(name)} for the model.",
                hint=f"Its inputs are {listed(list(self.ports))}.",
                where=f"{where}.name",
            )
        if name in given:
            raise UnknownInputError(f"{where}: the input {name!r} stands twice.", where=where)
        return port

    def complete(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The arrays in the schema's order, checked against each other.

        Raises:
            InputError: An input is missing, or they have different numbers of rows.
        """
        if len(arrays) != len(self.ports):
            arrays = self._filled(arrays)
        if self._batched:
            arrays = {name: arrays[name] for name in self.ports}
            require_same_batch(arrays, self._specs)
        return arrays

    def _filled(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        missing = [name for name in self.ports if name in self._required and name not in arrays]
        if missing or not arrays:
            raise UnknownInputError(
                f"inputs: expected {len(self.ports)} inputs but got {len(arrays)}. Got input(s) "
                f"{listed(list(arrays)) or 'none'}, but missing required input(s) "
                f"{listed(missing)}. Please provide all required input(s).",
                where="inputs",
            )
        rows = len(next(iter(arrays.values())))
        blanks = {name: p.blank(rows) for name, p in self.ports.items() if name not in arrays}
        return {**arrays, **blanks}


def _is_finite(array: NDArray[Any]) -> bool:
    """Whether every element is; one pass over the memory where they are not very large."""
    if array.dtype.itemsize > 2:  # noqa: PLR2004 - squares of float16 are soon beyond it
        square = float(np.vdot(array, array))
        if math.isfinite(square):
            return True
    return bool(np.isfinite(array).all())


def _with_numbers(value: list[Any], depth: int) -> list[Any]:
    """The same lists, down to a depth, with numbers in the place of their names."""
    return [
        _NUMBERS.get(inner, inner)
        if isinstance(inner, str)
        else _with_numbers(inner, depth - 1)
        if isinstance(inner, list) and depth > 1
        else inner
        for inner in value
    ]


def _name(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else quoted(value)
