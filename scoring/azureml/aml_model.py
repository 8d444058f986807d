"""What scripts import as `azureml.core.model` where azureml-core is not installed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["Model"]

_FOLDER = "azureml-models"


class Model:
    """The one thing that scoring scripts ask of azureml-core: where a model's file is."""

    @staticmethod
    def get_model_path(
        model_name: str,
        version: int | None = None,
        _workspace: object = None,  # as azureml-core has it; there is no workspace here
    ) -> str:
        """The path of a deployed model's file or folder.

        Args:
            model_name: As registered, or the name of a file in the model folder. Where there is
                one model and its name is another, that one is meant.
            version: By default the highest that is there.

        Raises:
            FileNotFoundError: It is not among the models of the deployment.
        """
        root = Path(os.environ.get("AZUREML_MODEL_DIR") or _FOLDER)
        found = _named(root, model_name, version)
        if found is None:
            raise FileNotFoundError(
                errno.ENOENT, f"The model {model_name!r} is not deployed", str(root)
            )
        return str(found)


def _named(root: Path, name: str, version: int | None) -> Path | None:
    own = root / name
    if own.is_dir():
        numbers = [int(p.name) for p in own.iterdir() if p.name.isdecimal() and p.is_dir()]
        if not numbers:
            return own
        wanted = max(numbers) if version is None else version
        return _content(own / str(wanted)) if wanted in numbers else None
    if own.is_file():
        return own
    # The folder of one model alone is `azureml-models/NAME/VERSION`.
    if root.parent.name == name and version in {None, _number(root.name)}:
        return _content(root)
    entries = _entries(root)
    return entries[0] if len(entries) == 1 and version is None else None


def _content(folder: Path) -> Path:
    """What was registered: the only entry; of several files, their folder."""
    entries = _entries(folder)
    return entries[0] if len(entries) == 1 else folder


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
