"""A package's model as a Triton model repository: the compiled ONNX form, and what Triton reads.

    DIR/MODEL/config.pbtxt
    DIR/MODEL/labels.txt              where the model has labels
    DIR/MODEL/VERSION/model.onnx      and the files with its weights

DIR may be a repository already: the model is put beside the others, whole or not at all.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scoring import bundle as bundles
from scoring import durable
from scoring.errors import AlreadyExistsError, PackagingError, UsageError
from scoring.packages.unpack import unpack_package
from serve.triton.description import write
from serve.triton.places import CONFIG

if TYPE_CHECKING:
    from scoring.bundle import Bundle
    from serve.registry import Registry

_LABELS = "labels.txt"


class ExportedRepository(msgspec.Struct, frozen=True):
    """A model repository that has a package's model.

    Attributes:
        package: The package's digest.
        destination: The repository.
        model: The model's name there.
        version: And its version.
    """

    package: str
    destination: str
    model: str
    version: int


def export_repository(
    registry: Registry, digest: str, to: str, *, kind: str | None = None
) -> ExportedRepository:
    """Writes the model of a package into a repository.

    Args:
        registry: Has the package.
        digest: The package's.
        to: `triton:DIR`.
        kind: `triton`, where `to` does not begin with it.

    Raises:
        AlreadyExistsError: The repository has a model of that name.
        PackagingError: The package runs a script or a library of its own, or has tensors that
            Triton does not have.
        MissingDependencyError: tritonclient is not installed.
        UsageError: The destination names no folder.
    """
    repository = _place(to, kind)
    root = unpack_package(digest, registry.blobs, registry.location.blobs / "cache")
    bundle = bundles.read(root)
    _require_onnx(bundle)
    version = bundle.model_version or 1
    model = repository / bundle.name
    if model.exists():
        raise AlreadyExistsError(
            f"{model} is there already.", hint="Choose another place, or remove that one."
        )
    with durable.storage_errors(f"the repository {repository}"):
        durable.make_folder(repository)
        with durable.TemporaryFolder(repository) as scratch:
            scratch.path.chmod(0o755)
            _write(root, bundle, version, scratch.path)
            scratch.move(model)
    return ExportedRepository(digest, str(repository), bundle.name, version)


def _place(to: str, kind: str | None) -> Path:
    place = to.removeprefix(f"{kind}:") if kind else to.partition(":")[2]
    if not place:
        raise UsageError("triton: names no folder.", hint="Write triton:DIR.")
    path = Path(place)
    if path.exists() and not path.is_dir():
        raise AlreadyExistsError(f"{path} is no folder.", hint="Choose another place.")
    return path


def _require_onnx(bundle: Bundle) -> None:
    if bundle.script is not None or bundle.runtime != "onnx":
        what = (
            "a scoring script" if bundle.script else f"the library of its format, {bundle.format}"
        )
        raise PackagingError(
            f"The package answers by {what}; Triton's backends have none of that.",
            hint="Packages of models run in Triton by the base 'triton' (see dockerfiles/triton); "
            "'fieldpost model show' says why a model has no compiled form.",
        )


def _write(root: Path, bundle: Bundle, version: int, folder: Path) -> None:
    from scoring.formats.onnx import data_files  # noqa: PLC0415 - models that are exported
    from scoring.runtimes.onnx import open_session  # noqa: PLC0415 - heavy

    source = root / "model" / bundle.model_path
    target = folder / str(version)
    target.mkdir()
    for each in data_files(source):
        beside = target / each.relative_to(source.parent)
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(each, beside)
    shutil.copyfile(source, target / "model.onnx")
    session = open_session(source)
    outputs = session.get_outputs()
    labels = _labelled(bundle, outputs)
    if labels and bundle.schema:
        text = "".join(f"{label}\n" for label in bundle.schema.classes)
        (folder / _LABELS).write_text(text, "utf-8")
    config = write(bundle.name, version, session.get_inputs(), outputs, labels)
    (folder / CONFIG).write_text(config, "utf-8")
    _sync(folder)


def _labelled(bundle: Bundle, outputs: list[Any]) -> str:
    """The output with a column for each label: what Triton's classification names."""
    classes = bundle.schema.classes if bundle.schema else ()
    if not classes or any("\n" in str(label) for label in classes):
        return ""
    fits = [
        each.name
        for each in outputs
        if each.type in {"tensor(float)", "tensor(double)"} and each.shape[-1:] == [len(classes)]
    ]
    return fits[0] if len(fits) == 1 else ""


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        else:
            durable.sync_folder(path)
    durable.sync_folder(folder)
