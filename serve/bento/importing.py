"""Models that BentoML has saved: from its store, from `.bentomodel` and from `.bento` files.

A model of BentoML is a folder: `model.yaml`, which says what it is, and the files of the model's
own library, which are what is registered here. Files are read without BentoML; its store is asked
through it.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml

from scoring.errors import CorruptModelError, ModelFileError, NotFoundError, UsageError
from serve.bento.places import BENTO, DESCRIPTION, DESCRIPTION_BYTES, STORE

_MAX_MEMBERS = 200_000
_MAX_BYTES = 64 << 30
_NOT_MODELS = frozenset({DESCRIPTION, "custom_objects.pkl", "requirements.txt"})


class BentoModel(msgspec.Struct, frozen=True):
    """A model of BentoML, as far as it is registered here.

    Attributes:
        path: The model's own file, or the folder of several.
        tag: What BentoML calls it.
        tags: For the version that is registered: BentoML's own words under `bentoml/`, and labels.
    """

    path: Path
    tag: str
    tags: dict[str, str]


class _Context(msgspec.Struct):
    framework_name: str = ""
    framework_versions: dict[str, str] = {}
    python_version: str = ""


class _Description(msgspec.Struct):
    name: str
    version: str
    module: str = ""
    labels: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    signatures: dict[str, Any] = {}
    context: _Context = msgspec.field(default_factory=_Context)


@contextmanager
def opened(source: str | Path) -> Iterator[BentoModel]:
    """The model that a name means.

    Args:
        source: `bentoml:TAG` for BentoML's store, a `.bentomodel` or `.bento` file, or the folder
            of one of the two.

    Raises:
        NotFoundError: The store has no such model.
        ModelFileError: It is no model of BentoML's, damaged, or unsafe to unpack.
        UsageError: A Bento has several models, or none.
        MissingDependencyError: BentoML is not installed, and its store is asked for.
    """
    if str(source).startswith(STORE):
        yield read(_stored(str(source).removeprefix(STORE)))
        return
    path = Path(source)
    if path.is_dir():
        yield read(_only_model(path))
        return
    with tempfile.TemporaryDirectory(prefix="fieldpost-bento-") as scratch:
        folder = Path(scratch)
        _unpack(path, folder)
        yield read(_only_model(folder))


def read(folder: Path) -> BentoModel:
    """Reads the folder of a model.

    Raises:
        ModelFileError: Its description is missing or damaged, or there is no model beside it.
    """
    known = _describe(folder / DESCRIPTION)
    files = sorted(path for path in folder.iterdir() if path.name not in _NOT_MODELS)
    if not files:
        raise CorruptModelError(
            f"The BentoML model {known.name}:{known.version} holds no model.",
            hint="Save it again: its folder has nothing but its description.",
        )
    named = [path for path in files if path.stem == "saved_model"] or files
    return BentoModel(
        path=named[0] if len(named) == 1 else folder,
        tag=f"{known.name}:{known.version}",
        tags=_tags(known),
    )


def _tags(known: _Description) -> dict[str, str]:
    versions = known.context.framework_versions
    found = {
        "tag": f"{known.name}:{known.version}",
        "module": known.module,
        "framework": " ".join(f"{name} {version}" for name, version in versions.items()),
        "signatures": " ".join(known.signatures),
    }
    scalars = {
        f"metadata/{name}": str(value)
        for name, value in known.metadata.items()
        if isinstance(value, str | int | float | bool)
    }
    own = {f"bentoml/{name}": value for name, value in (found | scalars).items() if value}
    return {**known.labels, **own}


def _describe(path: Path) -> _Description:
    try:
        text = path.read_bytes()[:DESCRIPTION_BYTES]
        return msgspec.convert(yaml.safe_load(text), _Description)
    except FileNotFoundError as error:
        raise CorruptModelError(
            f"There is no {DESCRIPTION} in what should be a BentoML model.",
            hint="Export it again: 'bentoml models export TAG'.",
        ) from error
    except (yaml.YAMLError, msgspec.ValidationError, ValueError) as error:
        raise CorruptModelError(
            f"The {DESCRIPTION} of a BentoML model cannot be read: {error}",
            hint="Export it again: 'bentoml models export TAG'.",
        ) from error


def _stored(tag: str) -> Path:
    from serve.bento.library import bentoml  # noqa: PLC0415 - heavy, and most models are files

    library = bentoml()
    try:
        return Path(library.models.get(tag).path)
    except library.exceptions.NotFound as error:
        raise NotFoundError(
            f"BentoML's store has no model {tag!r}.", hint="'bentoml models list' shows them."
        ) from error
    except (library.exceptions.BentoMLException, ValueError) as error:
        raise UsageError(
            f"{tag!r} is no tag of BentoML: {error}", hint="Write bentoml:NAME[:VERSION]."
        ) from error


def _only_model(folder: Path) -> Path:
    """The folder of the model: this one, or the only one of a Bento."""
    if (folder / DESCRIPTION).is_file():
        return folder
    if not (folder / BENTO).is_file():
        raise CorruptModelError(
            f"There is neither {DESCRIPTION} nor {BENTO} in it: BentoML has not written this.",
            hint="Give the file that 'bentoml models export' or 'bentoml export' has written.",
        )
    if (folder / "src" / "fieldpost.json").is_file():
        raise UsageError(
            "This Bento was made of a package; the model in it is a part of that.",
            hint="Take the package itself ('fieldpost package pull'), or the model it came from.",
        )
    found = sorted(path.parent for path in folder.glob(f"models/*/*/{DESCRIPTION}"))
    if len(found) == 1:
        return found[0]
    names = ", ".join("/".join(path.parts[-2:]) for path in found)
    raise UsageError(
        f"The Bento has {len(found)} models: {names}."
        if found
        else "The Bento has no model in it.",
        hint="Register models one by one: 'bentoml models export TAG', then that file.",
    )


def _unpack(path: Path, folder: Path) -> None:
    """Unpacks an archive that may come from anywhere: files below the folder, nothing else."""
    try:
        with tarfile.open(path) as archive:
            _require_bounds(archive)
            archive.extractall(folder, filter="data")
    except FileNotFoundError as error:
        raise ModelFileError(f"There is no file {path}.") from error
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CorruptModelError(
            f"{path} cannot be unpacked: {error}",
            hint="Export it again as a tar archive: 'bentoml models export TAG'.",
        ) from error


def _require_bounds(archive: tarfile.TarFile) -> None:
    count = size = 0
    for member in archive:
        count, size = count + 1, size + member.size
        if count > _MAX_MEMBERS or size > _MAX_BYTES:
            raise ValueError(f"it holds more than {_MAX_MEMBERS} files or {_MAX_BYTES >> 30} GiB")
        if not (member.isfile() or member.isdir()):
            raise ValueError(f"{member.name!r} is neither a file nor a folder")
