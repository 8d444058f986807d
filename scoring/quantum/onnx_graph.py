"""A small writer of ONNX graphs: nodes in scopes, constants once, names by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.errors import MissingDependencyError
from scoring.quantum import memory

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:  # pragma: no cover - tests run with it
    raise MissingDependencyError(
        "Compiling a circuit to ONNX needs the package onnx.",
        hint="Install it with: pip install 'fieldpost[quantum]'.",
    ) from error

OPSET = 18
IR_VERSION = 8

ELEMENTS = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "string": TensorProto.STRING,
}


class _Shared:
    """What all scopes of one graph have in common."""

    def __init__(self) -> None:
        self.numbers = count()
        self.constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.initializers: list[Any] = []
        self.bytes = 0


class Scope:
    """Nodes of a graph, or of one inside of it; constants belong to the outermost.

    Args:
        dtype: Of all constants that are floats: `float32` or `float64`.
        outer: The scope that this one is inside of.
    """

    def __init__(self, dtype: str, outer: Scope | None = None) -> None:
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.shared: _Shared = outer.shared if outer else _Shared()

    @property
    def initializers(self) -> list[Any]:
        """The constants of all scopes, as tensors."""
        return self.shared.initializers

    def inside(self) -> Scope:
        """A scope for the graph within a node; it sees all that this one has."""
        return Scope(self.dtype, self)

    def name(self) -> str:
        """A name that nothing has yet."""
        return f"v{next(self.shared.numbers)}"

    def add(self, operator: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """Adds a node; returns the name of its only output."""
        result = to or self.name()
        self.nodes.append(helper.make_node(operator, list(inputs), [result], **attributes))
        return result

    def floats(self, values: Any) -> str:
        """A constant of the graph's floats."""
        return self.constant(np.asarray(values, dtype=self.dtype))

    def ints(self, values: Any) -> str:
        """A constant of whole numbers: shapes, axes, places."""
        return self.constant(np.asarray(values, dtype=np.int64))

    def constant(self, values: NDArray[Any]) -> str:
        """A constant, kept once however often it is used.

        Raises:
            CircuitTooLargeError: All constants together are more than a file of ONNX takes.
        """
        memory.check_file(self.shared.bytes + values.nbytes, "The compiled circuit")
        content = values.tobytes() if values.dtype != object else repr(values.tolist()).encode()
        key = (values.dtype.str, values.shape, content)
        known = self.shared.constants
        if key not in known:
            known[key] = f"c{len(known)}"
            self.shared.bytes += values.nbytes
            whole = np.ascontiguousarray(values).reshape(values.shape)
            self.initializers.append(numpy_helper.from_array(whole, known[key]))
        return known[key]

    def graph(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """This scope as a graph within a node: constants stay outside."""
        return helper.make_graph(self.nodes, name, list(inputs), list(outputs))

    def value(self, name: str, shape: Sequence[int | str | None], element: str = "") -> Any:
        """The declaration of an input or an output."""
        return helper.make_tensor_value_info(name, ELEMENTS[element or self.dtype], list(shape))

    def model(self, inputs: Sequence[Any], outputs: Sequence[Any], notes: dict[str, str]) -> bytes:
        """The whole as the bytes of an ONNX file, the same for the same graph."""
        graph = helper.make_graph(
            self.nodes, "fieldpost", list(inputs), list(outputs), self.initializers
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="fieldpost",
        )
        for key, text in sorted(notes.items()):
            model.metadata_props.add(key=key, value=text)
        content: bytes = model.SerializeToString(deterministic=True)
        return content


__all__ = ["ELEMENTS", "IR_VERSION", "OPSET", "Scope", "onnx"]
