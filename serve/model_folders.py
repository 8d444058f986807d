"""The folder of a server of several models: what is served under which name, prepared and renewed.

`python -m serve.model_folders ROOT NAME` is what a worker runs when it is asked to load a model: it
looks at the file, folder or registered name again, prepares what is new, and writes it into the
server's state (`serve.server.models.folder`). A failure is one line of JSON on standard output.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scoring import durable
from scoring.errors import FieldpostError, ModelNotFoundError, UsageError
from scoring.formats.base import Trust
from serve.roots import PREFIX, ServeOptions, held, name_of, remove_abandoned, write_root
from serve.server.models.folder import MANIFEST, Entry, Manifest, ModelFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_REQUEST = "things.json"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")
_STAMP_DIGITS = 12


class _Thing(msgspec.Struct, frozen=True):
    """What one name stands for."""

    path: str
    registered: bool = False


class _Request(msgspec.Struct, frozen=True):
    """What `fieldpost serve` was told, for the times when a model is loaded again."""

    things: dict[str, _Thing]
    workspace: str | None = None
    repository: str = ""
    trust_pickle: bool = False
    trusted_types: tuple[str, ...] = ()


@contextmanager
def open_models(
    things: Sequence[str], repository: Path | None, options: ServeOptions
) -> Iterator[Path]:
    """A root from which a server answers for several models, removed at the end.

    Args:
        things: Each `[NAME=]THING`: a model file or folder, or a registered NAME[:VERSION].
        repository: A folder with one folder for each further model: its file, or one folder for
            each version. None for none.
        options: See `ServeOptions`.

    Raises:
        UsageError: Two things have one name, or a name is not valid.
        ModelFileError: A model cannot be served; the message says why.
    """
    named = _named(things)
    if repository is not None and not repository.is_dir():
        raise ModelNotFoundError(
            f"There is no folder {str(repository)!r}.",
            hint="A repository is a folder with one folder for each model.",
        )
    remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, held(Path(folder)) as root:
        request = _Request(
            named,
            options.workspace,
            str(repository.resolve()) if repository else "",
            options.trust.pickle,
            options.trust.types,
        )
        _write(root, request, named)
        for name in ModelFolder(root).names():
            options.progress(f"Preparing {name}")
            refresh(root, name)
        yield root


def _named(things: Sequence[str]) -> dict[str, _Thing]:
    """The things by name: the given one, the registered one, or one made from the path."""
    found: dict[str, _Thing] = {}
    for thing in things:
        name, equals, rest = thing.partition("=")
        if not equals or Path(thing).exists():
            name, rest = "", thing
        path = Path(rest)
        if path.suffix == ".py":
            raise UsageError(
                f"{rest} is a script, which has a server for itself.",
                hint="Serve the script alone, or leave it out.",
            )
        registered = not path.exists()
        made = rest.partition(":")[0] if registered else name_of(path)
        name = name or re.sub(r"[^a-z0-9._-]+", "-", made).strip("-._")
        if not _NAME.match(name):
            raise UsageError(
                f"{name!r} is not a name for a model.",
                hint="Use lower-case letters, digits, '.', '_' and '-': serve iris=./model.onnx",
            )
        if name in found:
            raise UsageError(
                f"Two models are named {name!r}.", hint=f"Name one of them: other={rest}"
            )
        found[name] = _Thing(rest if registered else str(path.resolve()), registered)
    return found


def _write(root: Path, request: _Request, named: dict[str, _Thing]) -> None:
    command = (sys.executable, "-P", "-m", "serve.model_folders")
    manifest = Manifest(
        command,
        default=next(iter(named)) if len(named) == 1 and not request.repository else "",
        names=tuple(named),
        repository=request.repository,
    )
    durable.write_bytes(root / _REQUEST, msgspec.json.encode(request))
    durable.write_bytes(root / MANIFEST, msgspec.json.encode(manifest))


def refresh(root: Path, name: str) -> None:
    """Prepares the versions of a model that are there now, and writes them into the state.

    Versions that have not changed since they were prepared stay as they are.

    Args:
        root: Of the server.
        name: Of the model.

    Raises:
        UnknownModelError: There is no such name.
        ModelFileError: A version cannot be served; the state then stays as it was.
    """
    request = msgspec.json.decode((root / _REQUEST).read_bytes(), type=_Request)
    thing = request.things.get(name) or _Thing(str(Path(request.repository, name)))
    folder = ModelFolder(root)
    with folder.locked():
        before = folder.state().models.get(name, Entry())
        versions = _prepare(root, name, thing, request, before)
        folder.change(name, Entry(versions))
        _remove_old(root / "models" / name, {*before.versions.values(), *versions.values()}, root)


def _prepare(
    root: Path, name: str, thing: _Thing, request: _Request, before: Entry
) -> dict[str, str]:
    options = ServeOptions(
        workspace=request.workspace,
        trust=Trust(pickle=request.trust_pickle, types=request.trusted_types),
    )
    if thing.registered:
        return _registered(root, name, thing.path, options)
    path = Path(thing.path)
    if not path.exists():
        raise ModelNotFoundError(f"{path} is not there any more.", where=str(path))
    numbered = _numbered(path)
    found: dict[str, str] = {}
    for version, part in numbered.items():
        found[version] = _version(root, name, version, part, options)
    if numbered:
        return found
    # One file without a version of its own: each new content counts up.
    stamp = _stamp(path)
    for version, known in before.versions.items():
        if known.endswith(f"-{stamp}"):
            return {version: known}
    version = str(max((int(v) for v in before.versions if v.isdigit()), default=0) + 1)
    return {version: _version(root, name, version, path, options)}


def _numbered(path: Path) -> dict[str, Path]:
    """The versions of a folder that holds folders with numbers as names, and nothing else."""
    if not path.is_dir():
        return {}
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    folders = [entry for entry in entries if entry.is_dir() and entry.name.isdigit()]
    configured = {"config.pbtxt", "README.md"}
    if not folders or any(e not in folders and e.name not in configured for e in entries):
        return {}
    return {entry.name: _inner(entry) for entry in sorted(folders, key=lambda e: int(e.name))}


def _inner(folder: Path) -> Path:
    """The model in a version's folder: its only file, or the folder as it is."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return entries[0] if len(entries) == 1 and entries[0].is_file() else folder


