"""A model that gives back what it gets, for each dtype a tensor can have."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.schema import DType, ModelSchema, TensorSpec

if TYPE_CHECKING:
    from scoring.runtimes.base import Arrays

NUMBERS: tuple[DType, ...] = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)
DATATYPES: dict[str, str] = {
    "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64", "string": "BYTES",
}  # fmt: skip


class Echo:
    """One input of any number of rows of any width, and the same as the output."""

    thread_safe = True

    def __init__(self, dtype: DType, width: int | None = None, *, missing: bool = False) -> None:
        self.schema = ModelSchema(
            inputs=(TensorSpec("given", dtype, (None, width), missing=missing),),
            outputs=(TensorSpec("same", dtype, (None, width)),),
        )
        self.calls = 0
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Semaphore(0)

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        self.calls += 1
        if not self.go.is_set():
            self.entered.release()
            assert self.go.wait(20)
        return {"same": inputs["given"]}


def example(dtype: DType, shape: tuple[int, ...] = (2, 3)) -> np.ndarray[Any, Any]:
    """An array with the corners of a dtype in it."""
    count = int(np.prod(shape))
    if dtype == "string":
        texts = np.empty(count, dtype=object)
        texts[:] = [("", "a", "grüße 東京", "x" * 300, "\0", "0")[n % 6] for n in range(count)]
        return texts.reshape(shape)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        values: list[Any] = [n % 2 == 0 for n in range(count)]
    elif kind.kind == "f":
        limits = np.finfo(kind)
        corners = [0.0, -1.5, float(limits.max), float(limits.min), float(limits.tiny), 1 / 3]
        values = [corners[n % 6] for n in range(count)]
    else:
        bounds = np.iinfo(kind)
        values = [[bounds.max, bounds.min, 0, 1, 7, 100][n % 6] for n in range(count)]
    return np.array(values, dtype=kind).reshape(shape)
