"""Models that are zip archives: skops, PyTorch, Keras."""

from __future__ import annotations

import json
import lzma
import pickletools
import re
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

from scoring.errors import UnknownFormatError, UnsupportedModelError
from scoring.formats.base import Detection

if TYPE_CHECKING:
    from scoring.formats.source import Source

_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
# What zipfile and the decompressors under it raise for damaged archives.
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, OSError),
)
MAX_MEMBER = 64 << 20
"""Descriptions inside an archive that are larger than this are not read."""
_SKOPS_VERSION = re.compile(r'"_sklearn_version":\s*\{[^{}]*?"content":\s*"\\"([\w.+-]+)\\""')
_KERAS_PARTS = {"config.json", "metadata.json", "model.weights.h5"}
_EXPORT = (
    "torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2'), "
    "or torch.onnx.export(model, (example,), 'model.onnx', dynamo=True)."
)
# What a pickle inside a PyTorch archive may name without being able to run code.
_SAFE_GLOBAL = re.compile(
    r"collections OrderedDict|torch(?:\.storage)? (?:Untyped|Typed)?[A-Za-z0-9]*Storage"
    r"|torch\._utils _rebuild_(?:tensor_v2|tensor|parameter)|torch(?:\.serialization)? Size"
    r"|torch (?:float|int|uint|bfloat|bool|complex)\d*|torch\.nn\.parameter Parameter"
)


def detect(source: Source) -> Detection | None:
    """A model in a zip archive, or None where the file is no zip.

    Raises:
        CorruptModelError: The archive is cut off or damaged.
        UnsupportedModelError: PyTorch weights or modules that were pickled.
        UnknownFormatError: An archive without a model.
    """
    if not source.head.startswith(_MAGICS):
        return None
    try:
        source.file.seek(0)
        with zipfile.ZipFile(source.file) as archive:
            return _detect(source, archive)
    except _BROKEN as error:
        raise source.corrupt("is a zip archive that is cut off or damaged") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise source.corrupt("is a model archive with a damaged description") from error


def _detect(source: Source, archive: zipfile.ZipFile) -> Detection:
    names = archive.namelist()
    present = set(names)
    if len(present) != len(names):
        raise source.corrupt("is an archive that holds a name twice")
    if "schema.json" in present and "__loader__" in _text(archive, "schema.json")[:4096]:
        return _skops(source, archive)
    if present >= _KERAS_PARTS or {"config.json", "metadata.json"} <= present:
        return _keras(source, archive, present)
    return _torch(source, archive, names)


