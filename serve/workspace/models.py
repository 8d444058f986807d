"""Registering models: look at the file, compile, compare, store."""

from __future__ import annotations

import math
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import MissingDependencyError, UnknownFormatError, UsageError
from scoring.formats.base import Trust
from scoring.formats.detect import detect
from scoring.prepare import COMPILED_PATH, Prepared, prepare_isolated
from serve.bento.places import is_bento
from serve.registry import files
from serve.registry.names import check_name
from serve.triton.places import is_triton

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from serve.registry.models import ModelStore
    from serve.registry.records import Freed, ModelDiff, ModelVersion
    from serve.workspace import Workspace

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RegistrationPlan:
    """What `Models.register` would store.

    Attributes:
        name: The model's name.
        prepared: What is known of the file: format, schema, the form that serves and why.
        files: Path to bytes.
    """

    name: str
    prepared: Prepared
    files: dict[str, int]


class Models:
    """The registered models of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @property
    def _store(self) -> ModelStore:
        return self._workspace.registry.models

    def register(
        self,
        name: str,
        source: str | Path | Any,
        *,
        sample: Any = None,
        tags: Mapping[str, str] | None = None,
        description: str = "",
        metrics: Mapping[str, Any] | None = None,
        tolerance: float = 1e-5,
        trust_pickle: bool = False,
        trusted_types: Iterable[str] = (),
        expected_format: str | None = None,
    ) -> ModelVersion:
        """Registers the next version of a model.

        Args:
            name: Lower-case letters, digits, `.`, `_` and `-`.
            source: A file or a folder; what BentoML has saved (`bentoml:TAG`, a `.bentomodel` or
                `.bento` file); a model of a Triton repository (`triton:DIR`); or, of this
                process, a fitted scikit-learn estimator, a quantum classifier (alone, or behind
                scalers in a pipeline), or a circuit.
            sample: Inputs to compare the compiled form on: a file, an array, a DataFrame, rows.
            tags: Key to value.
            description: A sentence about this version.
            metrics: A JSON object: accuracy and the like.
            tolerance: How far probabilities of the compiled form may be from the original's.
            trust_pickle: Load a pickle, which can run any code; recorded with the version.
            trusted_types: Further types that a skops file may hold.
            expected_format: Fail unless the file is of this format.

        Raises:
            ModelFileError: The file is missing, corrupt, unknown, or not trusted.
            InvalidNameError: The name or a tag has not the right form.
            UsageError: The tolerance is negative or not finite.
        """
        check_name(name)
        _check_tolerance(tolerance)
        with (
            _as_path(source, name) as (path, own, found_tags),
            tempfile.TemporaryDirectory() as scratch,
        ):
            found = _collect(path)
            trust = Trust(pickle=trust_pickle or own, types=tuple(trusted_types))
            out = Path(scratch)

            def prepare() -> Document:
                known = _prepare(path, out, trust, sample, tolerance, expected_format)
                document: Document = msgspec.to_builtins(known)
                return document

            with _begun(prepare, path) as prepared:
                compiled = out / COMPILED_PATH
                return self._store.register(
                    name,
                    found,
                    prepared=prepared,
                    compiled=compiled if compiled.exists() else None,
                    tags={**found_tags, **(tags or {})},
                    description=description,
                    metrics=metrics,
                )

    def plan(
        self,
        name: str,
        source: str | Path,
        *,
        sample: Any = None,
        tolerance: float = 1e-5,
        trust_pickle: bool = False,
        trusted_types: Iterable[str] = (),
        expected_format: str | None = None,
    ) -> RegistrationPlan:
        """Does all that `register` does, except storing anything; raises like it."""
        check_name(name)
        _check_tolerance(tolerance)
        with (
            _as_path(source, name) as (path, _, _),
            tempfile.TemporaryDirectory() as scratch,
        ):
            found = _collect(path)
            trust = Trust(pickle=trust_pickle, types=tuple(trusted_types))
            prepared = _prepare(path, Path(scratch), trust, sample, tolerance, expected_format)
            sizes = {name: file.path.stat().st_size for name, file in found.items()}
        return RegistrationPlan(name, prepared, sizes)

    def get(self, ref: str) -> ModelVersion:
        """The version that `iris`, `iris:3` or `iris:latest` names; raises NotFoundError."""
        return self._store.get(ref)

    def list(
        self, name: str | None = None, *, tags: Mapping[str, str | None] | None = None
    ) -> tuple[ModelVersion, ...]:
        """Versions by name, the newest first; a tag's value None stands for any."""
        return self._store.list(name, tags=tags)

    def tag(
        self,
        ref: str,
        set: Mapping[str, str] | None = None,  # noqa: A002 - as users call it
        remove: Iterable[str] = (),
    ) -> ModelVersion:
        """Sets and removes tags of a version."""
        return self._store.tag(ref, set, remove)

    def diff(self, before: str, after: str) -> ModelDiff:
        """What differs between two versions."""
        return self._store.diff(before, after)

    def download(self, ref: str, destination: Path, *, replace: bool = False) -> ModelVersion:
        """Writes a version's files into a new folder, every digest checked, whole or not at all."""
        return self._store.download(ref, destination, replace=replace)

    def delete(self, ref: str) -> Freed:
        """Deletes a version that no deployment uses; raises InUseError where one does."""
        return self._store.delete(ref)

    def used_by(self, version: ModelVersion) -> tuple[str, ...]:
        """The deployments that keep a version from being deleted."""
        return tuple(self._store.used_by(version))


