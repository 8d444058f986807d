"""Loads PyTorch's exported programs and TorchScript modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import ScoringError, UnknownInputError, UnsupportedModelError
from scoring.formats import probing
from scoring.formats.base import Detection, LoadedModel, Trust
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.runtimes.dependencies import pinned, quiet, require
from scoring.runtimes.leaves import leaves
from scoring.runtimes.torch import (
    Call,
    TorchPredictor,
    as_array,
    call_program,
    call_script,
    last_line,
    open_program,
    open_script,
)
from scoring.schema import DType, ModelSchema, TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

Shape = tuple[int | None, ...]
_SIZES = (32, 28, 64, 224, 8, 16, 96, 128, 256, 299)
"""Sizes that free dimensions are tried with: pictures and sequences that are common."""
_SAMPLE_HINT = (
    "Give some input: --sample FILE, or export the model with torch.export, which records it."
)


def load(detection: Detection, trust: Trust, sample: Any | None = None) -> LoadedModel:  # noqa: ARG001
    """Loads a program and describes it.

    Raises:
        CorruptModelError: PyTorch cannot read the file.
        UnsupportedModelError: It takes or answers what requests cannot carry, or does not tell.
        MissingDependencyError: PyTorch is not installed.
    """
    model: Any
    if detection.format == "torch-export":
        model = open_program(detection.path)
        call = call_program(model)
        with quiet():
            schema = _program_schema(model, call, detection)
    else:
        model = open_script(detection.path)
        call = call_script(model)
        with quiet():
            schema = _script_schema(model, call, sample, detection)
    return LoadedModel(
        detection=detection,
        model=model,
        schema=schema,
        predictor=TorchPredictor(call, schema),
        requirements=pinned("numpy", "torch"),
    )


def _dtype(tensor: Any, name: str, detection: Detection, *, answer: bool = False) -> DType:
    found = str(tensor.dtype).removeprefix("torch.")
    if answer and found == "bfloat16":
        return "float32"
    for known in NUMPY_DTYPES:
        if known == found:
            return known  # type: ignore[return-value]
    raise UnsupportedModelError(
        f"{detection.path} has {found} as {name!r}, which requests and answers cannot carry.",
        hint="Convert at the borders of the module: x.float().",
        where=name,
    )


def _program_schema(program: Any, call: Call, detection: Detection) -> ModelSchema:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names = list(program.graph_signature.user_inputs)
    inputs = tuple(_tensor_spec(name, values.get(name), detection) for name in names)
    answered = [values.get(name) for name in program.graph_signature.user_outputs]
    pytree = require("torch.utils._pytree", "A PyTorch model")
    structure = pytree.tree_unflatten(answered, program.call_spec.out_spec)
    outputs = tuple(
        _tensor_spec(name, value, detection, answer=True) for name, value in leaves(structure)
    )
    if not inputs or not outputs:
        raise UnsupportedModelError(f"{detection.path} takes or answers no tensors.")
    return _with_missing(call, ModelSchema(inputs=inputs, outputs=outputs))


def _tensor_spec(
    name: str, value: Any, detection: Detection, *, answer: bool = False
) -> TensorSpec:
    if not hasattr(value, "shape"):
        raise UnsupportedModelError(
            f"{detection.path} has {name!r}, which is no tensor.",
            hint="Export the module with tensors as its only arguments and answers.",
            where=str(name),
        )
    shape: Shape = tuple(d if isinstance(d, int) else None for d in value.shape)
    return TensorSpec(name, _dtype(value, name, detection, answer=answer), shape)


def _with_missing(call: Call, schema: ModelSchema) -> ModelSchema:
    """Asks for missing values, where the program runs on zeros of some size."""
    predictor = TorchPredictor(call, schema)
    for size in (1, *_SIZES):
        batch = probing.zeros(schema.inputs, rows=2, size=size)
        try:
            predictor.predict(batch)
        except ScoringError:
            continue
        inputs = probing.with_missing(schema.inputs, batch, predictor.predict)
        return ModelSchema(inputs=inputs, outputs=schema.outputs)
    return schema


def _script_schema(module: Any, call: Call, sample: Any, detection: Detection) -> ModelSchema:
    arguments = [a for a in module.forward.schema.arguments[1:] if not a.has_default_value()]
    names = [argument.name for argument in arguments]
    if not names or any(str(argument.type) != "Tensor" for argument in arguments):
        raise UnsupportedModelError(
            f"{detection.path} has a forward that takes {module.forward.schema}.",
            hint="Export a module that takes tensors only.",
            where=str(detection.path),
        )
    given = dict(_sampled(sample, names, module)) if sample is not None else None
    if given is None:
        given = _guessed(module, call, names, detection)
    return _described(call, given, detection)


def _sampled(sample: Any, names: list[str], module: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays of a sample by the names of the arguments; floats in the module's own type."""
    if isinstance(sample, Mapping) and set(names) <= set(sample):
        arrays = [np.asarray(sample[name]) for name in names]
    elif len(names) == 1:
        arrays = [np.asarray(sample)]
    else:
        raise UnknownInputError(
            f"The sample must name each input of the model: {', '.join(names)}.", where="sample"
        )
    own = next((as_array(p).dtype for p in module.parameters() if p.is_floating_point()), None)
    for name, array in zip(names, arrays, strict=True):
        is_float = array.dtype.kind == "f"
        yield name, array.astype(own or np.float32) if is_float else array.astype(np.int64)


