"""Errors as gRPC tells them: the one table from classes to codes, and the trailers."""

from __future__ import annotations

import re

from scoring import errors as e
from serve.server import errors as h
from serve.server.grpc.heads import encode
from serve.server.status import sentence

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS = range(7)
PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE = range(7, 12)
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED = range(12, 17)

CODES: dict[type[e.FieldpostError], int] = {
    e.FieldpostError: INTERNAL,
    e.ScoringError: INTERNAL,
    e.InputError: INVALID_ARGUMENT,
    e.MalformedPayloadError: INVALID_ARGUMENT,
    e.PayloadTooLargeError: RESOURCE_EXHAUSTED,
    e.PayloadTooDeepError: INVALID_ARGUMENT,
    e.UnsupportedMediaTypeError: UNIMPLEMENTED,
    e.WrongShapeError: INVALID_ARGUMENT,
    e.WrongTypeError: INVALID_ARGUMENT,
    e.MissingValueError: INVALID_ARGUMENT,
    e.UnknownInputError: INVALID_ARGUMENT,
    e.TrainingDataError: INVALID_ARGUMENT,
    e.ModelFileError: INVALID_ARGUMENT,
    e.ModelNotFoundError: INVALID_ARGUMENT,
    e.CorruptModelError: INVALID_ARGUMENT,
    e.UnknownFormatError: INVALID_ARGUMENT,
    e.UntrustedModelError: INVALID_ARGUMENT,
    e.UnsupportedModelError: INVALID_ARGUMENT,
    e.MissingDependencyError: INVALID_ARGUMENT,
    e.CircuitError: INVALID_ARGUMENT,
    e.CircuitTooLargeError: INVALID_ARGUMENT,
    e.EntryScriptError: INTERNAL,
    e.ScoringFailedError: INTERNAL,
    e.ScoringTimeoutError: DEADLINE_EXCEEDED,
    e.OverloadedError: UNAVAILABLE,
    e.UnknownModelError: NOT_FOUND,
    e.ModelNotReadyError: UNAVAILABLE,
    e.DeadlineExceededError: DEADLINE_EXCEEDED,
    e.UnauthorizedError: UNAUTHENTICATED,
    e.ForbiddenError: PERMISSION_DENIED,
    e.RateLimitedError: RESOURCE_EXHAUSTED,
    e.ServeError: INTERNAL,
    e.UsageError: INVALID_ARGUMENT,
    e.InvalidNameError: INVALID_ARGUMENT,
    e.NotFoundError: NOT_FOUND,
    e.AlreadyExistsError: ALREADY_EXISTS,
    e.InUseError: FAILED_PRECONDITION,
    e.DigestMismatchError: DATA_LOSS,
    e.WorkspaceError: INTERNAL,
    e.StorageFullError: RESOURCE_EXHAUSTED,
    e.UnsafeArchiveError: INVALID_ARGUMENT,
    e.EnvironmentResolutionError: INVALID_ARGUMENT,
    e.IncompatibleEnvironmentError: INVALID_ARGUMENT,
    e.PackagingError: INTERNAL,
    e.RegistryError: UNAVAILABLE,
    e.RegistryDeniedError: UNAVAILABLE,
    e.RegistryBusyError: UNAVAILABLE,
    e.SigningKeyError: INTERNAL,
    e.VerificationError: INTERNAL,
    e.UnsignedError: INTERNAL,
    e.RollbackError: INTERNAL,
    e.ExpiredError: UNAVAILABLE,
    e.EnrolmentError: PERMISSION_DENIED,
    e.TargetError: UNAVAILABLE,
    e.UnreachableError: UNAVAILABLE,
    e.DeploymentFailedError: UNAVAILABLE,
    h.HttpError: INVALID_ARGUMENT,
    h.BadRequestError: INVALID_ARGUMENT,
    h.RouteNotFoundError: UNIMPLEMENTED,
    h.MethodNotAllowedError: UNIMPLEMENTED,
    h.RequestTimeoutError: DEADLINE_EXCEEDED,
    h.TargetTooLongError: RESOURCE_EXHAUSTED,
    h.ExpectationFailedError: INVALID_ARGUMENT,
    h.HeadersTooLargeError: RESOURCE_EXHAUSTED,
    h.TransferCodingError: UNIMPLEMENTED,
    h.HttpVersionError: UNIMPLEMENTED,
    h.JobStateError: FAILED_PRECONDITION,
    h.JobExpiredError: NOT_FOUND,
}
"""Every class of the tree stands here itself (a test holds that), so none is mapped by accident."""

_MOST_BYTES = 2048
_ESCAPED = re.compile(rb"[^\x20-\x24\x26-\x7e]")
_HEAD = [(b":status", b"200"), (b"content-type", b"application/grpc")]

HEAD = encode(_HEAD)
"""The head of every answer that has a message."""
DONE = encode([(b"grpc-status", b"0")])
"""The trailers of a call that went well."""


def code_of(error: BaseException) -> int:
    """The code of an error; a class that plugins add has its nearest ancestor's."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), INTERNAL)


def text_of(error: BaseException) -> str:
    """What the sender is told: the message and the hint, and nothing of failures of ours."""
    if isinstance(error, e.FieldpostError):
        return sentence(error)
    return "The server failed on this request. The log of the server says why."


def trailers(error: BaseException) -> bytes:
    """The header block that tells an error after a head or messages have gone out."""
    return encode(_told(error))


def refusal(error: BaseException, more: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """The header block of an answer that is nothing but an error."""
    return encode([*_HEAD, *more, *_told(error)])


def _told(error: BaseException) -> list[tuple[bytes, bytes]]:
    fields = [
        (b"grpc-status", b"%d" % code_of(error)),
        (b"grpc-message", quoted(text_of(error))),
    ]
    if isinstance(error, e.FieldpostError):
        fields.append((b"fieldpost-code", error.code.encode()))
        if error.where:
            fields.append((b"fieldpost-where", quoted(error.where)))
    return fields


def quoted(text: str) -> bytes:
    """Percent-encoded, as gRPC has its messages; what is very long is cut."""
    data = text.encode("utf-8", "replace")
    if len(data) > _MOST_BYTES:
        data = data[:_MOST_BYTES].decode("utf-8", "ignore").encode() + b" ..."
    return _ESCAPED.sub(lambda match: b"%%%02X" % match[0][0], data)