def _version(root: Path, name: str, version: str, path: Path, options: ServeOptions) -> str:
    return _placed(
        root, name, version, _stamp(path), lambda made: write_root(made, str(path), options)
    )


def _registered(root: Path, name: str, ref: str, options: ServeOptions) -> dict[str, str]:
    from serve.registry import Registry  # noqa: PLC0415 - files need no database

    with Registry(options.workspace) as registry:
        version = registry.models.get(ref)
    exact = f"{version.name}:{version.version}"
    place = _placed(
        root,
        name,
        str(version.version),
        version.digest.rpartition(":")[2][:_STAMP_DIGITS],
        lambda made: write_root(made, exact, options),
    )
    return {str(version.version): place}


def _placed(root: Path, name: str, version: str, stamp: str, make: Callable[[Path], None]) -> str:
    """The root of one version, relative to the server's; made unless it is there."""
    place = f"models/{name}/{version}-{stamp}"
    final = root / place
    if not final.exists():
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=".") as part:
            made = Path(part, "root")
            made.mkdir()
            make(made)
            made.rename(final)
    return place


def _stamp(path: Path) -> str:
    """Changes when a file, or any file of a folder, changes."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        found = file.stat()
        digest.update(f"{file}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ino}\n".encode())
    return digest.hexdigest()[:_STAMP_DIGITS]


def _remove_old(folder: Path, keep: set[str], root: Path) -> None:
    """Removes versions that neither the old state nor the new one has; workers may load the old."""
    with contextlib.suppress(FileNotFoundError):
        for entry in folder.iterdir():
            if str(entry.relative_to(root)) not in keep:
                shutil.rmtree(entry, ignore_errors=True)


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    root, name = arguments
    try:
        refresh(Path(root), name)
    except FieldpostError as error:
        told = {key: str(value) for key, value in error.to_dict().items() if value}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
