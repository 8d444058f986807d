"""From what `run()` returned to JSON bytes."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import numbers
import os
import sys
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import orjson

Dumps = Callable[[Any], bytes]


def dumper(*, strict: bool) -> Dumps:
    """The function that encodes results; it raises TypeError, ValueError or RecursionError."""
    return _dumps_strict if strict else dumps


def _dumps_strict(value: Any) -> bytes:
    return json.dumps({} if value is None else value).encode()


def dumps(value: Any) -> bytes:
    """The result as JSON, without blanks, NaN and infinities as null.

    Beside what `json.dumps` takes: arrays, scalars, tables and series of numpy, pandas and of
    whatever else has a `tolist`, dates (ISO 8601), dataclasses, enumerations, UUIDs, decimals
    (as numbers), sets (sorted where they can be) and paths.

    Raises:
        TypeError: There is no JSON for some value, or for a key.
    """
    if value is None:
        return b"{}"
    try:
        return orjson.dumps(value, plain, _options())
    except TypeError:
        # Keys that are not text, integers over 64 bits, lone surrogates, deep nesting.
        return json.dumps(_simple(value), separators=(",", ":")).encode()


def _options() -> int:
    """With orjson's own support for numpy, which would import numpy where it is not yet."""
    return orjson.OPT_SERIALIZE_NUMPY if "numpy" in sys.modules else 0


def plain(value: Any) -> Any:
    """Something simpler in the place of a value that JSON does not have.

    Raises:
        TypeError: There is nothing simpler.
    """
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real | decimal.Decimal):
        return float(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, AbstractSet):
        return _sorted(value)
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return _array(value)


def _sorted(value: AbstractSet[Any]) -> list[Any]:
    try:
        return sorted(value)
    except TypeError:
        return sorted(value, key=repr)


def _array(value: Any) -> Any:
    if _is_missing(value):
        return None
    if isinstance(value, dt.date):
        return value.isoformat()
    if _is_plain_array(value):
        return _contiguous(value)
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    if callable(getattr(value, "to_dict", None)) and hasattr(value, "columns"):
        return value.to_dict(orient="records")
    if callable(getattr(value, "numpy", None)):
        return value.numpy()
    if callable(getattr(value, "model_dump", None)):
        return value.model_dump()
    raise TypeError(f"run() returned a {type(value).__name__}, for which there is no JSON")


def _is_missing(value: Any) -> bool:
    """Whether it is pandas' NA or NaT, if pandas is there at all."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)


def _is_plain_array(value: Any) -> bool:
    """Whether orjson takes the array once it is contiguous and in this machine's byte order."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray:
        return False
    usual = value.dtype.kind in "biufM" and value.dtype.itemsize <= 8  # noqa: PLR2004  -- bytes
    settled = value.flags.c_contiguous and value.dtype.isnative
    return bool(usual and value.ndim and not settled)


def _contiguous(value: Any) -> Any:
    numpy = sys.modules["numpy"]
    return numpy.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))


def _simple(value: Any) -> Any:
    """The value in dicts, lists, text, numbers and None alone."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): _simple(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_simple(item) for item in value]
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _simple(value.tolist())
    try:
        return _simple(plain(value))
    except TypeError:
        return json.loads(orjson.dumps(value, plain, _options() | orjson.OPT_NON_STR_KEYS))


def _key(key: Any) -> Any:
    """A key as JSON has it; `json.dumps` turns numbers, booleans and None into text."""
    if isinstance(key, str | bool | int | float) or key is None:
        return key
    if callable(getattr(key, "item", None)):
        return key.item()
    if isinstance(key, dt.date):
        return key.isoformat()
    raise TypeError(f"run() returned a dict with a {type(key).__name__} as key")
