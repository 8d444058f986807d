"""Everything that is asked of servers and models but inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scoring.errors import FieldpostError, ModelNotReadyError, UnknownInputError, UnknownModelError
from scoring.payload.places import quoted
from serve.server.grpc.messages import message
from serve.server.v2 import metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.server.grpc.endpoint import Endpoint
    from serve.server.grpc.rpc import RpcStream
    from serve.server.hub import Hub
    from serve.server.models.repository import Repository

    Find = Callable[[str, str], Endpoint]

_CONTROLS = {"load": "RepositoryModelLoadResponse", "unload": "RepositoryModelUnloadResponse"}


def inference(name: str) -> Any:
    """The class of one of the protocol's messages."""
    return message(f"inference.{name}")


class Documents:
    """Answers the unary methods of the inference service that compute nothing.

    Args:
        hub: Of the server.
        repository: Its models; None for a server of a script.
        find: The endpoint of a model by name and version.
    """

    def __init__(self, hub: Hub, repository: Repository | None, find: Find) -> None:
        self._hub = hub
        self._repository = repository
        self._find = find

    @property
    def ready(self) -> bool:
        """Whether the server takes new requests."""
        return bool(self._hub.routes.ready) and not self._hub.draining

    def server_live(self, _request: Any) -> dict[str, Any]:
        """Whether the server runs."""
        return {"live": True}

    def server_ready(self, _request: Any) -> dict[str, Any]:
        """Whether it takes requests."""
        return {"ready": self.ready}

    def model_ready(self, request: Any) -> dict[str, Any]:
        """Whether a model answers; of one that is not known, the error says so."""
        try:
            self._find(request.name, request.version)
        except ModelNotReadyError:
            return {"ready": False}
        return {"ready": True}

    def server_metadata(self, _request: Any) -> dict[str, Any]:
        """Name, version and extensions."""
        return metadata.server(self._hub.settings.server_name)

    def model_metadata(self, request: Any) -> dict[str, Any]:
        """The tensors of a model."""
        endpoint = self._find(request.name, request.version)
        versions = self._models.versions(endpoint.model.name)
        document = metadata.model(endpoint.v2, versions)
        for tensor in document["outputs"]:
            tensor.pop("parameters", None)  # which gRPC's message has no field for
        notes = document.pop("parameters", {})
        document["parameters"] = {name: {"string_param": notes[name]} for name in notes}
        return document

    def model_config(self, request: Any) -> dict[str, Any]:
        """The part of Triton's configuration that there is."""
        document = metadata.config(self._find(request.name, request.version).v2)
        for tensor in document["input"]:
            tensor.pop("format", None)  # the default
        return {"config": document}

    def statistics(self, request: Any) -> dict[str, Any]:
        """What models have done: one of them, or all."""
        name, version = request.name, request.version
        if self._repository is None:
            return {}
        models = [
            model
            for model in self._repository.models()
            if name in {"", model.name} and version in {"", model.version}
        ]
        if name and not models:
            self._find(name, version)  # tells why there is none
        return metadata.statistics((m.name, m.version, m.stats) for m in models)

    def index(self, request: Any) -> dict[str, Any]:
        """All models that are known."""
        if self._repository is None:
            return {}
        return {"models": metadata.index(self._repository.index(), ready=request.ready)}

    def control(self, stream: RpcStream, request: Any, what: str) -> None:
        """Loads or unloads a model, and answers when that is done."""
        name = request.model_name
        _check_control(request.parameters, what)
        principal = stream.principal
        if principal is not None:
            principal.require_model(name, "admin")
        answer = stream.frame(inference(_CONTROLS[what])().SerializeToString())

        def done(error: BaseException | None) -> None:
            if error is None:
                stream.reply(answer)
            else:
                stream.fail(_not_controlled(error, name, what))

        if what == "load":
            self._models.load(name, done)
        else:
            self._models.unload(name, done)

    @property
    def _models(self) -> Repository:
        if self._repository is None:
            raise no_models()
        return self._repository


def no_models() -> UnknownModelError:
    """The error of a server whose script answers without a schema."""
    return UnknownModelError(
        "Request for unknown model: this server runs a scoring script, which has no tensors.",
        hint="POST to /score.",
    )


def _check_control(parameters: Any, what: str) -> None:
    """Refuses what a load or unload cannot do here: models come from their packages alone."""
    for name in parameters:
        if what == "unload" and name == "unload_dependents":
            continue
        kind = "files" if name.startswith("file:") else f"parameter {quoted(name)}"
        raise UnknownInputError(
            f"parameters: {what} takes no {kind} here.",
            hint="Models are loaded as they were packaged; register and package another version.",
            where=f"parameters.{name}",
        )


def _not_controlled(error: BaseException, name: str, what: str) -> BaseException:
    """The error with the words that Triton's clients look for."""
    start = f"failed to {what} '{name}'"
    if isinstance(error, FieldpostError) and start not in error.message:
        error.message = f"{start}, {error.message}"
    return error