def _check_tolerance(tolerance: float) -> None:
    if not 0 <= tolerance < math.inf:
        raise UsageError(
            f"The tolerance is {tolerance}; it has to be a number from 0 up.",
            hint="Leave it out for 1e-5.",
            where="tolerance",
        )


def _prepare(
    path: Path,
    out: Path,
    trust: Trust,
    sample: Any,
    tolerance: float,
    expected: str | None,
) -> Prepared:
    prepared = prepare_isolated(path, out, trust=trust, sample=sample, tolerance=tolerance)
    if expected is not None and expected != prepared.format:
        raise UnknownFormatError(
            f"{path} is of the format {prepared.format}, not {expected}.",
            hint="Leave --format out: the format is told from the file.",
        )
    return prepared


@contextmanager
def _begun(
    prepare: Callable[[], Document], path: Path
) -> Iterator[Document | Callable[[], Document]]:
    """Prepares now; an ONNX file, which needs no compiling, while its bytes are stored."""
    if not path.is_file() or detect(path).format != "onnx":
        yield prepare()
        return
    # Imports hold the interpreter: beside them, bytes would be read and hashed at half the speed.
    import scoring.runtimes.onnx  # noqa: F401, PLC0415

    with ThreadPoolExecutor(1, "prepare") as pool:
        yield pool.submit(prepare).result


def _collect(path: Path) -> dict[str, files.SourceFile]:
    """The files to store: those of the folder, or the file with those that hold its weights."""
    found = files.collect(path)
    if path.is_file() and detect(path).format == "onnx":
        from scoring.formats.onnx import data_files  # noqa: PLC0415 - only for this format

        for beside in data_files(path):
            inside = beside.relative_to(path.parent).as_posix()
            found[inside] = files.collect(beside)[beside.name]
    return found


@contextmanager
def _as_path(source: Any, name: str) -> Iterator[tuple[Path, bool, dict[str, str]]]:
    """A path; whether we wrote it ourselves, from an object of this very process; its own tags."""
    if isinstance(source, str | Path):
        if is_triton(source):
            from serve.triton.importing import find  # noqa: PLC0415 - few models come from there

            found = find(source)
            yield found.path, False, found.tags
            return
        if not is_bento(source):
            yield Path(source), False, {}
            return
        from serve.bento.importing import opened  # noqa: PLC0415 - few models come from there

        with opened(source) as model:
            yield model.path, False, model.tags
        return
    circuit = _circuit_of(source)
    if circuit is None and not hasattr(source, "predict"):
        raise UsageError(
            f"A {type(source).__name__} cannot be registered.",
            hint="Give a file, a folder, or a fitted scikit-learn estimator.",
        )
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / (f"{name}.joblib" if circuit is None else f"{name}.circuit.json")
        if circuit is None:
            _dump(source, path)
        else:
            _write_circuit(circuit, path)
        yield path, circuit is None, {}


def _circuit_of(source: Any) -> Any:
    """The circuit of a quantum classifier, with the scalers of its pipeline; else None."""
    source = getattr(source, "best_estimator_", source)  # of a search
    if type(source).__module__.startswith("scoring.quantum."):
        kind = type(source).__name__
        if kind in ("Circuit", "OneVersusRest"):
            return source
    elif not hasattr(source, "steps"):
        return None
    from scoring.quantum.pipelines import is_trained, model_of  # noqa: PLC0415 - for them only

    return model_of(source) if is_trained(source) else None


def _write_circuit(circuit: Any, path: Path) -> None:
    from scoring.quantum import document  # noqa: PLC0415 - late: for circuits only

    path.write_bytes(document.dumps(circuit))


def _dump(estimator: Any, path: Path) -> None:
    try:
        import joblib  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            "Registering an estimator from memory needs joblib.",
            hint="Install it with: pip install 'fieldpost[sklearn]'.",
        ) from error
    joblib.dump(estimator, path)
