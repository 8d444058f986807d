"""The one tree of errors.

Every error has a stable `code` (part of the public contract: it appears in HTTP answers and in
`--json` output), a `retryable` flag, a sentence that says what was wrong and a `hint` that says
what to do next. HTTP statuses live in `serve.server.status`, exit codes in `serve.cli.exits`.

    FieldpostError
    ├── ScoringError
    │   ├── InputError              a request that the model cannot take (4xx)
    │   │   ├── MalformedPayloadError, PayloadTooLargeError, PayloadTooDeepError
    │   │   ├── WrongShapeError, WrongTypeError, MissingValueError, UnknownInputError
    │   │   ├── TrainingDataError       rows and labels that nothing can be learned from
    │   │   └── UnsupportedMediaTypeError
    │   ├── ModelFileError          a file that is no model we can serve
    │   │   ├── ModelNotFoundError, CorruptModelError, UnknownFormatError
    │   │   ├── UntrustedModelError, UnsupportedModelError, MissingDependencyError
    │   │   └── CircuitError (CircuitTooLargeError)
    │   ├── EntryScriptError        the user's scoring script fails to load
    │   ├── ScoringFailedError      the model or script failed while answering (500)
    │   ├── ScoringTimeoutError
    │   └── OverloadedError         retry later (503)
    └── ServeError
        ├── UsageError, InvalidNameError
        ├── NotFoundError, AlreadyExistsError, InUseError
        ├── DigestMismatchError, WorkspaceError, StorageFullError, UnsafeArchiveError
        ├── EnvironmentResolutionError, IncompatibleEnvironmentError, PackagingError
        ├── RegistryError (RegistryDeniedError, RegistryBusyError)
        ├── SigningKeyError, VerificationError, UnsignedError
        └── TargetError, UnreachableError, DeploymentFailedError
"""

from __future__ import annotations

from typing import ClassVar


class FieldpostError(Exception):
    """Root of all errors that a user may see.

    Args:
        message: One sentence that says what was wrong.
        hint: One sentence that says what to do next; empty where the message says it.
        where: The place in the user's input: a JSON path, `FILE:LINE`, a column.
        detail: Longer text for a terminal or a log, such as the traceback of a user's script.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", where: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        self.detail = detail

    def to_dict(self) -> dict[str, object]:
        """The error as the `error` object of HTTP answers and `--json` output."""
        document: dict[str, object] = {"code": self.code, "message": self.message}
        if self.where:
            document["where"] = self.where
        if self.hint:
            document["hint"] = self.hint
        if self.retryable:
            document["retryable"] = True
        return document


class ScoringError(FieldpostError):
    """Anything that goes wrong beside the model."""

    code = "scoring"


class InputError(ScoringError):
    """A request that the model cannot take; the sender has to change it."""

    code = "bad_input"


class MalformedPayloadError(InputError):
    """The body is not the JSON (or other encoding) that it claims to be, or is cut off."""

    code = "malformed_payload"


class PayloadTooLargeError(InputError):
    """The body is over the server's limit."""

    code = "payload_too_large"


class PayloadTooDeepError(InputError):
    """The JSON is nested deeper than the server's limit."""

    code = "payload_too_deep"


class UnsupportedMediaTypeError(InputError):
    """The content type is not one that this route takes."""

    code = "unsupported_media_type"


class WrongShapeError(InputError):
    """The data has another shape than the model's inputs."""

    code = "wrong_shape"


class WrongTypeError(InputError):
    """A value has another type than the model's input."""

    code = "wrong_type"


class MissingValueError(InputError):
    """NaN, infinity or null where the model cannot take it."""

    code = "missing_value"


class UnknownInputError(InputError):
    """An input, column or parameter is missing, or is not one of the model's."""

    code = "unknown_input"


class TrainingDataError(InputError, ValueError):
    """Rows, labels or options that nothing can be learned from."""

    code = "bad_training_data"


class ModelFileError(ScoringError):
    """A file that is no model we can serve."""

    code = "model_file"


class ModelNotFoundError(ModelFileError):
    """The path does not exist or cannot be read."""

    code = "file_not_found"


class CorruptModelError(ModelFileError):
    """The file has a known format but its content is broken or cut off."""

    code = "corrupt_model"


class UnknownFormatError(ModelFileError):
    """The content is of no format that Fieldpost knows."""

    code = "unknown_format"


class UntrustedModelError(ModelFileError):
    """Loading the file would run code from it that the operator has not trusted."""

    code = "untrusted_model"


class UnsupportedModelError(ModelFileError):
    """A known format with content that cannot be served, such as a bare state dict."""

    code = "unsupported_model"


class CircuitError(ModelFileError):
    """A quantum circuit whose gates, parameters or encoding do not fit together."""

    code = "bad_circuit"


