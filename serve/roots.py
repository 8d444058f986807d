"""Roots for the foreground server: the layout of a package, made of links, for a bare file.

The server reads the same layout everywhere (`scoring.bundle`), so that a file served in the
foreground answers as its registered and packaged version does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.bundle import BUNDLE_FILE, Bundle, ScriptSpec, encode
from scoring.errors import ModelNotFoundError, NotFoundError, UsageError
from scoring.formats.base import Trust
from scoring.prepare import COMPILED_PATH, Prepared, prepare_isolated
from scoring.quantum.document import SUFFIX
from serve.bundles import MODELS, registered_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


PREFIX = "fieldpost-serve-"
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `fieldpost serve` was told, beside the thing to serve.

    Attributes:
        workspace: Where registered names are looked up.
        model_dir: `AZUREML_MODEL_DIR` of a script.
        source: The script's source folder; by default the folder that it is in.
        trust: What the operator allows.
        sample: A file of inputs to compare the compiled form on.
        progress: Called with a sentence at each step.
    """

    workspace: str | None = None
    model_dir: Path | None = None
    source: Path | None = None
    trust: Trust = field(default_factory=Trust)
    sample: Path | None = None
    progress: Callable[[str], None] = lambda _sentence: None


@contextmanager
def open_root(thing: str, options: ServeOptions) -> Iterator[Path]:
    """A root that a server can run, removed at the end.

    Args:
        thing: A model file or folder, an entry script, or a registered NAME[:VERSION].
        options: See `ServeOptions`.

    Raises:
        ModelFileError: The file cannot be served; the message says why.
        ModelNotFoundError: It is neither a path nor a registered name.
        UsageError: The options do not fit the thing.
    """
    remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, held(Path(folder)) as root:
        write_root(root, thing, options)
        yield root


def write_root(root: Path, thing: str, options: ServeOptions) -> None:
    """Makes a folder the root of a thing; arguments and errors as of `open_root`."""
    path = Path(thing)
    if path.suffix == ".py":
        _script_root(root, path, options)
    elif path.exists():
        _file_root(root, path, options)
    else:
        _registered_root(root, thing, options)


@contextmanager
def held(root: Path) -> Iterator[Path]:
    """Locks a root for as long as this process, or a child that it forks, uses it."""
    descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield root
    finally:
        os.close(descriptor)


def remove_abandoned() -> None:
    """Removes the roots of servers that were killed, or left by their script's `os._exit`."""
    for root in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # Another user's, one without its lock yet, or one in use: not ours to remove.
        with contextlib.suppress(OSError):
            descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_root(root)
            finally:
                os.close(descriptor)


def remove_root(root: Path) -> None:
    """Removes a root of `open_root` now, for a process that ends without leaving its block."""
    shutil.rmtree(root, ignore_errors=True)  # links are removed, never what they lead to


def _script_root(root: Path, script: Path, options: ServeOptions) -> None:
    if not script.is_file():
        raise ModelNotFoundError(
            f"There is no script {str(script)!r}.", hint="Check the path, from this folder."
        )
    script = script.resolve()
    source = (options.source or script.parent).resolve()
    if not script.is_relative_to(source):
        raise UsageError(
            f"The script {script.name} is not in the source folder {source}.",
            hint="Give a --source folder that contains the script.",
        )
    model_dir = ""
    if options.model_dir is not None:
        model_dir = f"{MODELS}/model"
        _link(root / "model" / model_dir, _existing_folder(options.model_dir))
    _link(root / "code", source)
    spec = ScriptSpec(entry=script.relative_to(source).as_posix())
    name = _safe_name(script.stem)
    _write(root, Bundle(name=name, runtime="script", model_dir=model_dir, script=spec))


def _existing_folder(path: Path) -> Path:
    if not path.is_dir():
        raise ModelNotFoundError(
            f"The model folder {str(path)!r} does not exist, or is a file.",
            hint="--model-dir is the folder that contains the model's files.",
        )
    return path.resolve()


def _file_root(root: Path, path: Path, options: ServeOptions) -> None:
    if options.model_dir is not None:
        raise UsageError(
            f"--model-dir goes with a script, and {path} is none.", hint="Leave --model-dir out."
        )
    out = root / "model"
    out.mkdir(parents=True)
    prepared = prepare_isolated(path, out, trust=options.trust, sample=options.sample)
    model_path = COMPILED_PATH
    if prepared.serves == "original":
        real = path.resolve()
        # The whole folder around it: an ONNX file may keep its weights in files beside it.
        _link(out / MODELS / "here", real.parent)
        inner = f"{real.name}/{prepared.primary}" if real.is_dir() else real.name
        model_path = f"{MODELS}/here/{inner}"
    _tell(prepared, options.progress)
    _write(root, _bundle(name_of(path), 0, prepared, model_path))


def _tell(prepared: Prepared, progress: Callable[[str], None]) -> None:
    reason = prepared.compilation.reason if prepared.compilation else ""
    progress(
        f"Format {prepared.format}; serves the {prepared.serves} form"
        + (f": {reason}" if reason and prepared.serves == "original" else ".")
    )


def _registered_root(root: Path, ref: str, options: ServeOptions) -> None:
    from serve.registry import Registry  # noqa: PLC0415 - a bare file needs no database

    if options.model_dir is not None or options.source is not None:
        raise UsageError("--model-dir and --source go with a script.", hint="Leave them out.")
    try:
        with Registry(options.workspace) as registry:
            version = registry.models.get(ref)
            paths = {
                file.path: registry.blobs.path(file.digest) for file in version.files if file.digest
            }
            compiled = registry.blobs.path(version.compiled.digest) if version.compiled else None
    except (NotFoundError, UsageError) as error:
        raise ModelNotFoundError(
            f"{ref!r} is neither a file here nor a registered model.",
            hint="'fieldpost model list' shows what is registered.",
        ) from error
    folder = f"{MODELS}/{version.name}/{version.version}"
    if version.serves == "compiled" and compiled is not None:
        _link(root / "model" / COMPILED_PATH, compiled)
        model_path = COMPILED_PATH
    else:
        for name, blob in paths.items():
            _place(root / "model" / folder / name, blob, alone=len(paths) == 1)
        model_path = f"{folder}/{version.primary}"
    _write(root, registered_bundle(version, model_path))


def _bundle(name: str, version: int, prepared: Prepared, model_path: str) -> Bundle:
    return Bundle(
        name=name,
        model_version=version,
        runtime=prepared.runtime,
        format=prepared.format,
        model_path=model_path,
        schema=prepared.schema,
        trusted_types=prepared.trusted_types,
        pickle_trusted=prepared.pickle_trusted,
    )


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def _place(path: Path, blob: Path, *, alone: bool) -> None:
    """A blob under a file's name: files that name each other have to stand in one real folder."""
    if alone:
        _link(path, blob)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.hardlink_to(blob)
    except OSError:  # another file system
        shutil.copyfile(blob, path)


def _write(root: Path, bundle: Bundle) -> None:
    path = root / BUNDLE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(bundle))


def name_of(path: Path) -> str:
    """The name that a model's file or folder is served under: without its ending.

    That of a circuit, `half-moons.circuit.json`, has two parts.
    """
    name = path.resolve().name
    return _safe_name(name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else Path(name).stem)


def _safe_name(stem: str) -> str:
    """A name of the form that the registry takes, from a file's."""
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "model"
