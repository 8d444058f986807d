"""Models from the root of a package, as every target unpacks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring import bundle as bundles
from scoring.runtimes.base import load
from serve.server.models.served import ServedModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from serve.server.jobs import Jobs
    from serve.server.settings import ServerSettings

_INLINE_RUNTIMES = frozenset({"onnx"})


class RootSource:
    """The one model of a root.

    Args:
        root: Of an unpacked package.
        jobs: The threads of the server.
        settings: The server's.
        soon: Runs a callable in the loop's next turn.
    """

    def __init__(
        self, root: Path, jobs: Jobs, settings: ServerSettings, soon: Callable[..., object]
    ) -> None:
        self._root = root
        self._jobs = jobs
        self._settings = settings
        self._soon = soon

    def names(self) -> list[str]:
        """See `serve.server.models.repository.Source`."""
        return [bundles.read(self._root).name]

    def open(self, name: str) -> list[ServedModel]:  # noqa: ARG002 - there is one
        """See `serve.server.models.repository.Source`."""
        return [open_model(self._root, self._jobs, self._settings, self._soon)]


def open_model(
    root: Path, jobs: Jobs, settings: ServerSettings, soon: Callable[..., object]
) -> ServedModel:
    """Loads the model of a root and warms it up.

    Raises:
        ModelFileError: It does not load; the error says why.
    """
    bundle = bundles.read(root)
    predictor = load(root, bundle)
    inline = bundle.runtime in _INLINE_RUNTIMES
    model = ServedModel(predictor, bundle, jobs, settings, soon, inline=inline)
    model.warm_up()
    return model
