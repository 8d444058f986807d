"""Statuses as labels. Pure."""

from __future__ import annotations

GRPC = "grpc"
"""The protocol whose statuses are those of gRPC."""

_GRPC_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
# Those that OpenTelemetry counts as the server's own failures.
_GRPC_FAILURES = frozenset({2, 4, 12, 13, 14, 15})
_SERVER_ERROR = 500


def code_of(protocol: str, status: int) -> str:
    """The label `code` of a status."""
    if protocol == GRPC:
        return _GRPC_NAMES[status] if 0 <= status < len(_GRPC_NAMES) else str(status)
    return str(status)


def is_failure(protocol: str, status: int) -> bool:
    """Whether the server failed, and not the one who asked."""
    return status in _GRPC_FAILURES if protocol == GRPC else status >= _SERVER_ERROR
