"""The first place in a JSON value that does not fit a parameter of inference-schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scoring.errors import InputError, UnknownInputError, WrongShapeError, WrongTypeError

if TYPE_CHECKING:
    from collections.abc import Sequence

_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    tuple: "a list",
    str: "text",
    bytes: "base64 text",
    bytearray: "base64 text",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    type(None): "null",
}


def find_fault(value: Any, parameter: Any, path: str) -> InputError | None:
    """What is wrong with a value that a parameter type has refused; None where that is not clear.

    Args:
        value: As it came from JSON.
        parameter: An `AbstractParameterType` of inference-schema.
        path: Where the value is in the payload.
    """
    name = type(parameter).__name__
    if name == "NumpyParameterType" and parameter.sample_input.dtype.names is None:
        shape = parameter.sample_input.shape if parameter.enforce_shape else None
        dtype = parameter.sample_input.dtype if parameter.enforce_column_type else None
        return _array_fault(value, shape, dtype, path)
    if name == "PandasParameterType":
        return _table_fault(value, parameter, path)
    if name == "StandardPythonParameterType":
        return _plain_fault(value, parameter.sample_data_type, path)
    return None


def json_name(value: object) -> str:
    """What JSON calls the value's type."""
    return _JSON_NAMES.get(type(value), type(value).__name__)


def _plain_fault(value: Any, expected: type, path: str) -> InputError | None:
    wanted = _JSON_NAMES.get(expected)
    if wanted is None or isinstance(value, expected):
        return None
    return WrongTypeError(f"{path} must be {wanted}, not {json_name(value)}.", where=path)


def _array_fault(
    value: Any, shape: Sequence[int] | None, dtype: Any, path: str, level: int = 0
) -> InputError | None:
    if shape is None:
        return None if dtype is None else _leaf_fault(value, dtype, path)
    if level == len(shape):
        return _end_fault(value, len(shape), dtype, path)
    if not isinstance(value, list):
        return WrongShapeError(
            f"{path} must be a list with {_dimensions(len(shape) - level)}, "
            f"not {json_name(value)}.",
            where=path,
        )
    if level and len(value) != shape[level]:
        return WrongShapeError(
            f"{path} has {len(value)} values, {shape[level]} are expected.", where=path
        )
    return _first(value, path, lambda item, at: _array_fault(item, shape, dtype, at, level + 1))


def _end_fault(value: Any, dimensions: int, dtype: Any, path: str) -> InputError | None:
    if isinstance(value, list):
        return WrongShapeError(
            f"{path} is a list; an array with {_dimensions(dimensions)} is expected.", where=path
        )
    return None if dtype is None else _leaf_fault(value, dtype, path)


def _leaf_fault(value: Any, dtype: Any, path: str) -> InputError | None:
    if isinstance(value, list):
        return _first(value, path, lambda item, at: _leaf_fault(item, dtype, at))
    try:
        dtype.type(value)
    except (TypeError, ValueError, OverflowError):
        return WrongTypeError(f"{path} is {value!r}, which is no {dtype.name}.", where=path)
    return None


def _first(items: list[Any], path: str, check: Any) -> InputError | None:
    faults = (check(item, f"{path}[{index}]") for index, item in enumerate(items))
    return next((fault for fault in faults if fault is not None), None)


def _dimensions(count: int) -> str:
    return "one dimension" if count == 1 else f"{count} dimensions"


def _table_fault(value: Any, parameter: Any, path: str) -> InputError | None:
    """For records, the orientation that nearly every script uses."""
    if not isinstance(value, list | dict):
        return WrongTypeError(
            f"{path} must be a table in the orientation {parameter.orient!r}, "
            f"not {json_name(value)}.",
            where=path,
        )
    if parameter.orient != "records" or not isinstance(value, list):
        return None
    dtypes = parameter.sample_input.dtypes
    return _first(value, path, lambda row, at: _row_fault(row, dtypes, parameter, at))


def _row_fault(row: Any, dtypes: Any, parameter: Any, path: str) -> InputError | None:
    if not isinstance(row, dict):
        return WrongTypeError(
            f"{path} must be an object with the columns as keys, not {json_name(row)}.", where=path
        )
    names = [str(name) for name in dtypes.index]
    if parameter.enforce_shape:
        missing = [name for name in names if name not in row]
        unknown = [name for name in row if name not in names]
        if missing:
            return UnknownInputError(f"{path} lacks {', '.join(map(repr, missing))}.", where=path)
        if unknown:
            return UnknownInputError(
                f"{path} has unknown columns: {', '.join(map(repr, unknown))}.", where=path
            )
    if parameter.enforce_column_type:
        return _cell_fault(row, dict(zip(names, dtypes, strict=True)), path)
    return None


def _cell_fault(row: dict[str, Any], dtypes: dict[str, Any], path: str) -> InputError | None:
    import pandas as pd  # noqa: PLC0415  -- only where the script's schema is a table

    for name, value in row.items():
        if name not in dtypes:
            continue
        try:
            pd.Series([value]).astype(dtypes[name])
        except (TypeError, ValueError, OverflowError):
            at = f"{path}.{name}"
            return WrongTypeError(f"{at} is {value!r}, which is no {dtypes[name]}.", where=at)
    return None
