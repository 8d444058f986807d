"""Folders that hold a model: MLflow's, a TensorFlow SavedModel, or any with one model file."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from scoring.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError
from scoring.formats.foreign import SAVED_MODEL_HINT
from scoring.formats.source import not_readable

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILES = 2000
_SKIPPED = {"__pycache__", "node_modules", "site-packages"}
# Where each MLflow flavor names its file, and what it means to name.
_FLAVORS = {
    "onnx": ("data",),
    "sklearn": ("pickled_model",),
    "xgboost": ("data",),
    "lightgbm": ("data",),
    "pytorch": ("model_data",),
    "keras": ("data",),
    "tensorflow": ("saved_model_dir", "data"),
    "python_function": ("model_path", "data"),
}


def named_model(folder: Path) -> Path | None:
    """The model that a folder's own description names: MLflow's `MLmodel`.

    Raises:
        UnsupportedModelError: A TensorFlow SavedModel, or an MLflow flavor without a model file.
        CorruptModelError: The description is broken or points out of the folder.
    """
    if any((folder / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        raise UnsupportedModelError(
            f"{folder} is a TensorFlow SavedModel.",
            hint=SAVED_MODEL_HINT.replace("DIR", str(folder)),
            where=str(folder),
        )
    description = folder / "MLmodel"
    return _mlflow(folder, description) if description.is_file() else None


def _mlflow(folder: Path, description: Path) -> Path:
    flavors = _read(description)
    for flavor, keys in _FLAVORS.items():
        settings = flavors.get(flavor)
        if not isinstance(settings, dict):
            continue
        for key in keys:
            value = settings.get(key)
            if isinstance(value, str) and value:
                return _inside(folder, value, description)
    raise UnsupportedModelError(
        f"{folder} is an MLflow model of flavor {', '.join(sorted(flavors)) or '(none)'}, "
        "which names no model file.",
        hint="Save it with a flavor such as sklearn, onnx, xgboost or lightgbm, or give a script.",
        where=str(description),
    )


def _read(description: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415 - only MLflow folders need it

    try:
        document = yaml.safe_load(description.read_bytes())
        flavors = document["flavors"]
        if isinstance(flavors, dict):
            return flavors
    except (yaml.YAMLError, TypeError, KeyError, ValueError, RecursionError) as error:
        raise _broken(description, "is not a valid MLflow description") from error
    except OSError as error:
        raise not_readable(description, error.strerror or str(error)) from error
    raise _broken(description, "is not a valid MLflow description")


def _broken(description: Path, reason: str) -> CorruptModelError:
    return CorruptModelError(
        f"{description} {reason}.", hint="Log the model again.", where=str(description)
    )


def _inside(folder: Path, value: str, description: Path) -> Path:
    relative = PurePosixPath(value)
    if relative.is_absolute() or ".." in relative.parts:
        raise _broken(description, f"names a path outside its folder: {value!r}")
    path = folder / relative
    if not path.exists():
        raise ModelNotFoundError(
            f"{description} names {value!r}, which is not in the folder.",
            hint="Download the whole folder, not the description alone.",
            where=str(description),
        )
    return path


def files(folder: Path) -> Iterator[Path]:
    """The regular files below a folder in a stable order, hidden ones and caches left out.

    Raises:
        UnsupportedModelError: There are too many files to look at.
        ModelNotFoundError: The folder cannot be read.
    """
    count = 0

    def unreadable(error: OSError) -> None:
        raise not_readable(Path(error.filename or folder), error.strerror or str(error))

    for base, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(d for d in folders if not d.startswith(".") and d not in _SKIPPED)
        for name in sorted(names):
            path = Path(base, name)
            if name.startswith(".") or not path.is_file():
                continue
            count += 1
            if count > MAX_FILES:
                raise UnsupportedModelError(
                    f"{folder} holds more than {MAX_FILES} files.",
                    hint="Give the model file itself.",
                    where=str(folder),
                )
            yield path
