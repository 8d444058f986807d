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
        instead: A scope that does as well.
    """

    scope: str
    model: str | None = None
    instead: str = ""


OPEN = Need("")
_DEFAULT_MODEL = Need(INFER, "")
_ANY_MODEL = Need(INFER)
_INDEX = Need(INFER, instead=ADMIN)

_EXACT = {
    **dict.fromkeys(("/", "/health", "/ping"), OPEN),
    **dict.fromkeys(("/health/live", "/health/ready", "/health/startup"), OPEN),
    "/v2/repository/index": _INDEX,
    **dict.fromkeys(("/score", "/invocations", "/swagger.json", "/openapi.json"), _DEFAULT_MODEL),
}

_GRPC_NEEDS = {
    "ServerLive": OPEN,
    "ServerReady": OPEN,
    "RepositoryIndex": _INDEX,
    "RepositoryModelLoad": Need(ADMIN),
    "RepositoryModelUnload": Need(ADMIN),
}


def need_of(target: bytes) -> Need:
    """What a target asks for; paths that no route has ask for any model, and are answered 404."""
    path, _ = split_target(target)
    need = _EXACT.get(path)
    # Without empty segments: some routes pass over a slash too many.
    return _need([part for part in path.split("/") if part]) if need is None else need


def _need(parts: list[str]) -> Need:
    match parts:
        case ["v2", "health", "live" | "ready"]:
            return OPEN
        case ["v2", "models", model, *_]:
            return Need(INFER, model)
        case ["v1", "models", model, *_]:
            return Need(INFER, model.partition(":")[0])
        case ["v2", "repository", "models", model, *_]:
            return Need(ADMIN, model)
        case ["metrics", *_]:
            return Need(METRICS, instead=ADMIN)
        case ["inference.GRPCInferenceService", method]:
            return _GRPC_NEEDS.get(method, _ANY_MODEL)
        case ["grpc.health.v1.Health", *_]:
            return OPEN
    return _ANY_MODEL
