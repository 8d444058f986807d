"""Pickles and joblib files, told and read without running them."""

from __future__ import annotations

import bz2
import io
import lzma
import pickletools
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

from scoring.errors import UnsupportedModelError
from scoring.formats.base import Detection

if TYPE_CHECKING:
    from scoring.formats.source import Source

WINDOW_BYTES = 32 << 20
"""How much of each end is searched for the version; a forest carries it in its first tree."""
MAX_INFLATED = 256 << 20
CHUNK = 1 << 16

FIRST_PART = 256
_OPCODES_OF_OLD = 8
_OLD_CONTAINERS = {
    *(("MARK", kind) for kind in ("DICT", "LIST", "TUPLE")),
    *((f"EMPTY_{kind}", "BINPUT") for kind in ("DICT", "LIST", "TUPLE")),
}
_STOP = b"."
_BINARY = re.compile(rb"\x80[\x02-\x05]")
_TORCH_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"
_JOBLIB = (b"joblib.numpy_pickle", b"NumpyArrayWrapper")
_VERSION_KEY = b"_sklearn_version"
# Between the key and its value stands how the pickle remembers the key.
_MEMO = re.compile(rb"(?:\x94|q.|r.{4}|\np\d+)?\n?", re.DOTALL)
# Compressions whose magic is long enough to believe it.
_STRONG = re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ\x00|\]\x00\x00..\xff{8}", re.DOTALL)
_LZ4_MAGIC = b"\x04\x22\x4d\x18"
_LZ4_BLOCK_AT = 11
_EXPORT_HINT = (
    "Build the module, load the weights into it and export it: torch.export.save("
    "torch.export.export(model.eval(), (example,)), 'model.pt2'), "
    "or torch.onnx.export(model, (example,), 'model.onnx', dynamo=True)."
)


def detect(source: Source) -> Detection | None:
    """A pickle or a joblib file, or None where the bytes are something else.

    Raises:
        CorruptModelError: It is cut off.
        UnsupportedModelError: It was written by `torch.save` in its old form.
    """
    if _TORCH_MAGIC in source.head[:16]:
        raise UnsupportedModelError(
            f"{source.path} was written by an old torch.save: weights without the model's graph.",
            hint=_EXPORT_HINT,
            where=str(source.path),
        )
    if not begins_pickle(source.head):
        return None
    if not _ends_with_stop(source):
        raise source.corrupt("is a pickle that is cut off")
    data = list(source.windows(WINDOW_BYTES))
    kind = "sklearn-joblib" if any(mark in part for part in data for mark in _JOBLIB) else None
    return _detection(source, data, joblib=kind is not None)


def detect_compressed(source: Source) -> Detection | None:
    """A joblib file under one of its compressions, or None.

    Raises:
        CorruptModelError: It is cut off or damaged.
    """
    if source.head.startswith(_LZ4_MAGIC):
        return _detect_lz4(source)
    stream = _opened(source)
    if stream is None:
        return None
    data, ended = _inflate(stream)
    if not data and _STRONG.match(source.head):
        raise source.corrupt("is a compressed file that is cut off or damaged")
    if not begins_pickle(data[:CHUNK]):
        return None
    if not ended:
        raise source.corrupt("is a compressed joblib file that is cut off or damaged")
    return _detection(source, [data], joblib=True)


def _detection(source: Source, data: list[bytes], *, joblib: bool) -> Detection:
    version = next(filter(None, map(sklearn_version, data)), "")
    return Detection(
        format="sklearn-joblib" if joblib else "sklearn-pickle",
        runtime="sklearn",
        path=source.path,
        made_with={"scikit-learn": version} if version else {},
        runs_code=True,
    )


def begins_pickle(head: bytes) -> bool:
    """Whether the bytes begin a pickle of any protocol from 0 to 5.

    The first opcodes are read, never run. Protocols 0 and 1 have no mark of their own, and any
    text begins with letters that are opcodes: theirs must make sense for longer.
    """
    if _BINARY.match(head):
        return len(_opcodes(head, 3)) > 1
    names = _opcodes(head, _OPCODES_OF_OLD)
    begins = names[:1] == ["GLOBAL"] or tuple(names[:2]) in _OLD_CONTAINERS
    return begins and (len(names) >= _OPCODES_OF_OLD or names[-1] == "STOP")


