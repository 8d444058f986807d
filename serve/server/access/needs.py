"""What a request target asks for, before any route looks at it. Pure.

It is told from the same decoded path that the routes get. Below `/v2/models/` and `/v1/models/` the
first segment is the model, whatever follows it, so that no route there escapes its name.
"""

from __future__ import annotations

from typing import NamedTuple

from serve.server.access.principal import ADMIN, INFER, METRICS
from serve.server.wire import split_target


class Need(NamedTuple):
    """A scope, and the model that it is needed for.

    Attributes:
        scope: Empty: everyone may ask.
        model: None where it is about no single model; empty for the server's default model.
    """

    scope: str
    model: str | None = None


OPEN = Need("")
_DEFAULT_MODEL = Need(INFER, "")
_ANY_MODEL = Need(INFER)

_EXACT = {
    **dict.fromkeys(("/", "/health", "/ping", "/v2/health/live", "/v2/health/ready"), OPEN),
    **dict.fromkeys(("/health/live", "/health/ready", "/health/startup"), OPEN),
    **dict.fromkeys(("/score", "/invocations", "/swagger.json", "/openapi.json"), _DEFAULT_MODEL),
    "/metrics": Need(METRICS),
}
_MODELS = ("/v2/models/", "/v1/models/")
_REPOSITORY = "/v2/repository/models/"

_GRPC = "/inference.GRPCInferenceService/"
_GRPC_NEEDS = {
    "ServerLive": OPEN,
    "ServerReady": OPEN,
    "RepositoryModelLoad": Need(ADMIN),
    "RepositoryModelUnload": Need(ADMIN),
}
_GRPC_HEALTH = "/grpc.health.v1.Health/"


def need_of(target: bytes) -> Need:
    """What a target asks for; paths that no route has ask for any model, and are answered 404."""
    path, _ = split_target(target)
    need = _EXACT.get(path)
    if need is not None:
        return need
    for prefix in _MODELS:
        if path.startswith(prefix):
            return Need(INFER, _model(path, prefix))
    if path.startswith(_REPOSITORY):
        return Need(ADMIN, _model(path, _REPOSITORY))
    if path.startswith("/metrics"):
        return Need(METRICS)
    if path.startswith(_GRPC):
        return _GRPC_NEEDS.get(path.removeprefix(_GRPC), _ANY_MODEL)
    return OPEN if path.startswith(_GRPC_HEALTH) else _ANY_MODEL


def _model(path: str, prefix: str) -> str:
    """The model in a path."""
    name = path.removeprefix(prefix).partition("/")[0]
    return name.partition(":")[0] if prefix == _MODELS[1] else name
