"""Errors as HTTP: the one table from classes to statuses, and the body that carries them."""

from __future__ import annotations

import logging

import orjson

from scoring import errors as e
from scoring.http import Response
from serve.server import errors as h

logger = logging.getLogger(__name__)

STATUS: dict[type[e.FieldpostError], int] = {
    e.FieldpostError: 500,
    e.ScoringError: 500,
    e.InputError: 400,
    e.MalformedPayloadError: 400,
    e.PayloadTooLargeError: 413,
    e.PayloadTooDeepError: 400,
    e.UnsupportedMediaTypeError: 415,
    e.WrongShapeError: 400,
    e.WrongTypeError: 400,
    e.MissingValueError: 400,
    e.UnknownInputError: 400,
    e.TrainingDataError: 400,
    e.ModelFileError: 400,  # asked to load by a request: a server without it does not start
    e.ModelNotFoundError: 400,
    e.CorruptModelError: 400,
    e.UnknownFormatError: 400,
    e.UntrustedModelError: 400,
    e.UnsupportedModelError: 400,
    e.MissingDependencyError: 400,
    e.CircuitError: 400,
    e.CircuitTooLargeError: 400,
    e.EntryScriptError: 500,
    e.ScoringFailedError: 500,
    e.ScoringTimeoutError: 504,
    e.OverloadedError: 503,
    e.UnknownModelError: 404,
    e.ModelNotReadyError: 503,
    e.DeadlineExceededError: 504,
    e.UnauthorizedError: 401,
    e.ForbiddenError: 403,
    e.RateLimitedError: 429,
    e.ServeError: 500,
    e.UsageError: 400,
    e.InvalidNameError: 400,
    e.NotFoundError: 404,
    e.AlreadyExistsError: 409,
    e.InUseError: 409,
    e.DigestMismatchError: 500,
    e.WorkspaceError: 500,
    e.StorageFullError: 507,
    e.UnsafeArchiveError: 400,
    e.EnvironmentResolutionError: 400,
    e.IncompatibleEnvironmentError: 400,
    e.PackagingError: 500,
    e.RegistryError: 502,
    e.RegistryDeniedError: 502,
    e.RegistryBusyError: 503,
    e.SigningKeyError: 500,
    e.VerificationError: 500,
    e.UnsignedError: 500,
    e.RollbackError: 500,
    e.ExpiredError: 503,
    e.EnrolmentError: 403,
    e.TargetError: 502,
    e.UnreachableError: 503,
    e.DeploymentFailedError: 502,
    h.HttpError: 400,
    h.BadRequestError: 400,
    h.RouteNotFoundError: 404,
    h.MethodNotAllowedError: 405,
    h.RequestTimeoutError: 408,
    h.TargetTooLongError: 414,
    h.ExpectationFailedError: 417,
    h.HeadersTooLargeError: 431,
    h.TransferCodingError: 501,
    h.HttpVersionError: 505,
    h.JobStateError: 409,
    h.JobExpiredError: 410,
}
"""Every class of the tree stands here itself (a test holds that), so none is mapped by accident."""

JSON = ("content-type", "application/json")
RETRY_AFTER_S = 1
_ENDS = (".", "!", "?")


def status_of(error: e.FieldpostError) -> int:
    """The HTTP status of an error; a class that plugins add has its nearest ancestor's."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_response(error: e.FieldpostError) -> Response:
    """The answer that tells the sender: code, message, place, hint, and never a traceback."""
    return Response(status_of(error), _dump(error.to_dict()), [JSON, *headers_of(error)])


def headers_of(error: e.FieldpostError) -> list[tuple[str, str]]:
    """What an error tells in headers, whatever the form of its body."""
    if isinstance(error, h.MethodNotAllowedError):
        return [("allow", ", ".join(error.allow))]
    if isinstance(error, e.RateLimitedError):
        return [("retry-after", str(error.retry_after_s))]
    if isinstance(error, e.UnauthorizedError):
        return [("www-authenticate", challenge) for challenge in error.challenges]
    if isinstance(error, e.OverloadedError):
        return [("retry-after", str(RETRY_AFTER_S))]
    return []


def sentence(error: e.FieldpostError) -> str:
    """An error as one text: what was wrong, and what to do next.

    It quotes what the client sent; half characters in it are replaced.
    """
    text = error.message
    if error.hint:
        text = f"{text if text.endswith(_ENDS) else text + '.'} {error.hint}"
    return text.encode("utf-8", "replace").decode()


def internal_error_response() -> Response:
    """The answer for a failure that is ours; the log has the traceback."""
    message = "The server failed on this request."
    hint = "The log of the server says why."
    return Response(500, _dump({"code": "internal", "message": message, "hint": hint}), [JSON])


def code_of(error: BaseException) -> str:
    """The code of an error, for logs and metrics."""
    return error.code if isinstance(error, e.FieldpostError) else e.FieldpostError.code


def failure_response(error: BaseException, request: str) -> Response:
    """The answer to whatever went wrong; what is not in our tree is logged, with its traceback.

    Args:
        error: What went wrong.
        request: What was asked, for the log.
    """
    if isinstance(error, e.FieldpostError):
        return error_response(error)
    logger.error("%s failed", request, exc_info=error)
    return internal_error_response()


def _dump(error: dict[str, object]) -> bytes:
    # Messages quote what the client sent, lone surrogates included.
    try:
        return orjson.dumps({"error": error})
    except TypeError:
        texts = {key: _printable(value) for key, value in error.items()}
        return orjson.dumps({"error": texts})


def _printable(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
