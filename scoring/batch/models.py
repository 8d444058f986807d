"""The model of a package, asked in this process exactly as a server asks it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scoring import bundle as bundles
from scoring.errors import InputError, ScoringFailedError
from scoring.http import Request, Response

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scoring.bundle import Bundle
    from scoring.schema import ModelSchema

_OK = 200
_REFUSED = range(400, 500)
_SHOWN = 500


class Model(Protocol):
    """What answers batches.

    Attributes:
        schema: The model's; None for a script.
    """

    schema: ModelSchema | None

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """A model's outputs; raises as `scoring.runtimes.base.Predictor.predict` does."""
        ...

    def ask(self, body: bytes) -> bytes:
        """A script's answer to a request.

        Raises:
            InputError: It refuses what it was sent.
            ScoringFailedError: It failed.
        """
        ...

    def close(self) -> None:
        """Ends it."""
        ...


def open_model(root: Path) -> Model:
    """Loads the model or the script of a root into this process.

    Raises:
        ScoringError: It does not load; the error says why.
    """
    bundle = bundles.read(root)
    return Script(root, bundle) if bundle.runtime == "script" else Loaded(root, bundle)


class Loaded:
    """A model in a format that a runtime loads.

    Args:
        root: Of the package.
        bundle: Its description.
    """

    def __init__(self, root: Path, bundle: Bundle) -> None:
        from scoring.runtimes.base import load  # noqa: PLC0415 - numpy, and what it takes

        self._predictor = load(root, bundle)
        self.schema: ModelSchema | None = self._predictor.schema

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """See `Model`."""
        return self._predictor.predict(inputs)

    def ask(self, body: bytes) -> bytes:
        """See `Model`: only scripts are asked."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Model`."""


class Script:
    """A scoring script; its `init()` runs here.

    Args:
        root: Of the package.
        bundle: Its description.
    """

    schema: ModelSchema | None = None

    def __init__(self, root: Path, bundle: Bundle) -> None:
        from scoring.azureml.entry import EntryScript  # noqa: PLC0415 - only for scripts
        from scoring.azureml.settings import ScriptSettings  # noqa: PLC0415
        from scoring.runtimes.privacy import keep_private  # noqa: PLC0415

        keep_private()  # scripts load models by themselves
        code = root / "code"
        if code.is_dir() and (root / "env").is_dir():
            os.chdir(code)  # as a target starts it
        self._entry = EntryScript.load(ScriptSettings.for_package(root, bundle))

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """See `Model`: scripts are asked."""
        raise NotImplementedError

    def ask(self, body: bytes) -> bytes:
        """See `Model`."""
        headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
        request = Request("POST", "/score", "", headers, body)
        response = self._answer(request)
        content = _content(response)
        if response.status == _OK:
            return content
        told = content.decode("utf-8", "replace").strip()[:_SHOWN]
        if response.status in _REFUSED:
            raise InputError(f"The script refuses it ({response.status}): {told}")
        raise ScoringFailedError(
            f"The script answered {response.status}: {told}",
            hint="What it logged, and its traceback, stand on stderr.",
        )

    def _answer(self, request: Request) -> Response:
        loop = self._entry.loop
        if loop is None:
            return self._entry.handle(request)
        answers: list[Response] = []

        def respond(response: Response) -> None:
            _content(response)
            answers.append(response)

        loop.run_until_complete(self._entry.answer(request, respond))
        return answers[0]

    def close(self) -> None:
        """See `Model`."""


def _content(response: Response) -> bytes:
    body = response.body
    if isinstance(body, bytes):
        return body
    if isinstance(body, Iterator):
        response.body = b"".join(body)
        return response.body
    body.close()
    raise ScoringFailedError(
        "The script streams its answer, which has no rows.",
        hint="Let run() return a list with one entry for each row.",
    )
