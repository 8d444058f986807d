"""Infer messages to arrays and back, by what is made once for a model.

Tensors of numbers in shapes that were seen before, which is what a client sends all the time, are
read and written by plans. Others take the way that REST takes, with its checks and errors.
"""

from __future__ import annotations

from math import isfinite, prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scoring.errors import MalformedPayloadError, UnknownInputError, WrongTypeError
from scoring.payload.places import listed, quoted
from serve.server.grpc.messages import ModelInferResponse
from serve.server.v2.datatypes import BY_NUMPY, BYTES, NUMPY
from serve.server.v2.endpoint import Endpoint as V2Endpoint
from serve.server.v2.inputs import refuse_json, takes_any_float
from serve.server.v2.tensors import decoded, to_raw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from scoring.runtimes.base import Arrays
    from serve.server.models.served import ServedModel
    from serve.server.v2.inputs import InputPort

_MOST_PLANS = 256
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
_SHARED_MEMORY = "shared_memory_region"
_CLASSES = "classification"
_RAW_TAG = b"\x32"  # raw_output_contents, length-delimited
_ID_TAG = b"\x1a"
_FINAL = "triton_final_response"


class Wanted(NamedTuple):
    """One output that a request asks for.

    Attributes:
        name: Of the output.
        classes: How many of its top classes in its place; 0 for the output itself.
    """

    name: str
    classes: int = 0


