"""Errors as the API answers them: `Status` objects."""

from __future__ import annotations

from typing import Any

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class StatusError(Exception):
    """An answer that is not a success.

    Args:
        code: Of HTTP.
        message: As the API would say it.
        reason: By default that of the code.
        details: What it is about.
    """

    def __init__(
        self,
        code: int,
        message: str,
        reason: str = "",
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or REASONS.get(code, "")
        self.details = details or {}

    def document(self) -> dict[str, Any]:
        """The `Status` object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }


def missing(plural: str, group: str, name: str) -> StatusError:
    """404 for one object."""
    full = f"{plural}.{group}" if group else plural
    details = {"name": name, "group": group, "kind": plural}
    return StatusError(404, f'{full} "{name}" not found', details=details)


def invalid(kind: str, group: str, name: str, field: str, why: str) -> StatusError:
    """422 for one field."""
    full = f"{kind}.{group}" if group else kind
    cause = {"reason": "FieldValueInvalid", "message": why, "field": field}
    return StatusError(
        422,
        f'{full} "{name}" is invalid: {field}: {why}',
        details={"name": name, "group": group, "kind": kind, "causes": [cause]},
    )


def denied(user: str, verb: str, plural: str, group: str, namespace: str, name: str) -> StatusError:
    """403 of RBAC."""
    full = f"{plural}.{group}" if group else plural
    told = f'"{name}" ' if name else ""
    return StatusError(
        403,
        f'{full} {told}is forbidden: User "{user}" cannot {verb} resource "{plural}" in API group '
        f'"{group}" in the namespace "{namespace}"',
        details={"name": name, "group": group, "kind": plural},
    )
