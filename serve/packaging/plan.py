"""What a package is built from, as a value: `--dry-run` prints it, `build` carries it out."""

from __future__ import annotations

from pathlib import Path

import msgspec

import scoring
from scoring import digest
from scoring.bundle import Bundle, encode
from serve.packaging.install import PRUNE_VERSION
from serve.packaging.layers import FORMAT_VERSION
from serve.packaging.lock import Lock


class ModelFile(msgspec.Struct, frozen=True, order=True):
    """A file of the model layer, stored in the blob store.

    Attributes:
        path: Relative to `model/`, such as `compiled/model.onnx`.
        digest: The blob that holds it.
        size: In bytes.
        executable: Its owner's x bit.
    """

    path: str
    digest: str
    size: int
    executable: bool = False


class CodeFile(msgspec.Struct, frozen=True, order=True):
    """A file of the code layer, on this machine.

    Attributes:
        path: Relative to `code/`.
        source: Where it is now.
        size: In bytes.
        executable: Its owner's x bit.
    """

    path: str
    source: Path
    size: int
    executable: bool = False


class BaseImage(msgspec.Struct, frozen=True):
    """The image that the layers stand on when one is exported; never part of the package."""

    name: str
    digest: str = ""


class BuildPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides a package's digest.

    Attributes:
        bundle: The package's own description.
        lock: Its environment.
        model_files: Of the model layer, beside `bundle.json`.
        code_files: Of the code layer; none for a model without a script.
        model_digest: Of the registered model version; empty for an unregistered one.
        base: The base image; None for the one that a target chooses.
        fieldpost_version: Of the runtime layer.
    """

    bundle: Bundle
    lock: Lock
    model_files: tuple[ModelFile, ...] = ()
    code_files: tuple[CodeFile, ...] = ()
    model_digest: str = ""
    base: BaseImage | None = None
    fieldpost_version: str = scoring.__version__

    @property
    def environment_key(self) -> str:
        """Names the environment layer before it is built."""
        return _key("environment", FORMAT_VERSION, PRUNE_VERSION, self.lock.hash)

    @property
    def model_key(self) -> str:
        """Names the model layer before it is built."""
        files = sorted(self.model_files)
        return _key("model", FORMAT_VERSION, encode(self.bundle).decode(), files)

    def describe(self) -> dict[str, object]:
        """The plan for `--json --dry-run`: no path of this machine, nothing that varies."""
        return {
            "name": self.bundle.name,
            "model_version": self.bundle.model_version,
            "model_digest": self.model_digest,
            "runtime": self.bundle.runtime,
            "platform": self.lock.target.platform,
            "python": self.lock.target.python,
            "environment": {
                "hash": self.lock.hash,
                "packages": [f"{item.name}=={item.version}" for item in self.lock.packages],
            },
            "model_files": [{"path": f.path, "size": f.size} for f in sorted(self.model_files)],
            "code_files": [{"path": f.path, "size": f.size} for f in sorted(self.code_files)],
            "base": msgspec.to_builtins(self.base),
            "fieldpost_version": self.fieldpost_version,
        }


def _key(*parts: object) -> str:
    return digest.of_bytes(msgspec.json.encode(parts, order="sorted"))
