"""Calls of the protocols that answer JSON with JSON, on both ways through a connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

from scoring.errors import FieldpostError
from scoring.http import Response
from scoring.payload.codec import dumps
from serve.server.models.call import Call
from serve.server.status import JSON, code_of, failure_response, headers_of, sentence, status_of

if TYPE_CHECKING:
    from scoring.runtimes.base import Arrays
    from serve.server.exchange import Exchange
    from serve.server.models.served import ServedModel
    from serve.server.protocol import Connection

Tell = Callable[[BaseException, str], Response]
"""A protocol's answer to an error; the text says what was asked, for the log."""

Decode = Callable[["ServedModel", "bytes | bytearray"], "tuple[Arrays, bool]"]
"""A body to inputs, and whether the answer is to be by column."""

Encode = Callable[["ServedModel", "Mapping[str, Any]", bool], bytes]

_OURS = "The server failed on this request. The log of the server says why."


_QUICK_KEYS = ((b'{"instances":', False), (b'{"inputs":', True))


def quick(model: ServedModel, body: bytes | bytearray) -> tuple[Arrays, bool] | None:
    """The inputs of the most frequent bodies, by the codec's shortest way; None for all others.

    Args:
        model: What is asked.
        body: `{"instances": rows}` or `{"inputs": rows}`, which is answered by column.
    """
    for start, by_column in _QUICK_KEYS:
        # Two quotation marks: there is no other key, and no text.
        if body.startswith(start) and body.count(b'"') == 2:  # noqa: PLR2004
            inputs = model.codec.quick(b'{"data":' + body[len(start) :])
            return None if inputs is None else (inputs, by_column)
    return None


def teller(form: Callable[[int, str], dict[str, str]]) -> Tell:
    """What answers errors in a protocol's form.

    Args:
        form: The document of a status and a sentence.
    """

    def tell(error: BaseException, request: str) -> Response:
        if isinstance(error, FieldpostError):
            status, text, headers = status_of(error), sentence(error), headers_of(error)
        else:
            status, text, headers = failure_response(error, request).status, _OURS, []
        return Response(status, dumps(form(status, text)), [JSON, *headers])

    return tell


def refuse(exchange: Exchange, error: BaseException, tell: Tell) -> None:
    """Answers an exchange with an error in a protocol's form."""
    exchange.error = code_of(error)
    exchange.respond(tell(error, f"{exchange.method} {exchange.path}"))


class JsonCall(Call):
    """One request whose body and answer the protocol's own functions take apart and write.

    Args:
        model: What is asked.
        body: Of the request.
        decode: Of the protocol.
        encode: Of the protocol.
    """

    __slots__ = ("_body", "_by_column", "_decode", "_encode", "_model")

    def __init__(
        self,
        model: ServedModel,
        body: bytes | bytearray,
        decode: Decode,
        encode: Encode,
        begun: float,
    ) -> None:
        super().__init__(len(body), begun)
        self._model = model
        self._body = body
        self._decode = decode
        self._encode = encode
        self._by_column = False

    def decode(self) -> Arrays:
        """See `Call`."""
        inputs, self._by_column = self._decode(self._model, self._body)
        return inputs

    def encode(self, outputs: Mapping[str, Any]) -> bytes:
        """The JSON of the answer."""
        return self._encode(self._model, outputs, self._by_column)


class FastJsonCall(JsonCall):
    """A call that a connection waits for itself."""

    __slots__ = ("_connection", "_tell")

    def __init__(
        self,
        connection: Connection,
        model: ServedModel,
        body: bytes | bytearray,
        decode: Decode,
        encode: Encode,
        tell: Tell,
    ) -> None:
        super().__init__(model, body, decode, encode, perf_counter())
        self._connection = connection
        self._tell = tell

    def settle(self, result: Any, error: BaseException | None) -> None:
        """See `Call`."""
        if error is None:
            self._connection.answer_hot(self, result)
        else:
            response = self._tell(error, f"A request to {self._model.name}")
            self._connection.answer_response(self, response, code_of(error))


class ExchangeJsonCall(JsonCall):
    """A call that an exchange waits for."""

    __slots__ = ("_exchange", "_tell")

    def __init__(
        self,
        exchange: Exchange,
        model: ServedModel,
        decode: Decode,
        encode: Encode,
        tell: Tell,
    ) -> None:
        super().__init__(model, exchange.body, decode, encode, exchange.begun)
        self.deadline = exchange.deadline
        self._exchange = exchange
        self._tell = tell

    def settle(self, result: Any, error: BaseException | None) -> None:
        """See `Call`."""
        if error is None:
            self._exchange.respond(Response(200, result, [JSON]))
        else:
            refuse(self._exchange, error, self._tell)
