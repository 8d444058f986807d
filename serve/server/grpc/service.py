"""The methods of a server by their paths, made once for all of its HTTP/2 connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from scoring.errors import FieldpostError, ModelNotReadyError, UnknownModelError
from serve.server.grpc.endpoint import Endpoint
from serve.server.grpc.health import (
    NOT_SERVING,
    SERVICE_UNKNOWN,
    SERVING,
    HealthSession,
    check,
)
from serve.server.grpc.inference import InferSession, infer
from serve.server.grpc.messages import message, parse
from serve.server.grpc.metadata import Documents, no_models
from serve.server.grpc.methods import Method
from serve.server.grpc.reflection import ReflectionSession
from serve.server.telemetry.channel import Details

if TYPE_CHECKING:
    from serve.server.grpc.replies import Replying
    from serve.server.grpc.rpc import RpcStream
    from serve.server.hub import Hub
    from serve.server.models.repository import Repository
    from serve.server.telemetry.channel import Channel

    Answer = Callable[[Any], dict[str, Any]]

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
REFLECTIONS = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)

_ATTRIBUTE = "grpc"


def service_of(hub: Hub) -> Service:
    """The service of a server, made when it is first asked for."""
    service: Service | None = vars(hub).get(_ATTRIBUTE)
    if service is None:
        service = vars(hub)[_ATTRIBUTE] = Service(hub)
    return service


class Service:
    """All methods of one server; lives on the event loop's thread.

    Args:
        hub: Of the server.

    Attributes:
        methods: By path.
        counts: Calls are counted.
    """

    def __init__(self, hub: Hub) -> None:
        self._repository: Repository | None = hub.routes.repository
        self._max_depth = hub.settings.max_depth
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        if self._repository is not None:
            self._repository.watch(self._endpoints.clear)
        self._documents = Documents(hub, self._repository, self.find)
        self._telemetry = hub.telemetry
        self._channels: dict[str, Channel] = {}
        self.counts = self._telemetry is not None
        self.methods = {f"/{m.route}".encode(): m for m in self._make_methods()}

    def find(self, name: str, version: str) -> Endpoint:
        """The endpoint of a loaded model; without a version of the newest one.

        Raises:
            UnknownModelError: There is no such name or version.
            ModelNotReadyError: It is known and not loaded.
        """
        endpoint = self._endpoints.get((name, version))
        if endpoint is None:
            if self._repository is None:
                raise no_models()
            model = self._repository.get(name, version)
            endpoint = self._endpoints[name, version] = Endpoint(model, self._max_depth)
        return endpoint

    def status(self, name: str) -> int:
        """The health of a service, or of a model by its name."""
        if name in {"", INFERENCE, HEALTH}:
            return SERVING if self._documents.ready else NOT_SERVING
        try:
            self.find(name, "")
        except ModelNotReadyError:
            return NOT_SERVING
        except UnknownModelError:
            return SERVICE_UNKNOWN
        return SERVING if self._documents.ready else NOT_SERVING

    # What is counted

    def channel(self, method: Method) -> Channel:
        """What counts calls of a method that are about no single model."""
        found = self._channels.get(method.route)
        if found is None:
            assert self._telemetry is not None
            found = self._telemetry.channel("grpc", route=method.route)
            self._channels[method.route] = found
        return found

    def count(
        self, stream: Replying, channel: Channel, code: int, error: BaseException | None
    ) -> None:
        """Counts a call that has its status."""
        assert self._telemetry is not None
        begun = stream.begun or perf_counter()
        told = error.code if isinstance(error, FieldpostError) else "internal" if error else ""
        if told:
            channel.failed(told)
        details = _details(stream, told) if self._telemetry.details else None
        channel.answered(code, begun, stream.size_in, stream.size_out, details)

    # The methods

    def _make_methods(self) -> Iterator[Method]:
        infer_route, stream_route = f"{INFERENCE}/ModelInfer", f"{INFERENCE}/ModelStreamInfer"
        yield Method(infer_route, run=partial(infer, find=self.find))
        yield Method(stream_route, open=partial(InferSession, find=self.find))
        documents = self._documents
        yield from (
            _document("ServerLive", documents.server_live),
            _document("ServerReady", documents.server_ready),
            _document("ModelReady", documents.model_ready),
            _document("ServerMetadata", documents.server_metadata),
            _document("ModelMetadata", documents.model_metadata),
            _document("ModelConfig", documents.model_config),
            _document("ModelStatistics", documents.statistics),
            _document("RepositoryIndex", documents.index),
            _control("RepositoryModelLoad", partial(documents.control, what="load")),
            _control("RepositoryModelUnload", partial(documents.control, what="unload")),
        )
        yield Method(f"{HEALTH}/Check", run=partial(check, status=self.status))
        yield Method(f"{HEALTH}/Watch", open=partial(HealthSession, status=self.status))
        names = (INFERENCE, HEALTH, REFLECTIONS[0])
        for name in REFLECTIONS:
            session = partial(ReflectionSession, services=names)
            yield Method(f"{name}/ServerReflectionInfo", open=session)


def _document(name: str, answer: Answer) -> Method:
    """A method whose answer is there at once."""
    kind, response = message(f"inference.{name}Request"), message(f"inference.{name}Response")

    def run(stream: RpcStream, data: bytes) -> None:
        document = answer(parse(kind, data))
        stream.reply(stream.frame(response(**document).SerializeToString()))

    return Method(f"{INFERENCE}/{name}", run=run)


def _control(name: str, act: Callable[[RpcStream, Any], None]) -> Method:
    """A method whose answer comes when it is done."""
    kind = message(f"inference.{name}Request")

    def run(stream: RpcStream, data: bytes) -> None:
        act(stream, parse(kind, data))

    return Method(f"{INFERENCE}/{name}", run=run)


def _details(stream: Replying, error: str) -> Details:
    """What the access log and traces want to know."""
    head = stream.head
    return Details(
        client=stream.connection.client,
        method=head.method,
        target=head.path,
        headers=head.fields,
        principal=stream.principal.id if stream.principal is not None else "",
        error=error,
    )
