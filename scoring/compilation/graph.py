"""Brings a converter's ONNX graph into one form: our names, and nothing of chance in the bytes.

Imported only where something is compiled, so `onnx` may be imported at the top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from scoring.compilation.quiet import ConversionError
from scoring.schema import ModelSchema, TensorSpec

GRAPH_NAME = "fieldpost"
IR_VERSION = 10
OPSET = 21
ML_OPSET = 3

_CODES: dict[str, int] = {
    "bool": TensorProto.BOOL,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
}
_NAMES = {code: name for name, code in _CODES.items()}
_FLOATS = (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE)


def input_names(count: int) -> list[str]:
    """The names under which a converter is given the inputs, before `finish` sets the real ones.

    Converters make up names for the values inside a graph; a column called `label` would meet one.
    """
    return [f"fieldpost_input_{index}" for index in range(count)]


def finish(model: Any, schema: ModelSchema) -> tuple[bytes, ModelSchema]:
    """Gives a converted graph the inputs and outputs of the original, and deterministic bytes.

    Args:
        model: The `onnx.ModelProto`, changed in place; its inputs are those of `input_names`.
        schema: The original model's.

    Returns:
        The serialised graph, and the schema of the compiled form: the original's names and shapes
        with the element types that the graph takes and gives. Floats may be of another size.

    Raises:
        ConversionError: The graph lacks an output of the schema, or names clash.
    """
    graph = model.graph
    _require_distinct_names(schema)
    _remove_zipmap(graph)
    _keep_used_inputs(graph, len(schema.inputs))
    _take_whole_numbers(graph, schema.inputs)
    _shape_outputs(graph, schema.outputs)
    _rename(graph, schema)
    _strip(model)
    compiled = ModelSchema(
        inputs=_typed(schema.inputs, graph.input),
        outputs=_typed(schema.outputs, graph.output),
        layout=schema.layout,
        features=schema.features,
        classes=schema.classes,
    )
    return model.SerializeToString(deterministic=True), compiled


def opset_of(model: Any) -> int:
    """The opset of the standard operators that a graph asks for."""
    return max((entry.version for entry in model.opset_import if not entry.domain), default=0)


def _require_distinct_names(schema: ModelSchema) -> None:
    names = [spec.name for spec in (*schema.inputs, *schema.outputs)]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConversionError(f"ONNX cannot have two inputs or outputs called {doubled[0]!r}.")


def _remove_zipmap(graph: Any) -> None:
    """Probabilities leave as one matrix, not as a list of dictionaries."""
    for node in [node for node in graph.node if node.op_type == "ZipMap"]:
        for output in graph.output:
            if output.name == node.output[0]:
                matrix = helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, None)
                output.CopyFrom(matrix)
        graph.node.remove(node)


def _keep_used_inputs(graph: Any, count: int) -> None:
    """Puts the graph's inputs into the schema's order (a converter may have sorted them)."""
    by_name = {value.name: value for value in graph.input}
    expected = input_names(count)
    if set(by_name) != set(expected):
        raise ConversionError(f"The converted graph has {len(by_name)} of {count} inputs.")
    ordered = [by_name[name] for name in expected]
    copies = [type(value).FromString(value.SerializeToString()) for value in ordered]
    del graph.input[:]
    graph.input.extend(copies)


def _take_whole_numbers(graph: Any, specs: Sequence[TensorSpec]) -> None:
    """Lets integers and truth values stay what they are to the original.

    Converters take all numbers as floats, and so would a request: the fraction of 1.5 would be
    dropped on its way to a category, and `true` be refused.
    """
    casts = []
    for spec, value in zip(specs, graph.input, strict=True):
        tensor = value.type.tensor_type
        if not spec.dtype.startswith(("int", "uint", "bool")) or tensor.elem_type not in _FLOATS:
            continue
        number = f"{value.name}_number"
        casts.append(helper.make_node("Cast", [value.name], [number], to=tensor.elem_type))
        for inner in _graphs(graph):
            for node in inner.node:
                node.input[:] = [number if name == value.name else name for name in node.input]
        tensor.elem_type = _CODES[spec.dtype]
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _shape_outputs(graph: Any, specs: Sequence[TensorSpec]) -> None:
    """Gives each output the rank and, for labels, the element type of the original's.

    The new outputs are values of their own, called as `_output_name` says.
    """
    if len(graph.output) < len(specs):
        raise ConversionError(
            f"The converted graph has {len(graph.output)} outputs, the model {len(specs)}."
        )
    results = [
        _shape_output(graph, _output_name(index), spec, value)
        for index, (spec, value) in enumerate(zip(specs, graph.output, strict=False))
    ]
    del graph.output[:]
    graph.output.extend(results)


def _output_name(index: int) -> str:
    return f"fieldpost_output_{index}"


def _shape_output(graph: Any, name: str, spec: TensorSpec, value: Any) -> Any:
    tensor = value.type.tensor_type
    code = _output_code(spec, tensor.elem_type)
    source = value.name
    if code != tensor.elem_type:
        graph.node.append(helper.make_node("Cast", [source], [f"{name}_cast"], to=code))
        source = f"{name}_cast"
    if _rank(tensor) == len(spec.shape) or spec.shape.count(None) > 1:
        graph.node.append(helper.make_node("Identity", [source], [name]))
    else:
        shape = np.array([-1 if size is None else size for size in spec.shape], dtype=np.int64)
        graph.initializer.append(numpy_helper.from_array(shape, f"{name}_shape"))
        graph.node.append(helper.make_node("Reshape", [source, f"{name}_shape"], [name]))
    return helper.make_tensor_value_info(name, code, list(spec.shape))


def _output_code(spec: TensorSpec, given: int) -> int:
    """Floats stay as precise as the graph gives them; all else takes the original's type."""
    wanted = _CODES.get(spec.dtype, given)
    return given if given in _FLOATS and wanted in _FLOATS else wanted


