"""Deltas: the new content of a layer as zstd patches against the old one, chunk by chunk.

Each chunk of the new content is a zstd frame whose dictionary is a piece of the old content around
the same place. Pieces never go back, so the old content is read once, as a stream, and a device
needs memory for two pieces, however large the model. The result counts only if its whole digest is
the one that the signed package names: nothing in a delta is believed.

    "FPDELTA1", length of the head (4 bytes), head (JSON)
    for each chunk: start and length of its piece (8 and 4 bytes), length of the frame (4), frame

All numbers are little-endian. What is compared is the uncompressed archive of a layer: after one
changed number its compressed form has little in common with the old one.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from typing import Annotated, BinaryIO, Final

import msgspec
import zstandard

from edge.agent.blobs import DeviceBlobs
from edge.agent.throttle import Stop
from scoring import digest as digests
from scoring.errors import DigestMismatchError

MAGIC: Final = b"FPDELTA1"
CHUNK_BYTES: Final = 1 << 20
MARGIN_BYTES: Final = 256 << 10
"""Of the old content before and after a chunk's place: so far may content have moved."""

LEVEL: Final = 9

MOST_BYTES: Final = 1 << 40
_MOST_CHUNK: Final = 4 << 20
_MOST_PIECE: Final = 8 << 20
_MOST_HEAD: Final = 4096
_MOST_WINDOW: Final = 16 << 20
_PROBES: Final = 16
_PROBE_BYTES: Final = 48
_PROBE_STEP: Final = 1009
_PROBE_VARIETY: Final = 8  # different bytes: zeros are found everywhere
_LENGTH: Final = struct.Struct("<I")
_CHUNK: Final = struct.Struct("<QII")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a delta says of itself.

    Attributes:
        v: Of the form.
        new: The digest of the result.
        size: Of the result.
        chunk: Bytes of each chunk but the last.
    """

    v: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    new: str
    size: Annotated[int, msgspec.Meta(ge=0, le=MOST_BYTES)]
    chunk: Annotated[int, msgspec.Meta(ge=1, le=_MOST_CHUNK)]


def make(old: BinaryIO, new: BinaryIO, out: BinaryIO, *, level: int = LEVEL) -> Head:
    """Writes the delta from one uncompressed layer to another.

    Args:
        old: The base; read once.
        new: Seekable: it is read twice.
        out: Where to.
        level: Of zstd.
    """
    head = Head(new=digests.of_stream(new), size=new.tell(), chunk=CHUNK_BYTES)
    text = msgspec.json.encode(head)
    out.write(MAGIC + _LENGTH.pack(len(text)) + text)
    new.seek(0)
    pieces, place, drift = _Pieces(old), 0, 0
    while chunk := new.read(CHUNK_BYTES):
        start = max(pieces.start, place + drift - MARGIN_BYTES)
        piece = pieces.take(start, len(chunk) + 2 * MARGIN_BYTES)
        frame = _compress(chunk, piece, level)
        out.write(_CHUNK.pack(start, len(piece), len(frame)) + frame)
        drift = _drift(chunk, piece, start - place, drift)
        place += len(chunk)
    return head


def apply(
    patch: BinaryIO,
    old: BinaryIO,
    diff_id: str,
    blobs: DeviceBlobs,
    stop: Stop | None = None,
    *,
    most_bytes: int = MOST_BYTES,
) -> Head:
    """Makes the new layer, and keeps it uncompressed under its `diff_id`.

    Args:
        patch: The delta.
        old: The base, uncompressed.
        diff_id: What the result has to be.
        blobs: Where to.
        stop: Breaks off.
        most_bytes: How large the result may be: nobody has signed what the delta says of that, and
            a device has no room for whatever it says.

    Raises:
        DigestMismatchError: The delta is broken, or for another base, or gives something else.
        StorageFullError: There is no room; nothing was kept.
        WorkspaceError: The disk cannot be written.
        StoppedError: It is not wanted any more.
    """
    try:
        head = _read_head(patch, diff_id, most_bytes)
        with blobs.incoming(diff_id, head.size) as incoming:
            incoming.restart()
            pieces = _Pieces(old)
            for chunk in _chunks(patch, pieces, head):
                if stop is not None:
                    stop.check()
                incoming.write(chunk)
            incoming.finish()
    except (zstandard.ZstdError, struct.error, EOFError, zlib.error, gzip.BadGzipFile) as error:
        blobs.drop_part(diff_id)
        raise _broken(diff_id, str(error)) from error
    except BaseException:
        blobs.drop_part(diff_id)
        raise
    return head


class _Pieces:
    """Reads a stream in pieces that may overlap and never go back.

    Attributes:
        start: Of the last piece.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.start = 0
        self._stream = stream
        self._buffer = b""

    def take(self, start: int, length: int) -> bytes:
        """A piece; shorter where the stream ends before.

        Raises:
            EOFError: It would begin before the last one.
        """
        if start < self.start:
            raise EOFError("a piece of the base goes back")
        self._advance(start - self.start)
        self.start = start
        while len(self._buffer) < length:
            more = self._stream.read(length - len(self._buffer))
            if not more:
                break
            self._buffer += more
        return self._buffer[:length]

    def _advance(self, count: int) -> None:
        """Leaves bytes behind."""
        kept = self._buffer[count:]
        left = count - len(self._buffer)
        while left > 0:
            passed = self._stream.read(min(left, CHUNK_BYTES))
            if not passed:
                break
            left -= len(passed)
        self._buffer = kept


