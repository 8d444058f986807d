"""ModelInfer and ModelStreamInfer."""

from __future__ import annotations

import logging
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from scoring.errors import FieldpostError, ModelNotReadyError, UnauthorizedError
from serve.server.grpc.messages import ModelInferRequest, ModelStreamInferResponse, parse
from serve.server.grpc.status import text_of
from serve.server.models.call import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scoring.runtimes.base import Arrays
    from serve.server.grpc.endpoint import Endpoint
    from serve.server.grpc.rpc import RpcStream

    Find = Callable[[str, str], Endpoint]

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 64
_EMPTY_FINAL = "triton_enable_empty_final_response"


class InferCall(Call):
    """One `ModelInferRequest`.

    Args:
        stream: Of the call.
        endpoint: Of the model.
        request: The message.
        size: Its bytes.
    """

    __slots__ = ("_endpoint", "_request", "_stream", "_wanted")

    protocol = "grpc"
    route = "inference.GRPCInferenceService/ModelInfer"

    def __init__(self, stream: RpcStream, endpoint: Endpoint, request: Any, size: int) -> None:
        super().__init__(size, stream.begun, stream.deadline)
        self._stream = stream
        self._endpoint = endpoint
        self._request = request

    def decode(self) -> Arrays:
        """See `Call`."""
        self._wanted = self._endpoint.wanted(self._request)
        return self._endpoint.decode(self._request)

    def encode(self, outputs: Mapping[str, Any]) -> bytes:
        """A message as it is sent."""
        request_id = self._request.id
        return self._stream.frame(self._endpoint.encode(outputs, self._wanted, request_id))

    def settle(self, result: bytes | None, error: BaseException | None) -> None:
        """See `Call`."""
        if result is None:
            self._stream.fail(error or RuntimeError("nothing came of a request"))
        else:
            self._stream.reply(result)


def infer(stream: RpcStream, data: bytes, find: Find) -> None:
    """Answers ModelInfer.

    Raises:
        FieldpostError: There is no such model, the caller may not ask it, or it has no time.
    """
    request = parse(ModelInferRequest, data)
    endpoint = _endpoint_of(stream, request, find)
    call = InferCall(stream, endpoint, request, len(data))
    stream.job = call
    try:
        endpoint.model.submit(call)
    finally:
        stream.channel = call.channel or stream.channel


def _endpoint_of(stream: RpcStream, request: Any, find: Find) -> Endpoint:
    endpoint = find(request.model_name, request.model_version)
    principal = stream.principal
    if principal is not None and endpoint.target not in principal.admitted:
        principal.require_model(endpoint.model.name)
        principal.admit(endpoint.target)
    return endpoint


class StreamCall(InferCall):
    """One request of a stream. Its answer waits for those before it."""

    __slots__ = ("_session", "answer", "final")

    def __init__(
        self, session: InferSession, endpoint: Endpoint, request: Any, size: int, begun: float
    ) -> None:
        super().__init__(session.stream, endpoint, request, size)
        self.begun = begun
        self._session = session
        self.answer: bytes | None = None

    def encode(self, outputs: Mapping[str, Any]) -> bytes:
        """A `ModelStreamInferResponse` as it is sent."""
        request_id = self._request.id
        response = self._endpoint.encode(outputs, self._wanted, request_id, final=True)
        message = ModelStreamInferResponse()
        message.infer_response.MergeFromString(response)
        return self._stream.frame(message.SerializeToString())

    def settle(self, result: bytes | None, error: BaseException | None) -> None:
        """See `Call`."""
        if result is None:
            error = error or RuntimeError("nothing came of a request")
            if not isinstance(error, FieldpostError):
                logger.error("ModelStreamInfer failed", exc_info=error)
            result = refusal(self._stream, self._request, error)
        self.answer = result
        self._session.settled()


def refusal(stream: RpcStream, request: Any, error: BaseException) -> bytes:
    """The answer to one request of a stream that could not be answered; the stream goes on.

    It names the request, so that a client knows which one.
    """
    message = ModelStreamInferResponse(error_message=text_of(error))
    if request is not None:
        message.infer_response.id = request.id
        message.infer_response.model_name = request.model_name
    return stream.frame(message.SerializeToString())


class InferSession:
    """A ModelStreamInfer: requests are computed side by side, and answered in their order.

    Every request has exactly one answer, which says that it is the final one. So
    `triton_enable_empty_final_response` brings no other one.

    Args:
        stream: Of the call.
        find: The endpoint of a model by name and version.
    """

    def __init__(self, stream: RpcStream, find: Find) -> None:
        self.stream = stream
        self._find = find
        self._calls: deque[StreamCall | bytes] = deque()
        self._ended = self._sending = False
        self._begun = False  # the first request was admitted with the stream

    def message(self, data: bytes) -> None:
        """The next request.

        Raises:
            UnauthorizedError: The caller's credential is over, and the stream with it.
        """
        request = None
        try:
            request = parse(ModelInferRequest, data)
            if self._begun:
                self.stream.admit_again()
            self._begun = True
            endpoint = _endpoint_of(self.stream, request, self._find)
            call = StreamCall(self, endpoint, request, len(data), perf_counter())
            endpoint.model.submit(call)
        except UnauthorizedError:
            raise
        except FieldpostError as error:
            self._calls.append(refusal(self.stream, request, error))
            self._send()
        else:
            self._calls.append(call)

    def ended(self) -> None:
        """The client sends no more."""
        self._ended = True
        self._send()

    def is_full(self) -> bool:
        """Whether as many requests wait as may."""
        return len(self._calls) >= _MOST_AT_ONCE or bool(self.stream.queue)

    def settled(self) -> None:
        """One of the calls has its answer."""
        was_full = self.is_full()
        self._send()
        if was_full and not self.is_full():
            self.stream.resume()

    def drained(self) -> None:
        """The client has taken the answers so far."""
        if not self.is_full():
            self.stream.resume()

    def tick(self) -> None:
        """Nothing changes by itself."""

    def wind_down(self) -> None:
        """The server ends: what has begun is answered."""
        if self._calls:
            self._ended = True
        else:
            self.stream.fail(
                ModelNotReadyError("The server ends.", hint="Connect again, to another one.")
            )

    def cancel(self) -> None:
        """Nobody waits: what has not begun is not computed."""
        for call in self._calls:
            if isinstance(call, Call):
                call.cancel()
        self._calls.clear()

    def _send(self) -> None:
        """Sends the answers that are there, up to the first that is not.

        To send may make room for the next request, or for the end, which lead here again: what
        they have to say comes after what is being sent.
        """
        if self._sending:
            return
        self._sending = True
        try:
            while self._calls:
                first = self._calls[0]
                answer = first if isinstance(first, bytes) else first.answer
                if answer is None:
                    return
                self._calls.popleft()
                self.stream.send(answer)
        finally:
            self._sending = False
        if self._ended:
            self.stream.finish()