class CircuitTooLargeError(CircuitError):
    """A quantum circuit whose states do not fit into this machine's memory."""

    code = "circuit_too_large"


class MissingDependencyError(ModelFileError):
    """The model needs a package that is not installed, or another version of it."""

    code = "missing_dependency"


class EntryScriptError(ScoringError):
    """The scoring script cannot be imported, lacks `init` or `run`, or `init` failed."""

    code = "entry_script"


class ScoringFailedError(ScoringError):
    """The model or the script failed while it answered a request."""

    code = "scoring_failed"


class ScoringTimeoutError(ScoringError):
    """An answer took longer than the limit."""

    code = "scoring_timeout"


class OverloadedError(ScoringError):
    """The server has no room for the request now."""

    code = "overloaded"
    retryable = True


class UnknownModelError(ScoringError):
    """The server has no model, or no version of it, of that name."""

    code = "unknown_model"


class ModelNotReadyError(ScoringError):
    """The server knows the model and has not loaded it, or is loading it."""

    code = "model_not_ready"
    retryable = True


class DeadlineExceededError(ScoringError):
    """The sender's deadline passed before the model began."""

    code = "deadline_exceeded"
    retryable = True


class UnauthorizedError(ScoringError):
    """The request carries no credential that the server takes.

    Attributes:
        challenges: The values of `WWW-Authenticate`: how to ask.
    """

    code = "unauthorized"
    challenges: tuple[str, ...] = ()


class ForbiddenError(ScoringError):
    """The credential is good, and not for this."""

    code = "forbidden"


class RateLimitedError(ScoringError):
    """The sender asks more often than it may.

    Attributes:
        retry_after_s: When the next request may pass, in whole seconds.
    """

    code = "rate_limited"
    retryable = True
    retry_after_s: int = 1


class ServeError(FieldpostError):
    """Anything that goes wrong in registering, packaging or deploying."""

    code = "serve"


class UsageError(ServeError):
    """A command or call whose arguments do not fit together."""

    code = "usage"


class InvalidNameError(UsageError):
    """A name, tag, version or reference that does not have the right form."""

    code = "invalid_name"


class NotFoundError(ServeError):
    """No such model, environment, package or deployment."""

    code = "not_found"


class AlreadyExistsError(ServeError):
    """The name is taken by something else."""

    code = "already_exists"


class InUseError(ServeError):
    """It cannot be deleted while something uses it."""

    code = "in_use"


class DigestMismatchError(ServeError):
    """Stored bytes are not the ones that their digest names."""

    code = "digest_mismatch"


class WorkspaceError(ServeError):
    """The workspace cannot be opened, read or written."""

    code = "workspace"


class StorageFullError(WorkspaceError):
    """No space is left for a write; nothing was changed."""

    code = "storage_full"
    retryable = True


class UnsafeArchiveError(ServeError):
    """An archive with entries that would escape, overwrite or exhaust the target."""

    code = "unsafe_archive"


class EnvironmentResolutionError(ServeError):
    """The dependencies of an environment do not resolve."""

    code = "environment_resolution"


class IncompatibleEnvironmentError(ServeError):
    """The environment lacks what the model or the script needs."""

    code = "incompatible_environment"


class PackagingError(ServeError):
    """A package cannot be built or read."""

    code = "packaging"


class RegistryError(ServeError):
    """A container registry answers with what is no answer, or refuses what it was sent."""

    code = "registry"


class RegistryDeniedError(RegistryError):
    """A container registry wants other credentials, or refuses this user."""

    code = "registry_denied"


class RegistryBusyError(RegistryError):
    """A container registry fails or has no room for requests, which may pass."""

    code = "registry_busy"
    retryable = True


class SigningKeyError(ServeError):
    """A key file cannot be read: it is no key, of another kind, or its password is another."""

    code = "signing_key"


class VerificationError(ServeError):
    """A signature, or what it vouches for, is not what it should be."""

    code = "verification_failed"


class UnsignedError(VerificationError):
    """There is no signature at all."""

    code = "unsigned"


class RollbackError(VerificationError):
    """Signed, and older than what is known already."""

    code = "rollback"


class ExpiredError(VerificationError):
    """Signed, and no longer fresh: a newer one is needed, which may come."""

    code = "expired"
    retryable = True


class EnrolmentError(ServeError):
    """A device is not let in: its token or certificate is unknown, used, expired or revoked."""

    code = "enrolment"


class TargetError(ServeError):
    """A target cannot do what was asked of it."""

    code = "target"


class UnreachableError(TargetError):
    """Nothing answers at the address, which may pass."""

    code = "unreachable"
    retryable = True


class DeploymentFailedError(TargetError):
    """A revision never became ready; the one before goes on answering."""

    code = "deployment_failed"