def _compress(chunk: bytes, piece: bytes, level: int) -> bytes:
    dictionary = _dictionary(piece)
    window = max(10, (len(chunk) + len(piece)).bit_length())
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, window_log=window, write_content_size=1, write_checksum=0, write_dict_id=0
    )
    made = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters)
    return made.compress(chunk)


def _dictionary(piece: bytes) -> zstandard.ZstdCompressionDict | None:
    if not piece:
        return None
    return zstandard.ZstdCompressionDict(piece, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _drift(chunk: bytes, piece: bytes, offset: int, drift: int) -> int:
    """By how much content stands elsewhere than before, seen near the end of a chunk."""
    for back in range(1, _PROBES + 1):
        at = len(chunk) - back * _PROBE_STEP
        sample = chunk[at : at + _PROBE_BYTES] if at >= 0 else b""
        found = piece.find(sample) if len(set(sample)) > _PROBE_VARIETY else -1
        if found >= 0:
            return offset + found - at
    return drift


def _read_head(patch: BinaryIO, diff_id: str, most_bytes: int) -> Head:
    if _exactly(patch, len(MAGIC)) != MAGIC:
        raise EOFError("it is no delta")
    (length,) = _LENGTH.unpack(_exactly(patch, _LENGTH.size))
    if length > _MOST_HEAD:
        raise EOFError("its head is too long")
    try:
        head = msgspec.json.decode(_exactly(patch, length), type=Head)
    except (msgspec.DecodeError, ValueError) as error:
        raise EOFError(f"its head is none: {error}") from error
    if head.new != diff_id:
        raise EOFError("it leads to something else")
    if head.size > most_bytes:
        raise EOFError(f"it gives {head.size} bytes, and {most_bytes} are the most")
    return head


def _chunks(patch: BinaryIO, pieces: _Pieces, head: Head) -> Iterator[bytes]:
    left = head.size
    while left:
        size = min(left, head.chunk)
        start, piece_size, frame_size = _CHUNK.unpack(_exactly(patch, _CHUNK.size))
        if piece_size > _MOST_PIECE or frame_size > size + (size >> 7) + 1024:
            raise EOFError("it has a chunk that is too large")
        piece = pieces.take(start, piece_size)
        yield _decompress(_exactly(patch, frame_size), piece, size)
        left -= size
    if patch.read(1):
        raise EOFError("something follows it")


def _decompress(frame: bytes, piece: bytes, size: int) -> bytes:
    if zstandard.get_frame_parameters(frame).content_size != size:
        raise EOFError("it has a chunk of another size")
    opened = zstandard.ZstdDecompressor(dict_data=_dictionary(piece), max_window_size=_MOST_WINDOW)
    chunk = opened.decompress(frame, max_output_size=size, allow_extra_data=False)
    if len(chunk) != size:
        raise EOFError("it has a chunk of another size")
    return chunk


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("it is cut off")
    return data


def _broken(diff_id: str, reason: str) -> DigestMismatchError:
    return DigestMismatchError(
        f"The delta to {diff_id} is broken: {reason}.", hint="The whole layer is fetched instead."
    )
