"""The schema of a model: what it takes and what it answers.

Shapes use None for a dimension that is free; the first free dimension is the batch. The JSON form
is what `bundle.json`, the registry and the HTTP metadata routes carry.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

DType = Literal[
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "string",
    "map",
]
"""NumPy's names; `string` is an object array of `str`, `map` (outputs only) a list of dicts."""

CIRCUIT_NOTE = "fieldpost.circuit"
"""Under this name metadata, of schemas and of ONNX files alike, tell a circuit's digest."""

Layout = Literal["tensors", "table"]
"""`tensors`: each input is an array. `table`: each input is one column of shape (rows, 1)."""


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One input or output.

    Attributes:
        name: The name that requests and answers use.
        dtype: The element type.
        shape: The dimensions; None where free. `(None, 4)` is any number of rows of four.
        missing: For inputs: whether the model takes NaN (or None, for strings) here.
        unused: For inputs: the model drops this column, so that it may hold anything or be left
            out.
    """

    name: str
    dtype: DType
    shape: tuple[int | None, ...]
    missing: bool = False
    unused: bool = False


class ModelSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a model takes and answers.

    Attributes:
        inputs: In the order in which the columns of a `data` row stand (layout `table`).
        outputs: The first one is the prediction (a label, a value).
        layout: See `Layout`.
        features: The column names of a single (rows, n) input, where the model knows them.
        classes: The labels, in the order of the columns of the probabilities.
        example: A request body for `POST /score` that the model answers.
        notes: What the model's metadata tell beside that: for a quantum circuit its digest, as
            `fieldpost.circuit`.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layout: Layout = "tensors"
    features: tuple[str, ...] = ()
    classes: tuple[str | int | float | bool, ...] = ()
    example: dict[str, Any] | None = None
    notes: dict[str, str] = {}
