"""The files of a dataset: their formats, told by their names, and their bytes, unpacked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, Any, cast

from scoring.batch.records import Format, Options, Source
from scoring.errors import MalformedPayloadError, MissingDependencyError, UsageError

_FORMATS: dict[str, Format] = {
    "parquet": "parquet",
    "pq": "parquet",
    "csv": "csv",
    "tsv": "csv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
}
_COMPRESSIONS = {"gz": "gzip", "zst": "zstd", "bz2": "bz2", "xz": "xz"}
SUFFIXES: dict[Format, str] = {"parquet": ".parquet", "csv": ".csv", "jsonl": ".jsonl"}
_NAMES = "parquet, csv, tsv, jsonl or ndjson"


def format_of(path: str) -> tuple[Format | None, str]:
    """The format and the compression that a name tells: `rows.csv.gz` is CSV, `gzip`."""
    parts = path.rsplit("/", 1)[-1].lower().split(".")
    compression = _COMPRESSIONS.get(parts[-1], "")
    rest = parts[:-1] if compression else parts
    return (_FORMATS.get(rest[-1]) if len(rest) > 1 else None), compression


def named_format(text: str, option: str) -> Format | None:
    """The format of an option's value; None where it is not given.

    Raises:
        UsageError: There is none of that name.
    """
    if not text:
        return None
    found = _FORMATS.get(text.lower())
    if found is None:
        raise UsageError(f"{option} is {text!r}, no format.", hint=f"Choose one of {_NAMES}.")
    return found


def input_format(path: str, options: Options) -> tuple[Format, str]:
    """The format and the compression of a file of the dataset.

    Raises:
        UsageError: Its name tells none, and no option does.
    """
    told, compression = format_of(path)
    found = named_format(options.input_format, "--format") or told
    if found is None:
        raise UsageError(
            f"The format of {path} is not told by its name.",
            hint=f"Give --format: {_NAMES}.",
            where=path,
        )
    return found, compression


def output_format(options: Options, first: Format) -> Format:
    """The format of the result: as asked for, as its name tells, else that of the dataset.

    Raises:
        UsageError: The result is to be compressed, or the option names no format.
    """
    told, compression = format_of(options.output)
    if compression:
        raise UsageError(
            f"{options.output} would be compressed, which results are not.",
            hint="Name it without that suffix, or write Parquet, which is compressed in itself.",
        )
    return named_format(options.output_format, "--output-format") or told or first


def delimiter_of(path: str, options: Options) -> str:
    """What separates the cells of a CSV file."""
    if options.delimiter:
        return {"\\t": "\t", "tab": "\t"}.get(options.delimiter, options.delimiter)
    name = path.lower()
    return "\t" if ".tsv" in name[-8:] else ","


@contextlib.contextmanager
def unpacked(file: IO[bytes], compression: str, path: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked while they are read.

    Raises:
        MalformedPayloadError: They are not what the file's name says, or cut off.
        MissingDependencyError: What unpacks them is not installed.
    """
    if not compression:
        yield file
        return
    try:
        with _opener(compression, path)(file) as opened:
            yield opened
    except _broken(compression) as error:
        raise MalformedPayloadError(
            f"{path} cannot be unpacked: {error}.", hint="Make the file anew.", where=path
        ) from error


def _opener(compression: str, path: str) -> Any:
    if compression == "gzip":
        import gzip  # noqa: PLC0415 - few files are packed

        return gzip.open
    if compression == "bz2":
        import bz2  # noqa: PLC0415 - likewise

        return bz2.open
    if compression == "xz":
        import lzma  # noqa: PLC0415 - likewise

        return lzma.open
    try:
        import zstandard  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is packed with zstd, and the Python package zstandard is not installed here.",
            hint="Install zstandard (or add it to the package's environment), or unpack the file.",
        ) from error
    return _ZstdOpener(zstandard)


class _ZstdOpener:
    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self, file: IO[bytes]) -> IO[bytes]:
        import io  # noqa: PLC0415 - likewise

        decompressor = self._module.ZstdDecompressor(max_window_size=1 << 31)
        reader = decompressor.stream_reader(file, read_across_frames=True)
        return cast("IO[bytes]", io.BufferedReader(reader, 1 << 20))


def _broken(compression: str) -> tuple[type[Exception], ...]:
    import zlib  # noqa: PLC0415 - likewise

    if compression == "xz":
        import lzma  # noqa: PLC0415 - likewise

        return (EOFError, OSError, lzma.LZMAError)
    if compression == "zstd":
        with contextlib.suppress(ImportError):
            import zstandard  # noqa: PLC0415 - likewise

            return (EOFError, OSError, zstandard.ZstdError)
    return (EOFError, OSError, zlib.error)


def plain_bytes(source: Source) -> bool:
    """Whether a file may be read from any of its bytes on."""
    return not source.compression
