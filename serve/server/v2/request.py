"""The body of an infer request: JSON, and behind it the bytes of its binary tensors. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import (
    InputError,
    MalformedPayloadError,
    UnknownInputError,
    WrongShapeError,
    WrongTypeError,
)
from scoring.payload.arrays import kind_of
from scoring.payload.document import depth, parse, too_deep
from scoring.payload.places import listed, quoted
from serve.server.v2.inputs import refuse_json
from serve.server.v2.tensors import decoded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from serve.server.v2.inputs import InputPort, Inputs

_HINT = (
    'Send {"inputs": [{"name": …, "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}, '
    "in UTF-8."
)
_SHARED_MEMORY = "shared_memory_region"


class Wanted(msgspec.Struct, frozen=True):
    """One output that a request asks for.

    Attributes:
        name: Of the output.
        binary: As bytes behind the JSON.
        classes: How many of its top classes in its place; 0 for the output itself.
    """

    name: str
    binary: bool
    classes: int = 0


class InferRequest(msgspec.Struct):
    """A decoded request.

    Attributes:
        inputs: One array for each input of the model.
        id: To be echoed; empty for none.
        wanted: The outputs in the order of the answer.
        is_plain: All outputs are wanted in JSON, and nothing is to be echoed.
    """

    inputs: dict[str, Any]
    id: str
    wanted: tuple[Wanted, ...]
    is_plain: bool = False


class RequestReader:
    """Reads the infer requests of one model.

    Args:
        inputs: The model's.
        outputs: The names of its outputs, and whether JSON can carry them.
        max_depth: How deep a body may be nested.

    Attributes:
        plain: What a request asks for that names no outputs and has no id.
    """

    def __init__(self, inputs: Inputs, outputs: Mapping[str, bool], max_depth: int) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self._max_depth = max_depth
        self._all_binary = tuple(Wanted(name, binary=True) for name in outputs)
        self._all_json = tuple(Wanted(name, binary=False) for name in outputs)
        self.plain = InferRequest({}, "", self._all_json, is_plain=True)

    def read(self, body: bytes | bytearray, json_size: int | None = None) -> InferRequest:
        """Checks a request against the model.

        Args:
            body: The JSON, and the bytes of binary tensors behind it.
            json_size: How long the JSON is; None for all of the body, 0 for a body that is the
                only input's bytes and nothing else.

        Raises:
            InputError: What the sender has to change, with its place.
        """
        if json_size is None:
            return self._document(body, b"")
        if json_size > len(body):
            raise MalformedPayloadError(
                f"Inference-Header-Content-Length is {json_size}, and the body has {len(body)} "
                "bytes.",
                where="inference-header-content-length",
            )
        if json_size == 0:
            return self._raw(body)
        return self._document(body[:json_size], memoryview(body)[json_size:])

    def _document(self, text: bytes | bytearray, raw: bytes | memoryview) -> InferRequest:
        try:
            document = parse(text)
        except MalformedPayloadError as error:
            error.hint = _HINT
            raise
        try:
            return self._request(document.value, raw, plain=document.plain)
        except InputError:
            if depth(document.value, self._max_depth) > self._max_depth:
                raise too_deep(self._max_depth) from None
            raise

    def _request(self, value: Any, raw: bytes | memoryview, *, plain: bool) -> InferRequest:
        if not isinstance(value, dict):
            raise MalformedPayloadError(f"The body is {kind_of(value)}, not an object.", hint=_HINT)
        request_id = value.get("id")
        if request_id is not None and not isinstance(request_id, str):
            raise WrongTypeError(f"id is {kind_of(request_id)}, not a string.", where="id")
        parameters = _parameters(value, "")
        arrays = self._arrays(value.get("inputs"), raw, plain=plain)
        wanted = self._wanted(value.get("outputs"), _flag(parameters, "binary_data_output", ""))
        is_plain = not request_id and wanted is self._all_json
        return InferRequest(arrays, request_id or "", wanted, is_plain)

    # Inputs

    def _arrays(
        self, tensors: Any, raw: bytes | memoryview, *, plain: bool
    ) -> dict[str, NDArray[Any]]:
        if not isinstance(tensors, list):
            lacks = "The body has no 'inputs'." if tensors is None else "inputs is not a list."
            raise MalformedPayloadError(lacks, hint=_HINT, where="inputs")
        arrays: dict[str, NDArray[Any]] = {}
        begin = 0
        for number, tensor in enumerate(tensors):
            where = f"inputs[{number}]"
            if not isinstance(tensor, dict):
                raise WrongTypeError(f"{where} is {kind_of(tensor)}, not an object.", where=where)
            port = self._inputs.port(tensor.get("name"), where, arrays)
            size = _binary_size(_parameters(tensor, f"{where}."), where)
            if size is None:
                if not port.unused:
                    arrays[port.name] = _from_json(port, tensor, where, plain=plain)
                continue
            if size > len(raw) - begin:
                raise _too_few(size, len(raw) - begin, where)
            if not port.unused:
                part = raw[begin : begin + size]
                arrays[port.name] = _from_binary(port, tensor, part, where)
            begin += size
        if begin != len(raw):
            raise WrongShapeError(
                f"Behind the inputs there are {len(raw) - begin} bytes of binary data that none of "
                "them takes.",
                hint="Give each binary input its size in parameters.binary_data_size.",
                where="inputs",
            )
        return self._inputs.complete(arrays)

    def _raw(self, body: bytes | bytearray) -> InferRequest:
        """The raw binary request: the body is the only input, its shape follows from its size."""
        ports = list(self._inputs.ports.values())
        if len(ports) != 1:
            raise WrongShapeError(
                f"A body without JSON is for models with one input; this one has {len(ports)}.",
                hint="Send Inference-Header-Content-Length, and name the inputs in JSON.",
                where="inference-header-content-length",
            )
        port = ports[0]
        shape = port.shape_of_size(len(body), "the body")
        if port.datatype == "BYTES":
            array = port.from_values([_text(body)], shape, "the body", plain=True)
        else:
            array = port.from_raw(body, shape, port.datatype, "the body")
        return InferRequest(self._inputs.complete({port.name: array}), "", self._all_binary)

    # Outputs

    def _wanted(self, outputs: Any, binary: bool | None) -> tuple[Wanted, ...]:
        if outputs is None or outputs == []:
            return self._all_binary if binary else self._require_json(self._all_json)
        if not isinstance(outputs, list):
            raise WrongTypeError(f"outputs is {kind_of(outputs)}, not a list.", where="outputs")
        found: dict[str, Wanted] = {}
        for number, output in enumerate(outputs):
            wanted = self._one_wanted(output, bool(binary), f"outputs[{number}]")
            if wanted.name in found:
                raise UnknownInputError(
                    f"outputs[{number}]: the output {wanted.name!r} stands twice.",
                    where=f"outputs[{number}]",
                )
            found[wanted.name] = wanted
        return self._require_json(tuple(found.values()))

    def _one_wanted(self, output: Any, binary: bool, where: str) -> Wanted:
        if not isinstance(output, dict):
            raise WrongTypeError(f"{where} is {kind_of(output)}, not an object.", where=where)
        name = output.get("name")
        if not isinstance(name, str) or name not in self._outputs:
            raise UnknownInputError(
                f"{where}: unexpected inference output {quoted(name)} for the model.",
                hint=f"Its outputs are {listed(list(self._outputs))}.",
                where=f"{where}.name",
            )
        parameters = _parameters(output, f"{where}.")
        own = _flag(parameters, "binary_data", f"{where}.")
        return Wanted(name, binary if own is None else own, _class_count(parameters, where))

    def _require_json(self, wanted: tuple[Wanted, ...]) -> tuple[Wanted, ...]:
        for output in wanted:
            if not output.binary and not output.classes and not self._outputs[output.name]:
                raise WrongTypeError(
                    f"outputs: sending FP16 data via JSON is not supported. Please use the binary "
                    f"data format for output '{output.name}'.",
                    hint='Send "parameters": {"binary_data_output": true}.',
                    where="outputs",
                )
        return wanted


def _from_json(port: InputPort, tensor: dict[str, Any], where: str, *, plain: bool) -> NDArray[Any]:
    datatype = tensor.get("datatype")
    refuse_json(datatype, port.name, where)
    port.check_datatype(datatype, where)
    shape = port.check_shape(tensor.get("shape"), where)
    if "data" not in tensor:
        raise MalformedPayloadError(
            f"{where} has neither 'data' nor a 'binary_data_size' in its parameters.",
            hint=_HINT,
            where=where,
        )
    return port.from_values(tensor["data"], shape, f"{where}.data", plain=plain)


def _from_binary(
    port: InputPort, tensor: dict[str, Any], raw: bytes | memoryview, where: str
) -> NDArray[Any]:
    datatype = tensor.get("datatype")
    if not port.takes(datatype):
        port.check_datatype(datatype, where)
    if tensor.get("data") is not None:
        raise MalformedPayloadError(
            f"{where} has both 'data' and a 'binary_data_size'.",
            hint="Send the tensor once.",
            where=where,
        )
    shape = port.check_shape(tensor.get("shape"), where)
    return port.from_raw(raw, shape, str(datatype), where)


def _parameters(value: dict[str, Any], path: str) -> dict[str, Any]:
    """The parameters of a request or tensor; those that are not known here change nothing."""
    parameters = value.get("parameters")
    if parameters is None:
        return {}
    where = f"{path}parameters"
    if not isinstance(parameters, dict):
        raise WrongTypeError(f"{where} is {kind_of(parameters)}, not an object.", where=where)
    if _SHARED_MEMORY in parameters:
        raise UnknownInputError(
            f"{where}: shared memory is not supported here.",
            hint="Send the tensor's data with the request.",
            where=f"{where}.{_SHARED_MEMORY}",
        )
    return parameters


def _binary_size(parameters: dict[str, Any], where: str) -> int | None:
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        place = f"{where}.parameters.binary_data_size"
        raise WrongTypeError(f"{place} is {quoted(size)}, not a number of bytes.", where=place)
    return size


def _too_few(size: int, there: int, where: str) -> WrongShapeError:
    return WrongShapeError(
        f"{where} says that it has {size} bytes of binary data; {max(there, 0)} are there.",
        hint="Send the bytes behind the JSON, and its length as Inference-Header-Content-Length.",
        where=f"{where}.parameters.binary_data_size",
    )


def _flag(parameters: dict[str, Any], name: str, path: str) -> bool | None:
    value = parameters.get(name)
    if value is None or isinstance(value, bool):
        return value
    where = f"{path}parameters.{name}"
    raise WrongTypeError(f"{where} is {kind_of(value)}, not a boolean.", where=where)


def _class_count(parameters: dict[str, Any], where: str) -> int:
    count = parameters.get("classification")
    if count is None:
        return 0
    if type(count) is not int or count < 0:
        place = f"{where}.parameters.classification"
        raise WrongTypeError(f"{place} is {quoted(count)}, not a number of classes.", where=place)
    return count


def _text(body: bytes | bytearray) -> str:
    return decoded(bytes(body), "The body")
