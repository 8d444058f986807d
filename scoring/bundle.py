"""The layout of a package on disk, the same in every target.

A package unpacks below one root, `opt/fieldpost/` inside an image:

    env/site-packages/      the environment layer: the locked dependencies, nothing else
    runtime/                the runtime layer: the packages `scoring` and `serve`
    code/                   the code layer: the scoring script and its source folder (may be absent)
    model/                  the model layer:
        bundle.json         this module's `Bundle`
        compiled/           the compiled ONNX form, where that is what serves
        azureml-models/NAME/VERSION/...   the registered files, where a script or a native runtime
                                          needs them

A foreground server on a bare file gets a root with `model/` (and `code/`) alone.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from scoring.errors import CorruptModelError, ModelNotFoundError
from scoring.schema import ModelSchema

BUNDLE_VERSION = 1
IMAGE_ROOT = "opt/fieldpost"
BUNDLE_FILE = "model/bundle.json"
COMPILED_PATH = "compiled/model.onnx"
"""Below `model/`, and in the folder where a model is prepared."""

RuntimeName = Literal[
    "onnx",
    "sklearn",
    "xgboost",
    "lightgbm",
    "torch-export",
    "torchscript",
    "keras",
    "circuit",
    "script",
]


class ScriptSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the scoring script is, relative to `code/`.

    Attributes:
        entry: The script's path: `AZUREML_ENTRY_SCRIPT`.
        source_directory: `AZUREML_SOURCE_DIRECTORY`; empty where there is none.
    """

    entry: str
    source_directory: str = ""


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a server needs to know about a package.

    Attributes:
        name: The model's registered name, or a name made from the file.
        model_version: The registered version; 0 for a model that is not registered.
        runtime: What loads `model_path`; `script` where the user's script does.
        format: The format of the registered files, as `scoring.formats` names it; empty for none.
        model_path: File or folder that the runtime loads, relative to `model/`; empty for none.
        model_dir: `AZUREML_MODEL_DIR`, relative to `model/`; empty for none.
        schema: None for a script that declares none.
        script: None for a model that needs none.
        trusted_types: skops types that the operator trusts.
        pickle_trusted: The operator trusts the pickle in this package.
        version: Of this document.
    """

    name: str
    runtime: RuntimeName
    model_version: int = 0
    format: str = ""
    model_path: str = ""
    model_dir: str = ""
    schema: ModelSchema | None = None
    script: ScriptSpec | None = None
    trusted_types: tuple[str, ...] = ()
    pickle_trusted: bool = False
    version: int = BUNDLE_VERSION


def encode(bundle: Bundle) -> bytes:
    """The document as deterministic JSON (sorted keys, two-space indent, final newline)."""
    return msgspec.json.format(msgspec.json.encode(bundle, order="sorted"), indent=2) + b"\n"


def read(root: Path) -> Bundle:
    """Reads `model/bundle.json` below a package's root.

    Raises:
        ModelNotFoundError: There is no such file.
        CorruptModelError: The document is broken or of another version.
    """
    path = root / BUNDLE_FILE
    try:
        bundle = msgspec.json.decode(path.read_bytes(), type=Bundle)
    except OSError as error:
        raise ModelNotFoundError(
            f"{root} holds no package: {BUNDLE_FILE} cannot be read ({error.strerror}).",
            hint="Build a package with 'fieldpost package build'.",
        ) from error
    except msgspec.DecodeError as error:
        raise CorruptModelError(f"{path} is not a valid package description: {error}.") from error
    if bundle.version != BUNDLE_VERSION:
        raise CorruptModelError(
            f"{path} has version {bundle.version}; this server reads version {BUNDLE_VERSION}.",
            hint="Use the Fieldpost release that built the package, or build it again.",
        )
    for relative in (bundle.model_path, bundle.model_dir):
        _require_inside(relative, path)
    return bundle


def _require_inside(relative: str, document: Path) -> None:
    parts = PurePosixPath(relative)
    if parts.is_absolute() or ".." in parts.parts:
        raise CorruptModelError(f"{document} names a path outside the package: {relative!r}.")