class _Input(NamedTuple):
    """How a raw tensor of one name, datatype and shape is read."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size: int
    finite: bool


class _Output(NamedTuple):
    """How the outputs of one form are written."""

    head: bytes
    raws: tuple[tuple[str, bytes], ...]


class Endpoint:
    """One version of a model, as gRPC sees it.

    Args:
        model: The model.
        max_depth: How deep JSON may be nested; for the part that REST shares.

    Attributes:
        model: See above.
        target: The path of its infer route, by which it is known who may ask it.
        v2: The part that REST shares.
    """

    def __init__(self, model: ServedModel, max_depth: int) -> None:
        self.model = model
        self.target = f"/v2/models/{model.name}/infer".encode()
        self.v2 = V2Endpoint(model, max_depth)
        self._inputs = self.v2.inputs
        self._outputs = self.v2.answers.ports
        self._finite = not takes_any_float(model.format)
        self._every = tuple(Wanted(name) for name in self._outputs)
        # Without these, an answer is its plan and the bytes of its arrays.
        self._plain = all(spec.dtype not in {"string", "map"} for spec in model.schema.outputs)
        self._input_plans: dict[Any, _Input] = {}
        self._output_plans: dict[Any, _Output] = {}

    # Requests

    def decode(self, request: Any) -> Arrays:
        """The arrays of a `ModelInferRequest`.

        Raises:
            InputError: What the sender has to change, with its place.
        """
        tensors, raws = request.inputs, request.raw_input_contents
        if raws:
            self._check_raws(tensors, raws)
        arrays: dict[str, NDArray[Any]] = {}
        for number, tensor in enumerate(tensors):
            raw = raws[number] if raws else None
            name = tensor.name
            if raw is not None and name not in arrays:
                plan = self._input_plans.get((name, tensor.datatype, tuple(tensor.shape)))
                if plan is not None and plan.size == len(raw) and not tensor.parameters:
                    array = np.frombuffer(raw, plan.dtype).reshape(plan.shape)
                    if not plan.finite or isfinite(np.vdot(array, array)):
                        arrays[name] = array
                        continue
            self._read(tensor, raw, f"inputs[{number}]", arrays)
        return self._inputs.complete(arrays)

    def _check_raws(self, tensors: Any, raws: Sequence[bytes]) -> None:
        if len(raws) != len(tensors):
            raise MalformedPayloadError(
                f"raw_input_contents has {len(raws)} entries for {len(tensors)} inputs.",
                hint="Send one for each input, in the order of the inputs.",
                where="raw_input_contents",
            )
        for number, tensor in enumerate(tensors):
            if tensor.HasField("contents"):
                raise MalformedPayloadError(
                    f"inputs[{number}] has contents beside raw_input_contents.",
                    hint="Send all tensors raw, or all of them in their contents.",
                    where=f"inputs[{number}].contents",
                )

    def _read(
        self, tensor: Any, raw: bytes | None, where: str, arrays: dict[str, NDArray[Any]]
    ) -> None:
        """Reads any tensor, with all checks."""
        port = self._inputs.port(tensor.name, where, arrays)
        _refuse_shared_memory(tensor.parameters, where)
        if port.unused:
            return
        datatype = tensor.datatype
        shape = port.check_shape(list(tensor.shape), where)
        if raw is None:
            port.check_datatype(datatype, where)
            refuse_json(datatype, port.name, where)
            values = _values(tensor, where)
            arrays[port.name] = port.from_values(values, shape, f"{where}.contents", plain=True)
            return
        if not port.takes(datatype):
            port.check_datatype(datatype, where)
        arrays[port.name] = port.from_raw(raw, shape, datatype, where)
        self._plan_input(port, tensor, shape)

    def _plan_input(self, port: InputPort, tensor: Any, shape: list[int]) -> None:
        """Remembers how a tensor was read that was right."""
        dtype = NUMPY.get(tensor.datatype)
        if dtype is None or tensor.datatype != port.datatype or dtype.kind == "b":
            return
        size = prod(shape) * dtype.itemsize
        # The square of a float16 is soon beyond its range.
        finite = self._finite and dtype.kind == "f" and not port.spec.missing
        if finite and dtype.itemsize == 2:  # noqa: PLR2004
            return
        if len(self._input_plans) >= _MOST_PLANS:
            self._input_plans.clear()
        key = (port.name, tensor.datatype, tuple(tensor.shape))
        native = dtype.newbyteorder("=")
        self._input_plans[key] = _Input(port.name, native, tuple(shape), size, finite)

    def wanted(self, request: Any) -> tuple[Wanted, ...]:
        """The outputs that a request asks for; all of them where it names none.

        Raises:
            InputError: There is no such output, or it stands twice.
        """
        if not request.outputs:
            return self._every
        found: dict[str, Wanted] = {}
        for number, output in enumerate(request.outputs):
            where = f"outputs[{number}]"
            name = output.name
            if name not in self._outputs:
                raise UnknownInputError(
                    f"{where}: unexpected inference output {quoted(name)} for the model.",
                    hint=f"Its outputs are {listed(list(self._outputs))}.",
                    where=f"{where}.name",
                )
            if name in found:
                raise UnknownInputError(
                    f"{where}: the output {name!r} stands twice.", where=f"{where}.name"
                )
            found[name] = Wanted(name, _class_count(output.parameters, where))
        return tuple(found.values())

    # Answers

    def encode(
        self,
        outputs: Mapping[str, Any],
        wanted: tuple[Wanted, ...],
        request_id: str,
        *,
        final: bool = False,
    ) -> bytes:
        """A serialized `ModelInferResponse`.

        Args:
            outputs: What the model gave.
            wanted: What the request asks for.
            request_id: To be echoed; empty for none.
            final: Say that no other answer to this request follows.

        Raises:
            InputError: An output cannot be given in the form that was asked for.
        """
        arrays: list[tuple[str, NDArray[Any]]]
        if self._plain and wanted is self._every:
            arrays = list(outputs.items())
            key = (final, *[(array.shape, array.dtype) for _, array in arrays])
            plan = self._output_plans.get(key)
            if plan is not None:
                parts = [plan.head]
                if request_id:
                    parts.append(_id_field(request_id))
                for name, tag in plan.raws:
                    parts += (tag, outputs[name].tobytes())
                return b"".join(parts)
            self._plan_output(key, outputs, final=final)
        arrays = [
            (each.name, self._outputs[each.name].array(outputs[each.name], each.classes))
            for each in wanted
        ]
        response = self._head(arrays, final=final)
        if request_id:
            response.id = request_id
        response.raw_output_contents.extend(to_raw(array) for _, array in arrays)
        return bytes(response.SerializeToString())

    def _head(self, arrays: Sequence[tuple[str, NDArray[Any]]], *, final: bool) -> Any:
        """All of an answer but the elements of its tensors."""
        response = ModelInferResponse(model_name=self.model.name, model_version=self.model.version)
        if final:
            response.parameters[_FINAL].bool_param = True
        for name, array in arrays:
            datatype = BY_NUMPY.get(array.dtype, BYTES)
            tensor = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
            for key, value in self._outputs[name].parameters.items():
                tensor.parameters[key].string_param = value
        return response

    def _plan_output(self, key: Any, outputs: Mapping[str, Any], *, final: bool) -> None:
        """Remembers how outputs of one form are written, where they go out as they are."""
        arrays = [(each.name, outputs[each.name]) for each in self._every]
        for name, array in arrays:
            if self._outputs[name].array(array) is not array or array.dtype.byteorder == ">":
                return
        if len(self._output_plans) >= _MOST_PLANS:
            self._output_plans.clear()
        head = self._head(arrays, final=final).SerializeToString()
        raws = tuple((name, _RAW_TAG + _varint(array.nbytes)) for name, array in arrays)
        self._output_plans[key] = _Output(bytes(head), raws)


def _values(tensor: Any, where: str) -> list[Any]:
    """The elements of typed contents.

    Raises:
        MalformedPayloadError: There are none, or in a field for another datatype.
    """
    wanted = _CONTENTS[tensor.datatype]
    for field, values in tensor.contents.ListFields():
        if field.name != wanted:
            raise MalformedPayloadError(
                f"{where}.contents has {field.name}; {tensor.datatype} stands in {wanted}.",
                hint="Send the elements in the field of their datatype, or raw.",
                where=f"{where}.contents.{field.name}",
            )
        if wanted == "bytes_contents":
            return [decoded(v, f"{where}.contents[{n}]") for n, v in enumerate(values)]
        return list(values)
    raise MalformedPayloadError(
        f"{where} has neither contents nor an entry in raw_input_contents.",
        hint=f"Send its elements in contents.{wanted}, or raw.",
        where=where,
    )


def _refuse_shared_memory(parameters: Any, where: str) -> None:
    if parameters and _SHARED_MEMORY in parameters:
        raise UnknownInputError(
            f"{where}: shared memory is not supported here.",
            hint="Send the tensor's data with the request.",
            where=f"{where}.parameters.{_SHARED_MEMORY}",
        )


def _class_count(parameters: Any, where: str) -> int:
    if not parameters:
        return 0
    _refuse_shared_memory(parameters, where)
    if _CLASSES not in parameters:
        return 0
    value = parameters[_CLASSES]
    count = getattr(value, value.WhichOneof("parameter_choice") or "int64_param")
    if type(count) is not int or count < 0:
        place = f"{where}.parameters.{_CLASSES}"
        raise WrongTypeError(f"{place} is {quoted(count)}, not a number of classes.", where=place)
    return count


def _id_field(request_id: str) -> bytes:
    data = request_id.encode()
    return _ID_TAG + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """A whole number in protobuf's encoding."""
    parts = bytearray()
    while number > 0x7F:  # noqa: PLR2004
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
