"""What can be wrong with a request before a route sees it, and with jobs."""

from __future__ import annotations

from scoring.httperrors import (
    BadRequestError,
    ExpectationFailedError,
    HeadersTooLargeError,
    HttpError,
    HttpVersionError,
    MethodNotAllowedError,
    RequestTimeoutError,
    RouteNotFoundError,
    TargetTooLongError,
    TransferCodingError,
)

__all__ = [
    "BadRequestError",
    "ExpectationFailedError",
    "HeadersTooLargeError",
    "HttpError",
    "HttpVersionError",
    "JobExpiredError",
    "JobStateError",
    "MethodNotAllowedError",
    "RequestTimeoutError",
    "RouteNotFoundError",
    "TargetTooLongError",
    "TransferCodingError",
]


class JobStateError(HttpError):
    """A job has no result yet or never will, or is over and cannot be cancelled."""

    code = "job_state"


class JobExpiredError(HttpError):
    """A job is over for longer than jobs are kept."""

    code = "job_expired"
