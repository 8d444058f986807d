"""Adds nodes to the containers that skl2onnx gives to its converters."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from onnx import TensorProto, helper
from skl2onnx.common.data_types import guess_proto_type


class ContainerNodes:
    """Adds nodes to the container that skl2onnx gives to a converter."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope = scope
        self._container = container

    def add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        """See `forests.Nodes`."""
        output = self._scope.get_unique_variable_name("value")
        self.add_named(op_type, inputs, output, **attributes)
        return str(output)

    def add_named(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """Adds a node whose output has a name already."""
        domain = attributes.pop("domain", "")
        self._container.add_node(
            op_type,
            inputs,
            [output],
            op_domain=domain,
            op_version=3 if domain else None,
            name=self._scope.get_unique_operator_name(op_type),
            **attributes,
        )

    def constant(self, value: NDArray[Any]) -> str:
        """See `forests.Nodes`."""
        name = self._scope.get_unique_variable_name("constant")
        code = (
            TensorProto.STRING
            if value.dtype == object
            else helper.np_dtype_to_tensor_dtype(value.dtype)
        )
        self._container.add_initializer(name, code, list(value.shape), value.ravel().tolist())
        return str(name)

    def tie(self, name: str, variable: Any) -> None:
        """Gives a number to a variable of skl2onnx, in the element type that it has declared."""
        self.add_named("Cast", [name], variable.full_name, to=guess_proto_type(variable.type))
