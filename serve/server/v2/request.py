"""The body of an infer request: JSON, and behind it the bytes of its binary tensors. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scoring.errors import (
    InputError,
    MalformedPayloadError,
    UnknownInputError,
    WrongShapeError,
    WrongTypeError,
)
from scoring.payload.document import Document, parse
from scoring.payload.nesting import depth, too_deep
from scoring.payload.places import listed, quoted
from scoring.payload.words import kind_of
from serve.server.v2 import fields
from serve.server.v2.datatypes import BYTES
from serve.server.v2.inputs import refuse_json
from serve.server.v2.plan import InferRequest, Part, Plan, Wanted
from serve.server.v2.tensors import decoded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve.server.v2.inputs import InputPort, Inputs

_HINT = (
    'Send {"inputs": [{"name": …, "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}, '
    "in UTF-8."
)
_KEPT_PLANS = 64
_KEPT_BYTES = 4096


class RequestReader:
    """Reads the infer requests of one model; may be used on several threads at once.

    Args:
        inputs: The model's.
        outputs: The names of its outputs, and whether JSON can carry them.
        max_depth: How deep a body may be nested.
    """

    def __init__(self, inputs: Inputs, outputs: Mapping[str, bool], max_depth: int) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self._max_depth = max_depth
        self._all_binary = tuple(Wanted(name, binary=True) for name in outputs)
        self._all_json = tuple(Wanted(name, binary=False) for name in outputs)
        self._plans: dict[bytes, Plan] = {}

    def plain(self, request_id: str) -> InferRequest:
        """What a request asks for that names no outputs, without its inputs."""
        return InferRequest({}, request_id, self._require_json(self._all_json), is_plain=True)

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
            return self._read(body, b"")
        if json_size > len(body):
            raise MalformedPayloadError(
                f"Inference-Header-Content-Length is {json_size}, and the body has {len(body)} "
                "bytes.",
                where="inference-header-content-length",
            )
        if json_size == 0:
            return self._read_raw(body)
        text, raw = bytes(body[:json_size]), memoryview(body)[json_size:]
        plan = self._plans.get(text)
        return self._read(text, raw) if plan is None else plan.read(raw, self._inputs)

    def _read(self, text: bytes | bytearray, raw: bytes | memoryview) -> InferRequest:
        try:
            document = parse(text)
        except MalformedPayloadError as error:
            error.hint = _HINT
            raise
        try:
            plan = self._plan(document)
            request = plan.read(raw, self._inputs)
        except InputError:
            if depth(document.value, self._max_depth) > self._max_depth:
                raise too_deep(self._max_depth) from None
            raise
        if raw and plan.lasts and len(text) <= _KEPT_BYTES:
            self._keep(bytes(text), plan)
        return request

    def _keep(self, text: bytes, plan: Plan) -> None:
        if len(self._plans) >= _KEPT_PLANS:
            self._plans.clear()
        self._plans[text] = plan

    def _read_raw(self, body: bytes | bytearray) -> InferRequest:
        """The raw binary request: the body is the only input, its shape follows from its size."""
        ports = list(self._inputs.ports.values())
        if len(ports) != 1:
            raise WrongShapeError(
                f"A body without JSON is for models with one input; this one has {len(ports)}.",
                hint="Send Inference-Header-Content-Length, and name the inputs in JSON.",
                where="inference-header-content-length",
            )
        port, where = ports[0], "The body"
        shape = port.shape_of_size(len(body), where)
        if port.datatype == BYTES:
            text = decoded(bytes(body), where)
            array = port.from_values([text], shape, where, plain=True)
        else:
            array = port.from_raw(body, shape, port.datatype, where)
        return InferRequest(self._inputs.complete({port.name: array}), "", self._all_binary)

    # The JSON

    def _plan(self, document: Document) -> Plan:
        value = document.value
        if not isinstance(value, dict):
            raise MalformedPayloadError(f"The body is {kind_of(value)}, not an object.", hint=_HINT)
        request_id = value.get("id")
        if request_id is not None and not isinstance(request_id, str):
            raise WrongTypeError(f"id is {kind_of(request_id)}, not a string.", where="id")
        given = fields.parameters(value, "")
        parts = self._parts(value.get("inputs"), plain=document.plain)
        wanted = self._wanted(value.get("outputs"), fields.flag(given, "binary_data_output", ""))
        return Plan(parts, request_id or "", wanted, wanted is self._all_json)

    def _parts(self, tensors: Any, *, plain: bool) -> tuple[Part, ...]:
        if not isinstance(tensors, list):
            lacks = "The body has no 'inputs'." if tensors is None else "inputs is not a list."
            raise MalformedPayloadError(lacks, hint=_HINT, where="inputs")
        parts: dict[str, Part] = {}
        for number, tensor in enumerate(tensors):
            where = f"inputs[{number}]"
            if not isinstance(tensor, dict):
                raise WrongTypeError(f"{where} is {kind_of(tensor)}, not an object.", where=where)
            port = self._inputs.port(tensor.get("name"), where, parts)
            parts[port.name] = _part(port, tensor, where, plain=plain)
        return tuple(parts.values())

    def _wanted(self, outputs: Any, binary: bool | None) -> tuple[Wanted, ...]:
        if outputs is None or outputs == []:
            return self._all_binary if binary else self._require_json(self._all_json)
        if not isinstance(outputs, list):
            raise WrongTypeError(f"outputs is {kind_of(outputs)}, not a list.", where="outputs")
        found: dict[str, Wanted] = {}
        for number, output in enumerate(outputs):
            where = f"outputs[{number}]"
            wanted = self._one_wanted(output, bool(binary), where)
            if wanted.name in found:
                raise UnknownInputError(
                    f"{where}: the output {wanted.name!r} stands twice.", where=where
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
        given = fields.parameters(output, f"{where}.")
        own = fields.flag(given, "binary_data", f"{where}.")
        classes = fields.count(given, "classification", f"{where}.", "classes")
        return Wanted(name, binary if own is None else own, classes or 0)

    def _require_json(self, wanted: tuple[Wanted, ...]) -> tuple[Wanted, ...]:
        for output in wanted:
            if not output.binary and not output.classes and not self._outputs[output.name]:
                raise WrongTypeError(
                    "outputs: sending FP16 data via JSON is not supported. Please use the binary "
                    f"data format for output '{output.name}'.",
                    hint='Send "parameters": {"binary_data_output": true}.',
                    where="outputs",
                )
        return wanted


def _part(port: InputPort, tensor: dict[str, Any], where: str, *, plain: bool) -> Part:
    given = fields.parameters(tensor, f"{where}.")
    size = fields.count(given, "binary_data_size", f"{where}.", "bytes")
    datatype = tensor.get("datatype")
    if port.unused:
        return Part(port, where, "", [], size or 0)
    if size is None:
        refuse_json(datatype, port.name, where)
    if size is None or not port.takes(datatype):
        port.check_datatype(datatype, where)
    shape = port.check_shape(tensor.get("shape"), where)
    values = tensor.get("data")
    if size is None:
        _require_data(tensor, where)
    elif values is not None:
        raise MalformedPayloadError(
            f"{where} has both 'data' and a 'binary_data_size'.",
            hint="Send the tensor once.",
            where=where,
        )
    return Part(port, where, str(datatype), shape, size, values, plain)


def _require_data(tensor: dict[str, Any], where: str) -> None:
    if "data" not in tensor:
        raise MalformedPayloadError(
            f"{where} has neither 'data' nor a 'binary_data_size' in its parameters.",
            hint=_HINT,
            where=where,
        )
