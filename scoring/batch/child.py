"""A model in a process of its own, in its package's environment: the side that asks."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, cast

import msgspec

from scoring import errors
from scoring.batch import frames
from scoring.errors import FieldpostError, ScoringFailedError
from scoring.schema import ModelSchema

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GRACE_S = 5.0


class ModelDiedError(ScoringFailedError):
    """The process of the model ended while it was asked, which may pass."""

    retryable = True


class Child:
    """A `Model` behind pipes.

    Args:
        command: Starts `scoring.batch.worker`.
        environment: The whole of the process's.
        folder: Where it starts; None: here.

    Raises:
        ScoringError: The model does not load; the error says why.
        ModelDiedError: The process ended before it was loaded.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: str | None = None
    ) -> None:
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own worker
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,  # a Ctrl-C is for the one that asks
            )
        except OSError as error:
            raise ScoringFailedError(
                f"{command[0]} cannot be started: {error.strerror}."
            ) from error
        try:
            told = self._hear()
        except BaseException:
            self.close()
            raise
        self.schema: ModelSchema | None = None
        if told["schema"] is not None:
            self.schema = msgspec.convert(told["schema"], ModelSchema)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """See `scoring.batch.models.Model`.

        Raises:
            ModelDiedError: The process ended.
        """
        return frames.unpack(self._ask({"inputs": frames.pack(inputs)})["outputs"])

    def ask(self, body: bytes) -> bytes:
        """See `scoring.batch.models.Model`.

        Raises:
            ModelDiedError: The process ended.
        """
        answer: bytes = self._ask({"body": body})["body"]
        return answer

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                cast("IO[bytes]", pipe).close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, document: Mapping[str, Any]) -> dict[str, Any]:
        try:
            frames.write(cast("IO[bytes]", self._process.stdin), document)
        except OSError:
            raise self._died() from None
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        answer = frames.read(cast("IO[bytes]", self._process.stdout))
        if answer is None:
            raise self._died()
        if "error" in answer:
            raise to_error(answer["error"])
        return answer

    def _died(self) -> ModelDiedError:
        try:
            status = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        how = f"was ended by signal {-status}" if status < 0 else f"left with status {status}"
        return ModelDiedError(
            f"The process of the model {how}.",
            hint="Give it more memory, or fewer --workers, if the kernel has ended it (signal 9).",
        )


def to_error(document: Mapping[str, Any]) -> FieldpostError:
    """An error from its document, of the class that its code names."""
    kinds = {
        kind.code: kind
        for kind in reversed(vars(errors).values())
        if isinstance(kind, type) and issubclass(kind, FieldpostError)
    }
    kind = kinds.get(str(document.get("code")), ScoringFailedError)
    if document.get("retryable") and not kind.retryable:
        kind = ModelDiedError
    return kind(
        str(document.get("message", "")),
        hint=str(document.get("hint", "")),
        where=str(document.get("where", "")),
        detail=str(document.get("detail", "")),
    )
