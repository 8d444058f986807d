"""Whether an environment can load a model: the versions that the model was made with decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scoring.errors import IncompatibleEnvironmentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from serve.packaging.lock import Lock
    from serve.packaging.sources import EnvironmentSource

# Pickles hold the insides of these packages, which change with every minor version.
_SAME_MINOR = frozenset({"scikit-learn"})
# The same code under other names: the CPU build of XGBoost, and the like.
_ALSO = {
    "xgboost": ("xgboost", "xgboost-cpu"),
    "xgboost-cpu": ("xgboost-cpu", "xgboost"),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}


def check_compatible(
    source: EnvironmentSource,
    lock: Lock,
    native_requirements: Iterable[str],
    made_with: Iterable[str] = (),
) -> None:
    """Checks that an environment has what the original model needs.

    scikit-learn has to be of the same minor version; everything else of the same major version
    and no older minor one, since libraries read the files of their older versions.

    Args:
        source: The user's file, for the line that is wrong.
        lock: What it resolved to.
        native_requirements: What the model was made with: `scikit-learn==1.9.1`.
        made_with: The same for a model whose compiled form serves. It may be missing; but an
            environment that has scikit-learn of another minor version is meant for another model.

    Raises:
        IncompatibleEnvironmentError: A package is missing or has another version.
    """
    versions = {package.name: package.version for package in lock.packages}
    for requirement, version in _parse(native_requirements):
        _require_package(requirement.name, version, versions, source)
    for requirement, version in _parse(made_with):
        name = canonicalize_name(requirement.name)
        if name in _SAME_MINOR and name in versions:
            _require_package(name, version, versions, source)


def _parse(requirements: Iterable[str]) -> Iterator[tuple[Requirement, str]]:
    for text in requirements:
        requirement = Requirement(text)
        yield requirement, next((spec.version for spec in requirement.specifier), "")


def _require_package(
    name: str, made_with: str, versions: dict[str, str], source: EnvironmentSource
) -> None:
    names = _ALSO.get(canonicalize_name(name), (canonicalize_name(name),))
    found = next((one for one in names if one in versions), None)
    if found is None:
        raise IncompatibleEnvironmentError(
            f"The environment lacks {name}, which the model was made with ({made_with}).",
            hint=f"Add the line {_pin(name, made_with)}",
            where=source.path,
        )
    version = versions[found]
    if version and made_with and not _fits(names[0], Version(version), Version(made_with)):
        raise IncompatibleEnvironmentError(
            f"The environment has {found} {version}, and the model was made with {made_with}: "
            "it may not load, or answer differently.",
            hint=f"Change the line to {_pin(found, made_with)}, or train the model again.",
            where=_where(source, found),
        )


def _fits(name: str, version: Version, made_with: Version) -> bool:
    if name in _SAME_MINOR:
        return version.release[:2] == made_with.release[:2]
    return version.major == made_with.major and version.release[:2] >= made_with.release[:2]


def _pin(name: str, made_with: str) -> str:
    release = Version(made_with).release[:2] if made_with else ()
    return f"{name}=={'.'.join(map(str, release))}.*" if release else name


def _where(source: EnvironmentSource, name: str) -> str:
    lines = (*source.packages, *source.constraints)
    return next((line.where for line in lines if line.name == name), source.path)
