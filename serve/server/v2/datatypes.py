"""The protocol's datatypes beside those of schemas and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

from scoring.runtimes.base import NUMPY_DTYPES

BYTES = "BYTES"
BF16 = "BF16"
BINARY_ONLY = frozenset({"FP16", BF16})
"""Datatypes that JSON does not carry: half a precision would be lost or made up."""

BY_SCHEMA: dict[str, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": BYTES,
    "map": BYTES,
}
"""The datatype of each dtype of a schema; a map is sent as one JSON object for each row."""

NUMPY: dict[str, np.dtype[Any]] = {
    BY_SCHEMA[name]: dtype.newbyteorder("<")
    for name, dtype in NUMPY_DTYPES.items()
    if name != "string"
} | {BF16: np.dtype("<u2")}
"""The numpy dtype of each datatype of fixed size, as binary tensors have it; BF16 as its bits."""

BY_NUMPY: dict[np.dtype[Any], str] = {
    NUMPY_DTYPES[name]: datatype for name, datatype in BY_SCHEMA.items() if name in NUMPY_DTYPES
}
"""The datatype of each numpy dtype; an object array holds strings."""

CONFIG_TYPES: dict[str, str] = {
    datatype: "TYPE_STRING" if datatype == BYTES else f"TYPE_{datatype}"
    for datatype in BY_SCHEMA.values()
}
"""What Triton's model configuration calls them."""