def _opcodes(head: bytes, count: int) -> list[str]:
    """The names of the first opcodes, as far as the bytes are opcodes."""
    names: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(head):
            if opcode.name == "GLOBAL" and not _dotted(argument):
                break
            names.append(opcode.name)
            if len(names) == count:
                break
    except Exception:  # noqa: BLE001 - genops fails in many ways on bytes that are no pickle
        return names
    return names


def _dotted(name: object) -> bool:
    """Whether a GLOBAL names a module and an attribute, such as `copy_reg _reconstructor`."""
    words = str(name).split(" ")
    return len(words) == 2 and all(p.isidentifier() for w in words for p in w.split("."))  # noqa: PLR2004


def _ends_with_stop(source: Source) -> bool:
    """Whether the last byte ends a pickle; a torn one ends with `.` by chance once in 256."""
    return source.tail(1) == _STOP


def sklearn_version(data: bytes) -> str:
    """The scikit-learn version that an estimator in a pickle was made with; empty where unknown."""
    at = data.find(_VERSION_KEY)
    while at >= 0:
        after = at + len(_VERSION_KEY)
        memo = _MEMO.match(data, after)
        version = _string(data, memo.end() if memo else after)
        if version:
            return version
        at = data.find(_VERSION_KEY, after)
    return ""


def _string(data: bytes, at: int) -> str:
    """The text that a pickle's string opcode at this place holds, where it is a version."""
    code = data[at : at + 1]
    text = b""
    if code == b"\x8c" and at + 1 < len(data):
        text = data[at + 2 : at + 2 + data[at + 1]]
    elif code == b"X" and at + 5 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 1)
        text = data[at + 5 : at + 5 + min(length, 64)]
    elif code == b"V":
        text = data[at + 1 : at + 65].split(b"\n", 1)[0]
    return text.decode() if re.fullmatch(rb"\d+\.\d+[\w.+-]*", text) else ""


class _Zlib(io.RawIOBase):
    """A zlib or gzip stream, inflated as it is read."""

    def __init__(self, file: BinaryIO, window: int) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(window)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            pending = self._inflate.unconsumed_tail or self._file.read(CHUNK)
            if self._inflate.eof:
                return 0
            if not pending:
                raise EOFError("cut off")
            data = self._inflate.decompress(pending, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)


def _opened(source: Source) -> Any:
    head = source.head
    source.file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return _Zlib(source.file, 31)
    if head[:1] == b"x" and len(head) > 1 and int.from_bytes(head[:2], "big") % 31 == 0:
        return _Zlib(source.file, 15)
    if head.startswith(b"BZh"):
        return bz2.BZ2File(source.file)
    if head.startswith((b"\xfd7zXZ\x00", b"]\x00\x00")):
        return lzma.LZMAFile(source.file)
    return None


def _inflate(stream: BinaryIO) -> tuple[bytes, bool]:
    """The beginning of the stream, up to a limit, and whether the pickle in it is whole.

    A stream that inflates to more than the limit counts as whole: loading will tell.
    """
    data = bytearray()
    try:
        # A short first part, so that a damage further on leaves something to be recognised.
        while chunk := stream.read(CHUNK if data else FIRST_PART):
            if not data and not begins_pickle(chunk):
                return bytes(chunk), True
            data += chunk
            if len(data) > MAX_INFLATED:
                return bytes(data), True
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError):
        return bytes(data), False
    return bytes(data), data.endswith(_STOP)


def _detect_lz4(source: Source) -> Detection | None:
    """An lz4 frame whose first literals begin a pickle; lz4 itself is not needed for that."""
    head = source.head
    has_size = bool(head[4] & 0x08) if len(head) > 4 else False  # noqa: PLR2004
    block = _LZ4_BLOCK_AT + (8 if has_size else 0)
    literals = block + 1
    while head[literals : literals + 1] == b"\xff":
        literals += 1
    if not _BINARY.match(head[literals : literals + 4]) and not _BINARY.match(head[literals + 1 :]):
        return None
    return _detection(source, [], joblib=True)
