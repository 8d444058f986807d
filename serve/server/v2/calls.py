"""One infer request on its way through the server."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from scoring.http import Response
from serve.server.models.call import Call
from serve.server.status import JSON, code_of
from serve.server.v2.errors import failure_response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scoring.runtimes.base import Arrays
    from serve.server.exchange import Exchange
    from serve.server.protocol import Connection
    from serve.server.v2.endpoint import Endpoint
    from serve.server.v2.plan import InferRequest

_REQUEST = "POST infer"


class InferCall(Call):
    """A request that is decoded and answered for an endpoint."""

    __slots__ = ("_body", "_endpoint", "_id", "_json_size", "_request")
    protocol = "v2"
    route = "/v2/models/{model}/infer"

    def __init__(
        self,
        endpoint: Endpoint,
        body: bytes | bytearray,
        begun: float,
        json_size: int | None = None,
    ) -> None:
        super().__init__(len(body), begun)
        self._endpoint = endpoint
        self._body = body
        self._json_size = json_size
        self._id = ""
        self._request: InferRequest | None = None

    def decode(self) -> Arrays:
        """See `Call`."""
        if self._json_size is None:
            found = self._endpoint.quick(self._body)
            if found is not None:
                inputs, self._id = found
                return inputs
        self._request = self._endpoint.reader.read(self._body, self._json_size)
        return self._request.inputs

    def encode(self, outputs: Mapping[str, Any]) -> bytes | Response:
        """The JSON of an answer of status 200, or any other answer."""
        answers, request = self._endpoint.answers, self._request
        if request is None:
            answer = answers.plain(outputs, self._id)
            return answer or answers.write(self._endpoint.reader.plain(self._id), outputs)
        answer = answers.plain(outputs, request.id) if request.is_plain else None
        return answer or answers.write(request, outputs)


class FastCall(InferCall):
    """A plain request that needs no exchange.

    Args:
        endpoint: Of the model.
        body: Of the request.
        connection: Who asks.
        json_size: See `RequestReader.read`.
    """

    __slots__ = ("_connection",)

    def __init__(
        self,
        endpoint: Endpoint,
        body: bytes | bytearray,
        connection: Connection,
        json_size: int | None = None,
    ) -> None:
        super().__init__(endpoint, body, perf_counter(), json_size)
        self._connection = connection

    def settle(self, result: Any, error: BaseException | None) -> None:
        """See `Call`."""
        if type(result) is bytes:
            self._connection.answer_hot(self, result)
        elif error is not None:
            response = failure_response(error, _REQUEST)
            self._connection.answer_response(self, response, code_of(error))
        else:
            self._connection.answer_response(self, result)


class ExchangeCall(InferCall):
    """Any other request.

    Args:
        endpoint: Of the model.
        exchange: The request.
        json_size: See `RequestReader.read`.
        respond: Gives the answer to the client.
    """

    __slots__ = ("_exchange", "_respond")

    def __init__(
        self,
        endpoint: Endpoint,
        exchange: Exchange,
        json_size: int | None,
        respond: Callable[[Exchange, Response], None],
    ) -> None:
        super().__init__(endpoint, exchange.body, exchange.begun, json_size)
        self.deadline = exchange.deadline
        self._exchange = exchange
        self._respond = respond

    def settle(self, result: Any, error: BaseException | None) -> None:
        """See `Call`."""
        if error is not None:
            self._exchange.error = code_of(error)
            self._exchange.respond(failure_response(error, _REQUEST))
        elif isinstance(result, bytes):
            self._respond(self._exchange, Response(200, result, [JSON]))
        else:
            self._respond(self._exchange, result)
