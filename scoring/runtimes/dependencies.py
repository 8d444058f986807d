"""Optional frameworks: imported late, named with the way to install them, kept quiet."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

# Module to distribution (the first one installed is meant), and to the extra that brings it.
DISTRIBUTIONS = {
    "sklearn": ("scikit-learn",),
    "xgboost": ("xgboost", "xgboost-cpu"),
    "PIL": ("pillow",),
    "cv2": ("opencv-python-headless", "opencv-python"),
    "yaml": ("pyyaml",),
    "imblearn": ("imbalanced-learn",),
    "category_encoders": ("category-encoders",),
    "sentence_transformers": ("sentence-transformers",),
}
EXTRAS = {
    "sklearn": "sklearn",
    "joblib": "sklearn",
    "skops": "sklearn",
    "pandas": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "torch": "torch",
    "keras": "keras",
}


def require(module: str, what: str) -> Any:
    """Imports an optional module.

    Args:
        module: Its import name.
        what: What needs it, for the message: "A LightGBM model".

    Raises:
        MissingDependencyError: It is not installed, or it is broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    except ImportError as error:
        name = (error.name or module).split(".")[0]
        raise missing(name if isinstance(error, ModuleNotFoundError) else module, what) from error


def missing(module: str, what: str) -> MissingDependencyError:
    """The error for a module that cannot be imported."""
    package = DISTRIBUTIONS.get(module, (module,))[0]
    extra = EXTRAS.get(module)
    command = f"pip install 'fieldpost[{extra}]'" if extra else f"pip install {package}"
    return MissingDependencyError(
        f"{what} needs the package {package}, which is not installed.",
        hint=f"Install it: {command}",
        where=package,
    )


def distribution(module: str) -> tuple[str, str] | None:
    """The installed distribution of a top-level module, and its public version."""
    version = _version_beside(module)
    if version:
        return module, version
    from importlib import metadata  # noqa: PLC0415 - a megabyte, and mostly not needed

    candidates = DISTRIBUTIONS.get(module) or _providers(module)
    for name in (*candidates, module):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return name, metadata.version(name).split("+")[0]
    return None


def _version_beside(module: str) -> str:
    """The version in the name of the metadata beside a loaded module, if that has its name."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if module in DISTRIBUTIONS or not file:
        return ""
    found = list(Path(file).parent.parent.glob(f"{module}-*.dist-info"))
    version = found[0].stem.rpartition("-")[2] if len(found) == 1 else ""
    return version.split("+")[0]


def _providers(module: str) -> tuple[str, ...]:
    from importlib import metadata  # noqa: PLC0415 - likewise

    with contextlib.suppress(metadata.PackageNotFoundError):
        metadata.version(module)
        return (module,)
    return tuple(metadata.packages_distributions().get(module, ()))


def pinned(*modules: str) -> tuple[str, ...]:
    """`name==version` for each module's distribution, without those that are not installed."""
    found = (distribution(module) for module in dict.fromkeys(modules))
    return tuple(f"{name}=={version}" for name, version in filter(None, found))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps warnings and prints of a framework away from the user; prints go to the debug log."""
    printed = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            if printed.getvalue().strip():
                log.debug("printed while loading: %s", printed.getvalue().strip())
