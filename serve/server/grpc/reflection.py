"""Server reflection: tools such as grpcurl ask which services there are, and of what messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serve.server.grpc.descriptors import FILES
from serve.server.grpc.messages import POOL, message, parse
from serve.server.grpc.status import NOT_FOUND, UNIMPLEMENTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve.server.grpc.rpc import RpcStream

Request: Any = message("grpc.reflection.v1.ServerReflectionRequest")
Response: Any = message("grpc.reflection.v1.ServerReflectionResponse")


class ReflectionSession:
    """One ServerReflectionInfo: an answer for each question.

    Args:
        stream: Of the call.
        services: The names of all services.
    """

    def __init__(self, stream: RpcStream, services: Sequence[str]) -> None:
        self._stream = stream
        self._services = services

    def message(self, data: bytes) -> None:
        """A question."""
        request = parse(Request, data)
        answer = Response(valid_host=request.host, original_request=request)
        self._answer(request, answer)
        self._stream.send(self._stream.frame(answer.SerializeToString()))

    def ended(self) -> None:
        """No more questions."""
        self._stream.finish()

    def tick(self) -> None:
        """Nothing changes."""

    def drained(self) -> None:
        """The client has taken the answers so far."""
        self._stream.resume()

    def is_full(self) -> bool:
        """Whether answers wait for the client."""
        return bool(self._stream.queue)

    def wind_down(self) -> None:
        """The server ends."""
        self._stream.finish()

    def cancel(self) -> None:
        """Nothing goes on."""

    def _answer(self, request: Any, answer: Any) -> None:
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for name in self._services:
                answer.list_services_response.service.add(name=name)
        elif kind in {"file_by_filename", "file_containing_symbol"}:
            file = _file(kind, getattr(request, kind))
            if file is None:
                answer.error_response.error_code = NOT_FOUND
                answer.error_response.error_message = f"There is no {getattr(request, kind)!r}."
            else:
                answer.file_descriptor_response.file_descriptor_proto.append(file)
        else:
            answer.error_response.error_code = UNIMPLEMENTED
            answer.error_response.error_message = "There are no extensions here."


def _file(kind: str, name: str) -> bytes | None:
    if kind == "file_by_filename":
        return FILES.get(name)
    try:
        return FILES[POOL.FindFileContainingSymbol(name).name]
    except KeyError:
        return None
