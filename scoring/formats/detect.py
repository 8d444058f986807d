"""Tells the format of a model from its bytes: never by its name, and never by running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scoring.errors import (
    CorruptModelError,
    ModelFileError,
    ModelNotFoundError,
    UnknownFormatError,
    UnsupportedModelError,
)
from scoring.formats import archives, boosters, circuits, folders, foreign, pickles, protobuf
from scoring.formats.source import Source, not_readable, open_source

if TYPE_CHECKING:
    from scoring.formats.base import Detection

KNOWN = (
    "ONNX, scikit-learn (joblib, pickle, skops), XGBoost (.json, .ubj), LightGBM (text), "
    "PyTorch (.pt2, TorchScript), Keras (.keras) and quantum circuits (.circuit.json)"
)
_MAX_DEPTH = 4


def detect(path: Path) -> Detection:
    """Tells what a model file is, or finds the one model in a folder.

    Nothing of the file is run and no framework is imported; of a large file only parts are read.

    Args:
        path: A file, or a folder that holds one model.

    Returns:
        The format, the file, and what its bytes say of how it was made.

    Raises:
        ModelNotFoundError: There is no such file, it cannot be read, or the folder is empty.
        CorruptModelError: The content is empty, cut off or damaged.
        UnknownFormatError: The content is of no known format.
        UnsupportedModelError: The format is known but cannot be served, or a folder holds several
            models.
    """
    return _detect(Path(path), _MAX_DEPTH)


def _detect(path: Path, depth: int) -> Detection:
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:
        raise not_readable(path, str(error)) from error
    if not is_folder:
        return detect_file(path)
    inner = folders.named_model(path)
    if inner is not None and depth > 0:
        return _detect(inner, depth - 1)
    return _only_model(path)


def detect_file(path: Path) -> Detection:
    """Tells what one file is; see `detect`."""
    with open_source(path) as source:
        if source.size == 0:
            raise source.corrupt("is empty")
        return _sniff(source)


def _sniff(source: Source) -> Detection:
    """Asks each kind in turn, those with a mark of their own before those that are guessed."""
    found = archives.detect(source)
    if found is None:
        foreign.refuse(source)
        for kind in (
            circuits.detect,
            boosters.detect,
            pickles.detect_compressed,
            protobuf.detect,
            pickles.detect,
        ):
            found = kind(source)
            if found is not None:
                break
    if found is None:
        raise _unknown(source)
    return found


def _unknown(source: Source) -> UnknownFormatError:
    what = "is text of no known model format" if _is_text(source.head) else "has no known format"
    if source.head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x04\x22\x4d\x18")):
        what = "is compressed and holds no joblib model"
    hint = f"Fieldpost reads {KNOWN}."
    if source.head.lstrip().startswith(b"OPENQASM"):
        what = "is a circuit in OpenQASM"
        hint = "Make it a circuit file first: 'fieldpost quantum compile FILE --to circuit'."
    return UnknownFormatError(f"{source.path} {what}.", hint=hint, where=str(source.path))


def _is_text(head: bytes) -> bool:
    return b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)  # noqa: PLR2004


def _only_model(folder: Path) -> Detection:
    found: list[Detection] = []
    refused: list[ModelFileError] = []
    seen = 0
    for path in folders.files(folder):
        seen += 1
        try:
            found.append(detect_file(path))
        except (UnsupportedModelError, CorruptModelError) as error:
            refused.append(error)
        except ModelFileError:
            continue
    if len(found) == 1:
        return found[0]
    if found:
        raise _several(folder, found)
    if len(refused) == 1:
        raise refused[0]
    raise _none(folder, seen, refused)


def _several(folder: Path, found: list[Detection]) -> UnsupportedModelError:
    listed = ", ".join(f"{one.path.relative_to(folder)} ({one.format})" for one in found[:8])
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""  # noqa: PLR2004
    return UnsupportedModelError(
        f"{folder} holds {len(found)} models: {listed}{more}.",
        hint="Give the path of the one to use.",
        where=str(folder),
    )


def _none(folder: Path, seen: int, refused: list[ModelFileError]) -> ModelFileError:
    if not seen:
        return ModelNotFoundError(
            f"{folder} is a folder without files.", hint="Give a model file.", where=str(folder)
        )
    if refused:
        return UnsupportedModelError(
            f"{folder} holds no model that can be served. "
            + " ".join(e.message for e in refused[:4]),
            hint=refused[0].hint,
            where=str(folder),
        )
    return UnknownFormatError(
        f"None of the {seen} files in {folder} has a known model format.",
        hint=f"Fieldpost reads {KNOWN}.",
        where=str(folder),
    )
