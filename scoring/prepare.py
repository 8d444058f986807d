"""From a model file to the form that serves: detect, load, compile, compare.

`prepare` does it in this process. `prepare_isolated` does it in a child, so that frameworks never
enter the caller's memory, and so that a pickle which ends its process ends only the child.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from scoring.bundle import COMPILED_PATH as COMPILED_PATH  # noqa: PLC0414 - it makes that file
from scoring.bundle import RuntimeName
from scoring.compilation import Compilation
from scoring.formats.base import Detection, FormatName, LoadedModel, Trust
from scoring.formats.detect import detect
from scoring.schema import ModelSchema

if TYPE_CHECKING:
    from scoring.compilation.compile import Compiled

_COMPILED_RUNTIMES = ("sklearn", "xgboost", "lightgbm", "circuit")
_EXAMPLE_ROWS = 32


class Prepared(msgspec.Struct, frozen=True):
    """A model that is ready to be registered or served.

    Attributes:
        format: Of the original.
        runtime: What will serve: `onnx` where the compiled form does, or the original is ONNX.
        serves: Which form.
        primary: The original's file, relative to the folder that was given; of a single file its
            name.
        schema: What the form that serves takes and answers, with an example request.
        made_with: Package name to version, as far as the file tells.
        requirements: What the form that serves needs beside the base runtime, pinned.
        native_requirements: What the original needs, pinned.
        pickle_trusted: The original is a pickle, and the operator trusts it.
        trusted_types: skops types that the operator trusts.
        compilation: How compiling ended; None for formats that are served as they are.
    """

    format: FormatName
    runtime: RuntimeName
    serves: Literal["compiled", "original"]
    primary: str
    schema: ModelSchema
    made_with: dict[str, str]
    requirements: tuple[str, ...]
    native_requirements: tuple[str, ...]
    pickle_trusted: bool
    trusted_types: tuple[str, ...]
    compilation: Compilation | None


def prepare(
    path: Path, out: Path, *, trust: Trust, sample: Any = None, tolerance: float = 1e-5
) -> Prepared:
    """Finds out what a model is, and compiles it where the compiled form agrees with it.

    Args:
        path: The model's file, or a folder that holds one.
        out: The folder that gets `compiled/model.onnx` where the compiled form serves.
        trust: What the operator allows.
        sample: Rows of input, or the path of a file with some (see `scoring.sample`).
        tolerance: The largest difference between the two forms; see `compile_model`.

    Returns:
        All that registering, packaging and serving need to know.

    Raises:
        ModelFileError: The file is missing, broken, untrusted or cannot be served here.
        InputError: The sample does not fit the model.
        StorageFullError: There is no room for the compiled form.
    """
    return prepare_with(path, out, trust=trust, sample=sample, tolerance=tolerance)


def prepare_with(
    path: Path,
    out: Path,
    *,
    trust: Trust,
    sample: Any = None,
    tolerance: float = 1e-5,
    before_compiling: Callable[[], None] = lambda: None,
    not_compiled: str = "",
) -> Prepared:
    """Does what `prepare` does, for a caller that follows the steps.

    Args:
        path: As in `prepare`.
        out: As in `prepare`.
        trust: As in `prepare`.
        sample: As in `prepare`.
        tolerance: As in `prepare`.
        before_compiling: Called when the original is loaded, before it is compiled.
        not_compiled: The reason why nothing is to be compiled; empty to compile.
    """
    # Late: who only asks for `Prepared`, or has a child prepare, needs none of this, nor numpy.
    from scoring.example import with_example  # noqa: PLC0415
    from scoring.formats.load import load_original  # noqa: PLC0415
    from scoring.sample import read_sample, to_inputs  # noqa: PLC0415

    path = Path(path)
    detection = detect(path)
    sample = read_sample(Path(sample)) if isinstance(sample, str | Path) else sample
    loaded = load_original(detection, trust, sample)
    rows = None if sample is None else to_inputs(sample, loaded.schema)
    if detection.runtime in _COMPILED_RUNTIMES and not not_compiled:
        before_compiling()
        return _prepare_compiled(path, out, loaded, trust, rows, tolerance)
    compilation = Compilation(served=False, reason=not_compiled) if not_compiled else None
    schema = with_example(loaded.schema, [] if rows is None else [rows], loaded.predictor.predict)
    return _prepared(path, loaded, trust, schema, compilation)


def _prepare_compiled(
    path: Path,
    out: Path,
    loaded: LoadedModel,
    trust: Trust,
    rows: Any,
    tolerance: float,
) -> Prepared:
    from scoring.example import with_example  # noqa: PLC0415 - late: see `prepare_with`

    compilation, compiled = _compile(loaded, rows, tolerance)
    schema = loaded.schema
    if compiled is not None:
        schema = compiled.schema
        _write(out / COMPILED_PATH, compiled.model)
    drawn = _draw(loaded)
    schema = with_example(
        schema, [drawn] if rows is None else [rows, drawn], loaded.predictor.predict
    )
    return _prepared(path, loaded, trust, schema, compilation)


def _compile(
    loaded: LoadedModel, rows: Any, tolerance: float
) -> tuple[Compilation, Compiled | None]:
    if loaded.detection.runtime == "circuit":
        from scoring.compilation import circuits  # noqa: PLC0415 - late: for circuits only

        return circuits.compile_model(loaded, sample=rows, tolerance=tolerance)
    from scoring.compilation.compile import compile_model  # noqa: PLC0415 - late: not for ONNX

    return compile_model(loaded, sample=rows, tolerance=tolerance)


def _draw(loaded: LoadedModel) -> dict[str, Any]:
    if loaded.detection.runtime == "circuit":
        from scoring.compilation.circuits import draw_rows  # noqa: PLC0415 - late: as above

        return {loaded.schema.inputs[0].name: draw_rows(loaded.model, _EXAMPLE_ROWS, seed=1)}
    from scoring.compilation.draw import draw_inputs  # noqa: PLC0415 - late: not for ONNX

    return draw_inputs(loaded, _EXAMPLE_ROWS, seed=1)


def _write(path: Path, content: bytes) -> None:
    from scoring.durable import storage_errors  # noqa: PLC0415 - late: most calls write nothing

    with storage_errors("the compiled model"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _prepared(
    path: Path,
    loaded: LoadedModel,
    trust: Trust,
    schema: ModelSchema,
    compilation: Compilation | None,
) -> Prepared:
    detection = loaded.detection
    compiled = compilation is not None and compilation.served
    onnx = compiled or detection.runtime == "onnx"
    return Prepared(
        format=detection.format,
        runtime="onnx" if onnx else detection.runtime,
        serves="compiled" if compiled else "original",
        primary=_primary(path, detection),
        schema=schema,
        made_with=dict(detection.made_with),
        requirements=() if onnx else loaded.requirements,
        native_requirements=loaded.requirements,
        pickle_trusted=detection.runs_code and trust.pickle,
        trusted_types=trust.types if detection.format == "sklearn-skops" else (),
        compilation=compilation,
    )


def _primary(path: Path, detection: Detection) -> str:
    """The model file relative to the folder that was given, or the file's own name."""
    if path.is_dir():
        return detection.path.relative_to(path).as_posix() if detection.path != path else "."
    return path.name


def prepare_isolated(
    path: Path, out: Path, *, trust: Trust, sample: Any = None, tolerance: float = 1e-5
) -> Prepared:
    """Does what `prepare` does in a child process; arguments, result and errors are the same.

    ONNX files are prepared in this process: that imports onnxruntime only, and takes no time.

    Raises:
        CorruptModelError: The child died while it loaded the model, beside what `prepare` raises.
    """
    from scoring import isolation  # noqa: PLC0415 - late: it imports this module

    if detect(Path(path)).format == "onnx":
        return prepare(path, out, trust=trust, sample=sample, tolerance=tolerance)
    return isolation.run(path, out, trust=trust, sample=sample, tolerance=tolerance)


if __name__ == "__main__":
    from scoring import isolation

    isolation.child(Path(sys.argv[1]))
