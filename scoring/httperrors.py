"""What can be wrong with a request before a route sees it, whatever server reads it."""

from __future__ import annotations

from scoring.errors import ServeError


class HttpError(ServeError):
    """A request that breaks HTTP or a limit of the server."""

    code = "http"


class BadRequestError(HttpError):
    """The request is not well-formed HTTP/1.1, or is ambiguous."""

    code = "bad_request"


class RouteNotFoundError(HttpError):
    """No route has this path."""

    code = "route_not_found"


class MethodNotAllowedError(HttpError):
    """The route does not take this method.

    Args:
        message: What was asked.
        allow: The methods that the route takes.
    """

    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: tuple[str, ...]) -> None:
        super().__init__(message, hint=f"Use {' or '.join(allow)}.")
        self.allow = allow


class RequestTimeoutError(HttpError):
    """The client sent its request too slowly."""

    code = "request_timeout"
    retryable = True


class TargetTooLongError(HttpError):
    """The request target is over the limit."""

    code = "target_too_long"


class ExpectationFailedError(HttpError):
    """An `Expect` other than `100-continue`."""

    code = "expectation_failed"


class HeadersTooLargeError(HttpError):
    """Too many header fields, or too many bytes of them."""

    code = "headers_too_large"


class TransferCodingError(HttpError):
    """A transfer coding other than `chunked`."""

    code = "transfer_coding"


class HttpVersionError(HttpError):
    """A version of HTTP other than 1.0 and 1.1."""

    code = "http_version"