def _guessed(
    module: Any, call: Call, names: list[str], detection: Detection
) -> dict[str, NDArray[Any]]:
    """An input that the module's first layer takes, proved by running it."""
    found = _first_layer(module) if len(names) == 1 else None
    if found is not None:
        shape, dtype = found
        for size in _SIZES:
            array = np.zeros([2 if i == 0 else d or size for i, d in enumerate(shape)], dtype)
            if _try(call, [array]) is not None or _try(call, [array[:1]]) is not None:
                return {names[0]: array}
    raise UnsupportedModelError(
        f"{detection.path} is TorchScript, which does not record the shape of its input.",
        hint=_SAMPLE_HINT,
        where=str(detection.path),
    )


def _first_layer(module: Any) -> tuple[Shape, Any] | None:
    """The shape and type that the first layer with weights takes."""
    for layer in module.modules():
        kind = layer.original_name
        weights = {n: as_array(p) for n, p in layer.named_parameters(recurse=False)}
        weight = weights.get("weight", weights.get("weight_ih_l0"))
        if weight is None:
            continue
        if kind == "Embedding":
            return (None, None), np.int64
        if kind.startswith("Conv") and not kind.startswith("ConvTranspose"):
            channels = weight.shape[1] * int(getattr(layer, "groups", 1))
            return (None, channels, *[None] * (weight.ndim - 2)), weight.dtype
        if kind in ("LSTM", "GRU", "RNN"):
            return (None, None, weight.shape[1]), weight.dtype
        return (None, weight.shape[-1]), weight.dtype
    return None


def _try(call: Call, arrays: list[NDArray[Any]]) -> Any | None:
    torch = require("torch", "A PyTorch model")
    try:
        with torch.inference_mode():
            return call([torch.from_numpy(np.ascontiguousarray(array)) for array in arrays])
    except Exception:  # noqa: BLE001 - any failure says that these inputs do not work
        return None


def _described(call: Call, given: dict[str, NDArray[Any]], detection: Detection) -> ModelSchema:
    """The schema from inputs that should work: free is each dimension that may be doubled."""
    arrays = list(given.values())
    if _try(call, arrays) is None:
        arrays = [array[:1] for array in arrays]
    answer = _try(call, arrays)
    if answer is None:
        raise _fails(call, arrays, detection)
    batch_is_free = _try(call, [_doubled(array, 0) for array in arrays]) is not None
    inputs = tuple(
        TensorSpec(name, _dtype(array, name, detection), _shape(call, arrays, index, batch_is_free))
        for index, (name, array) in enumerate(zip(given, arrays, strict=True))
    )
    outputs = tuple(
        TensorSpec(
            name,
            _dtype(value, name, detection, answer=True),
            ((None,) if batch_is_free and value.ndim else value.shape[:1]) + tuple(value.shape[1:]),
        )
        for name, value in leaves(answer)
    )
    schema = ModelSchema(inputs=inputs, outputs=outputs)
    predictor = TorchPredictor(call, schema)
    batch = dict(zip(given, arrays, strict=True))
    missing = probing.with_missing(inputs, batch, predictor.predict)
    return ModelSchema(inputs=missing, outputs=outputs)


def _shape(call: Call, arrays: list[NDArray[Any]], index: int, batch_is_free: bool) -> Shape:
    array = arrays[index]
    free = [batch_is_free]
    for axis in range(1, array.ndim):
        changed = [*arrays[:index], _doubled(array, axis), *arrays[index + 1 :]]
        free.append(_try(call, changed) is not None)
    return tuple(None if free[axis] else size for axis, size in enumerate(array.shape))


def _doubled(array: NDArray[Any], axis: int) -> NDArray[Any]:
    return np.concatenate([array, array], axis=axis)


def _fails(
    call: Callable[[list[Any]], Any], arrays: list[NDArray[Any]], detection: Detection
) -> UnsupportedModelError:
    torch = require("torch", "A PyTorch model")
    reason = "it fails"
    try:
        call([torch.from_numpy(array) for array in arrays])
    except Exception as error:  # noqa: BLE001 - whatever the module says is the reason
        reason = last_line(error)
    return UnsupportedModelError(
        f"{detection.path} fails on the sample: {reason}",
        hint="Give a sample with the shape that forward takes, the batch first.",
        where=str(detection.path),
    )
