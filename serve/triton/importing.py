"""Models of Triton's model repositories.

    REPOSITORY/MODEL/config.pbtxt       may be missing
    REPOSITORY/MODEL/VERSION/FILE       model.onnx, model.pt, xgboost.json, ...

Which file it is says the backend; which version, the path or else the description's version policy.
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_repository.html
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from scoring.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError, UsageError
from serve.triton.description import read
from serve.triton.places import CONFIG, PREFIX

_DEFAULT_FILES = {"onnxruntime": "model.onnx", "pytorch": "model.pt"}
_BACKENDS = {"onnxruntime_onnx": "onnxruntime", "pytorch_libtorch": "pytorch"}
_FIL_FILES = {
    "xgboost": "xgboost.model",
    "xgboost_json": "xgboost.json",
    "xgboost_ubj": "xgboost.ubj",
    "lightgbm": "model.txt",
}
# Where no description says which: as Triton completes one.
_GUESSES = ("model.onnx", "model.pt")


class TritonModel(msgspec.Struct, frozen=True):
    """A model of a repository.

    Attributes:
        path: Its file, or the folder of several.
        tags: For the version that is registered: Triton's own words under `triton/`.
    """

    path: Path
    tags: dict[str, str]


def find(source: str | Path) -> TritonModel:
    """The model that a name means.

    Args:
        source: The folder of a repository that has one model, of a model, or of one of its
            versions; `triton:` may stand before it.

    Raises:
        ModelNotFoundError: There is no such folder, no such version, or no model in it.
        CorruptModelError: The description cannot be read, or names a file outside the version.
        UnsupportedModelError: A backend whose models run in Triton alone.
        UsageError: The repository has several models.
        MissingDependencyError: tritonclient is not installed.
    """
    given = Path(str(source).removeprefix(PREFIX))
    if not given.is_dir():
        raise ModelNotFoundError(
            f"{given} is no folder.", hint="Give the folder of a model in Triton's repository."
        )
    given = given.resolve()  # "." has no name
    wanted = given.name if given.name.isdecimal() and not _versions(given) else ""
    folder = _model_folder(given.parent if wanted else given)
    config = read(folder / CONFIG)
    version = wanted or _served_version(folder, config)
    name = config.name or folder.name
    tags = {
        "model": name,
        "version": version,
        "backend": _backend(config),
        "inputs": " ".join(each.name for each in config.input),
        "outputs": " ".join(each.name for each in config.output),
    }
    return TritonModel(
        path=_model_file(folder / version, config),
        tags={f"triton/{key}": value for key, value in tags.items() if value},
    )


def _versions(folder: Path) -> list[str]:
    """Versions below a model's folder, the newest last; Triton leaves out what begins with 0."""
    found = [
        each.name
        for each in folder.iterdir()
        if each.name.isdecimal() and each.name.isascii() and each.name[0] != "0" and each.is_dir()
    ]
    return sorted(found, key=int)


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or bool(_versions(folder))


def _model_folder(given: Path) -> Path:
    """The folder itself, or the only model of a repository."""
    if _is_model(given):
        return given
    found = sorted(each for each in given.iterdir() if each.is_dir() and _is_model(each))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelNotFoundError(
            f"{given} has no model of Triton's: no {CONFIG}, no versions (folders 1, 2, …).",
            hint="Give the folder of a model in Triton's repository.",
        )
    shown = ", ".join(each.name for each in found[:10])
    raise UsageError(
        f"The repository has {len(found)} models: {shown}.",
        hint=f"Register them one by one: triton:{found[0]}.",
    )


def _served_version(folder: Path, config: Any) -> str:
    """The newest that Triton would serve."""
    there = _versions(folder)
    chosen = [str(each) for each in config.version_policy.specific.versions]
    served = [each for each in there if each in chosen] if chosen else there
    if served:
        return served[-1]
    missing = f"of {', '.join(chosen)}" if chosen else "at all"
    raise ModelNotFoundError(
        f"{folder} has no version {missing}.", hint="Versions are folders with a number: 1, 2, …"
    )


def _backend(config: Any) -> str:
    return str(config.backend or _BACKENDS.get(config.platform, config.platform))


def _model_file(version: Path, config: Any) -> Path:
    if not version.is_dir():
        raise ModelNotFoundError(f"{version} is no folder.")
    name = config.default_model_filename
    if name and (len(PurePosixPath(name).parts) != 1 or name == ".."):
        raise CorruptModelError(
            f"The {CONFIG} names a file outside the version: {name!r}.", where=str(version)
        )
    choices = [name] if name else _usual_files(config)
    for choice in choices:
        if (version / choice).exists():
            return version / choice
    raise ModelNotFoundError(
        f"{version} has no {' and no '.join(choices)}.",
        hint="Register the model's own file: 'fieldpost model register NAME FILE'.",
        where=str(version),
    )


def _usual_files(config: Any) -> list[str]:
    backend = _backend(config)
    if not backend:
        return list(_GUESSES)
    if backend == "fil":
        kind = config.parameters["model_type"].string_value or "xgboost"
        if kind in _FIL_FILES:
            return [_FIL_FILES[kind]]
        backend = f"fil ({kind})"
    if backend in _DEFAULT_FILES:
        return [_DEFAULT_FILES[backend]]
    raise UnsupportedModelError(
        f"A model of Triton's backend {backend!r} runs in Triton alone.",
        hint="Known are onnxruntime, pytorch (TorchScript) and fil (XGBoost, LightGBM). Code of "
        "the Python backend becomes a scoring script: init() and run().",
    )