def _rank(tensor: Any) -> int:
    return len(tensor.shape.dim) if tensor.HasField("shape") else -1


def _rename(graph: Any, schema: ModelSchema) -> None:
    """Inputs and outputs get the schema's names; everything inside is numbered as it appears."""
    names = {"": ""}
    for generic, spec in zip(input_names(len(schema.inputs)), schema.inputs, strict=True):
        names[generic] = spec.name
    for index, spec in enumerate(schema.outputs):
        names[_output_name(index)] = spec.name
    taken = set(names.values())
    for position, name in enumerate(_value_names(graph)):
        if name not in names:
            names[name] = _unused(f"v{position}", taken)
    _apply_names(graph, names)


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _graphs(graph: Any) -> Iterator[Any]:
    """The graph and those inside its nodes (`Scan`, `Loop`, `If`)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _value_names(graph: Any) -> Iterator[str]:
    """The names of all values, each at least once, in the order of the graph."""
    seen: set[str] = set()
    for inner in _graphs(graph):
        names = [value.name for value in (*inner.input, *inner.initializer)]
        for node in inner.node:
            names += [*node.input, *node.output]
        names += [value.name for value in inner.output]
        for name in names:
            if name not in seen:
                seen.add(name)
                yield name


def _apply_names(graph: Any, names: dict[str, str]) -> None:
    for inner in _graphs(graph):
        for value in (*inner.input, *inner.output, *inner.initializer):
            value.name = names[value.name]
        for node in inner.node:
            node.input[:] = [names[name] for name in node.input]
            node.output[:] = [names[name] for name in node.output]
            node.name = ""


def _strip(model: Any) -> None:
    """Removes what says when, where or by which run the graph was made."""
    model.ir_version = IR_VERSION
    model.domain = model.doc_string = ""
    model.model_version = 0
    del model.metadata_props[:]
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        versions[entry.domain] = max(entry.version, versions.get(entry.domain, 0))
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*pair) for pair in sorted(versions.items()))
    for inner in _graphs(model.graph):
        inner.name, inner.doc_string = GRAPH_NAME, ""
        del inner.value_info[:]
        for node in inner.node:
            node.doc_string = ""
            # Some converters go through a set of attributes, in an order that changes by process.
            node.attribute.sort(key=lambda attribute: attribute.name)


def _typed(specs: Sequence[TensorSpec], values: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=spec.name,
            dtype=_NAMES[value.type.tensor_type.elem_type],  # type: ignore[arg-type]
            shape=spec.shape,
            missing=spec.missing,
            unused=spec.unused,
        )
        for spec, value in zip(specs, values, strict=True)
    )