def _text(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as member:
        return member.read(MAX_MEMBER).decode("utf-8", "replace")


def _skops(source: Source, archive: zipfile.ZipFile) -> Detection:
    found = _SKOPS_VERSION.search(_text(archive, "schema.json"))
    return Detection(
        format="sklearn-skops",
        runtime="sklearn",
        path=source.path,
        made_with={"scikit-learn": found[1]} if found else {},
    )


def _keras(source: Source, archive: zipfile.ZipFile, present: set[str]) -> Detection:
    if "model.weights.h5" not in present and not any("weights" in name for name in present):
        raise source.corrupt("is a Keras archive without its weights")
    metadata = json.loads(_text(archive, "metadata.json"))
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return Detection(
        format="keras",
        runtime="keras",
        path=source.path,
        made_with={"keras": version} if isinstance(version, str) else {},
    )


def _torch(source: Source, archive: zipfile.ZipFile, names: list[str]) -> Detection:
    prefix = names[0].split("/", 1)[0] + "/" if names else ""
    inner = {name.removeprefix(prefix) for name in names}
    if "serialized_exported_program.json" in names:
        return _export(source, archive, "")
    if {"archive_format", "archive_version"} <= inner:
        return _pt2(source, archive, prefix, inner)
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return Detection(format="torchscript", runtime="torchscript", path=source.path)
    if "data.pkl" in inner:
        raise _pickled_torch(source, archive, prefix + "data.pkl")
    raise _no_model(source, names)


def _pt2(source: Source, archive: zipfile.ZipFile, prefix: str, inner: set[str]) -> Detection:
    if any(re.fullmatch(r"models/[^/]+\.json", name) for name in inner):
        if not all(name.startswith(prefix) for name in archive.namelist()):
            raise source.corrupt("is a PyTorch archive with two roots")
        return _export(source, archive, prefix)
    raise UnsupportedModelError(
        f"{source.path} is a PyTorch archive without an exported program"
        + (": code compiled by AOTInductor for one machine." if _compiled(inner) else "."),
        hint="Save the exported program itself: torch.export.save(program, 'model.pt2').",
        where=str(source.path),
    )


def _compiled(inner: set[str]) -> bool:
    return any(name.startswith("data/aotinductor") for name in inner)


def _export(source: Source, archive: zipfile.ZipFile, prefix: str) -> Detection:
    return Detection(
        format="torch-export",
        runtime="torch-export",
        path=source.path,
        runs_code=not _payloads_are_tensors(archive, prefix),
    )


def _payloads_are_tensors(archive: zipfile.ZipFile, prefix: str) -> bool:
    """Whether all that `torch.export.load` would unpickle builds tensors and nothing else.

    It unpickles sample inputs, and those weights and constants that its configuration marks, with
    no restriction. Plain weights are raw bytes and may look like anything.
    """
    pickled = _marked_as_pickle(archive, prefix)
    for name in archive.namelist():
        inner = name.removeprefix(prefix)
        raw = inner.startswith(("data/weights/", "data/constants/tensor_"))
        if inner.startswith("data/constants/") and "_obj_" in inner:
            return False
        if raw and inner.rsplit("/", 1)[-1] not in pickled:
            continue
        if inner.endswith(".json") and not inner.startswith("serialized_"):
            continue
        if not _safe_payload(archive, name):
            return False
    return True


def _marked_as_pickle(archive: zipfile.ZipFile, prefix: str) -> set[str]:
    marked: set[str] = set()
    for name in archive.namelist():
        if re.search(r"data/(?:weights|constants)/[^/]*config\.json$", name.removeprefix(prefix)):
            config: Any = json.loads(_text(archive, name)).get("config", {})
            marked |= {
                str(entry.get("path_name")) for entry in config.values() if entry.get("use_pickle")
            }
    return marked


def _safe_payload(archive: zipfile.ZipFile, name: str) -> bool:
    """Whether a member is no pickle, or a `torch.save` archive of tensors."""
    with archive.open(name) as member:
        head = member.read(4)
        if head[:1] == b"\x80":
            return False
        if not head.startswith(_MAGICS):
            return True
    with archive.open(name) as member, zipfile.ZipFile(member) as nested:
        pickles = [inner for inner in nested.namelist() if inner.endswith("data.pkl")]
        return len(pickles) == 1 and all(
            _SAFE_GLOBAL.fullmatch(found) for found in _globals(nested, pickles[0])
        )


def _globals(archive: zipfile.ZipFile, name: str) -> list[str]:
    """What a pickle inside an archive imports: `module name` for each."""
    with archive.open(name) as member:
        data = member.read(MAX_MEMBER)
    found: list[str] = []
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("GLOBAL", "INST"):
            found.append(str(argument))
        elif opcode.name == "STACK_GLOBAL":
            found.append(" ".join(strings[-2:]))
        elif opcode.name.startswith("EXT"):
            found.append("copyreg extension")
        elif "UNICODE" in opcode.name:
            strings.append(str(argument))
    return found


def _pickled_torch(source: Source, archive: zipfile.ZipFile, name: str) -> UnsupportedModelError:
    try:
        modules = [entry.split(" ", 1)[0] for entry in _globals(archive, name)]
    except ValueError as error:
        raise source.corrupt("is a PyTorch file with a damaged index") from error
    plain = {"collections", "torch", "torch._utils", "torch.storage", "torch.nn.parameter"}
    if set(modules) <= plain:
        what = "holds PyTorch weights (a state dict) without the model's graph"
        hint = "Build the module, load the weights into it with load_state_dict, then export it: "
    else:
        what = "is a pickled PyTorch module, which needs the code of its class and can run any code"
        hint = "Load it where its class is defined, then export it: "
    return UnsupportedModelError(
        f"{source.path} {what}.", hint=hint + _EXPORT, where=str(source.path)
    )


def _no_model(source: Source, names: list[str]) -> UnknownFormatError:
    arrays = bool(names) and all(name.endswith(".npy") for name in names)
    what = "holds NumPy arrays, not a model" if arrays else "is a zip archive without a known model"
    return UnknownFormatError(
        f"{source.path} {what}.",
        hint="Give a model file" + ("." if arrays else ", or unpack it and give what is inside."),
        where=str(source.path),
    )
