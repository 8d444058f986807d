"""BentoML itself, imported when it is needed."""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec
from typing import Any

from scoring.errors import MissingDependencyError


def bentoml() -> Any:
    """The module `bentoml`; it tells nobody that it is used.

    Raises:
        MissingDependencyError: It is not installed.
    """
    require()
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "1")
    with warnings.catch_warnings():  # of what its own dependencies deprecate
        warnings.simplefilter("ignore")
        import bentoml as library  # noqa: PLC0415 - heavy
        import bentoml.bentos  # noqa: PLC0415
        import bentoml.exceptions  # noqa: PLC0415
        import bentoml.models  # noqa: PLC0415
    return library


def require() -> None:
    """Raises `MissingDependencyError` where BentoML is not installed; imports nothing."""
    if find_spec("bentoml") is None:
        raise MissingDependencyError(
            "BentoML is not installed.", hint="pip install 'fieldpost[bento]'"
        )
