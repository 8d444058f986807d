"""Compiles a loaded model to ONNX, and says whether the compiled form may serve in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from scoring.compilation import Compilation
from scoring.compilation.compare import Agreement, compare
from scoring.compilation.draw import draw_inputs
from scoring.compilation.quiet import ConversionError, convert_quietly, describe, silenced
from scoring.compilation.ties import count_ties
from scoring.compilation.unknowns import disagreement
from scoring.compilation.walk import estimators
from scoring.errors import ScoringError
from scoring.formats.base import LoadedModel
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.schema import ModelSchema

if TYPE_CHECKING:
    from scoring.runtimes.onnx import OnnxPredictor

Inputs = Mapping[str, NDArray[Any]]
FloatName = Literal["float32", "float64"]

ROWS = 1024
_NEIGHBOUR_ROWS = 4096
_MAX_DISTANCES = 1e8
_CHUNK = 512
_FLOATS: tuple[FloatName, ...] = ("float32", "float64")
_ALONE = 8
_SILENT = 4


class Compiled(msgspec.Struct, frozen=True):
    """A compiled form.

    Attributes:
        model: The ONNX file's bytes.
        schema: What it takes and answers.
        dtype: Of its inputs that are floats.
        opset: Of its operators.
        converter: What made it.
    """

    model: bytes
    schema: ModelSchema
    dtype: FloatName
    opset: int
    converter: str


class _Batch(msgspec.Struct, frozen=True):
    """Rows, and what the original answers to them."""

    inputs: Inputs
    answers: Mapping[str, Any]


def compile_model(
    loaded: LoadedModel, *, sample: Inputs | None = None, tolerance: float = 1e-5, seed: int = 0
) -> tuple[Compilation, Compiled | None]:
    """Compiles a model and compares the result with the original.

    The graph takes float32 where that agrees, else float64. The same model gives the same bytes,
    in any process.

    Args:
        loaded: The original.
        sample: Rows to compare on, in the form that `loaded.schema` describes, beside the rows
            that are drawn from the range that the model was trained on.
        tolerance: The largest difference of a probability, or of a value (relative to its size
            where that is over one).
        seed: Of the drawn rows.

    Returns:
        How it ended, and the compiled form where that serves.
    """
    batches = _batches(loaded, sample, seed)
    tied = _ties(loaded, batches)
    if tied:
        return Compilation(served=False, reason=tied, tolerance=tolerance), None
    failures: list[Compilation] = []
    for floats in _FLOATS:
        try:
            compiled = convert_quietly(lambda floats=floats: _convert(loaded, floats))  # type: ignore[misc]
            outcome = _judge(loaded, compiled, batches, tolerance)
        except ConversionError as error:
            outcome = Compilation(served=False, reason=str(error), tolerance=tolerance)
        else:
            if outcome.served:
                return outcome, compiled
        failures.append(outcome)
    return min(failures, key=_badness), None


def _ties(loaded: LoadedModel, batches: list[_Batch]) -> str:
    """Why a model of neighbours cannot be compared; empty for all others."""
    try:
        with silenced():
            counts = [count_ties(loaded.model, batch.inputs) for batch in batches]
    except Exception:  # noqa: BLE001 - what cannot be looked at is left to the comparison
        return ""
    ties, rows = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    if not ties:
        return ""
    return (
        f"In {ties} of {rows} rows neighbours are equally far, "
        "and which of them count is chance: the original decides."
    )


def _badness(outcome: Compilation) -> tuple[bool, int, float]:
    """Orders failures: the one that came closest says most about why the original serves."""
    return outcome.rows_compared == 0, outcome.label_mismatches, outcome.max_difference


def _convert(loaded: LoadedModel, floats: FloatName) -> Compiled:
    from scoring.compilation import boosters, graph  # noqa: PLC0415 - late: they import onnx

    if loaded.detection.runtime == "sklearn":
        from scoring.compilation import sklearn  # noqa: PLC0415 - late: it imports scikit-learn

        model = sklearn.convert(loaded.model, loaded.schema, floats)
        converter = sklearn.CONVERTER
    else:
        model, converter = boosters.convert(loaded, floats)
    opset = graph.opset_of(model)
    content, schema = graph.finish(model, loaded.schema)
    return Compiled(content, schema, floats, opset, converter)


def _batches(loaded: LoadedModel, sample: Inputs | None, seed: int) -> list[_Batch]:
    """The rows to compare on: the user's, drawn ones, and one alone."""
    with silenced():
        drawn = draw_inputs(loaded, _rows_to_draw(loaded.model), seed, sample)
        chunks = [_answerable(loaded, chunk) for chunk in _chunks(drawn)]
        batches = [batch for batch in chunks if batch is not None]
        if batches:
            batches.append(_one(loaded, batches[0]))
        if sample is not None:
            batches.append(_Batch(sample, loaded.predictor.predict(sample)))
    return batches


def _rows_to_draw(model: Any) -> int:
    """More for models of neighbours: rows with two of them equally far are rare, but do come."""
    kept = [getattr(estimator, "_fit_X", None) for estimator in estimators(model)]
    sizes = [array.shape[0] for array in kept if array is not None and hasattr(array, "shape")]
    if not sizes:
        return ROWS
    return int(np.clip(_MAX_DISTANCES / max(sizes), ROWS, _NEIGHBOUR_ROWS))


def _chunks(inputs: Inputs) -> Iterator[Inputs]:
    """Parts of bounded size: some models hold a number for each pair of rows."""
    rows = len(next(iter(inputs.values())))
    for start in range(0, rows, _CHUNK):
        yield {name: array[start : start + _CHUNK] for name, array in inputs.items()}


def _one(loaded: LoadedModel, batch: _Batch) -> _Batch:
    """A single row: what most requests hold, and where converters' shapes go wrong."""
    row = _rows(batch.inputs, [0])
    return _Batch(row, loaded.predictor.predict(row))


def _rows(inputs: Inputs, chosen: list[int]) -> dict[str, NDArray[Any]]:
    return {name: array[chosen] for name, array in inputs.items()}


def _answerable(loaded: LoadedModel, inputs: Inputs) -> _Batch | None:
    """The drawn rows that the original answers: it may refuse some, such as a NaN in one column."""
    try:
        return _Batch(inputs, loaded.predictor.predict(inputs))
    except Exception:  # noqa: BLE001 - a model may raise anything
        kept = _answered_alone(loaded, inputs)
    if not kept:
        return None
    rows = _rows(inputs, kept)
    try:
        return _Batch(rows, loaded.predictor.predict(rows))
    except Exception:  # noqa: BLE001 - as above
        return None


def _answered_alone(loaded: LoadedModel, inputs: Inputs) -> list[int]:
    kept: list[int] = []
    for row in range(len(next(iter(inputs.values())))):
        try:
            loaded.predictor.predict(_rows(inputs, [row]))
        except Exception:  # noqa: BLE001 - as above; the row is left out
            if row >= _ALONE and not kept:
                break
            continue
        kept.append(row)
    return kept


def _judge(
    loaded: LoadedModel, compiled: Compiled, batches: list[_Batch], tolerance: float
) -> Compilation:
    """Compares on all batches; the outcome says in a sentence what was found."""
    agreement = Agreement()
    unlike = ""
    if batches:
        predictor = predictor_of(compiled)
        for batch in batches:
            answers = _answers(predictor, batch.inputs)
            agreement += compare(loaded.schema, batch.answers, answers)
        if agreement.within(tolerance):
            unlike = _unlike(loaded, predictor, batches[0], tolerance)
    served = bool(batches) and agreement.within(tolerance) and not unlike
    return Compilation(
        served=served,
        reason=unlike or _reason(agreement, tolerance),
        dtype=compiled.dtype,
        rows_compared=agreement.rows,
        label_mismatches=agreement.label_mismatches,
        max_difference=min(agreement.max_difference, float(np.finfo(np.float64).max)),
        tolerance=tolerance,
        opset=compiled.opset,
        converter=compiled.converter,
    )


def _unlike(loaded: LoadedModel, predictor: OnnxPredictor, batch: _Batch, tolerance: float) -> str:
    if loaded.detection.runtime != "sklearn":
        return ""
    row = _rows(batch.inputs, [0])
    with silenced():
        return disagreement(
            loaded.schema,
            row,
            loaded.predictor.predict,
            lambda inputs: predictor.predict(_feeds(predictor, inputs)),
            tolerance,
        )


def _reason(agreement: Agreement, tolerance: float) -> str:
    if not agreement.rows:
        return (
            "The original answered none of the rows drawn to compare with; "
            "register it with a sample of its inputs."
        )
    if agreement.label_mismatches:
        return (
            f"The compiled form disagreed in {agreement.label_mismatches} of "
            f"{agreement.labels} labels."
        )
    if not agreement.within(tolerance):
        return (
            f"The compiled form differed by up to {agreement.max_difference:.3g}, "
            f"more than the tolerance {tolerance:g}."
        )
    return (
        f"The compiled form agreed on {agreement.rows} rows "
        f"(largest difference {agreement.max_difference:.3g})."
    )


def predictor_of(compiled: Compiled) -> OnnxPredictor:
    """What will serve the compiled form; it is compared as it answers requests.

    Raises:
        ConversionError: onnxruntime does not take it.
    """
    from scoring.runtimes.onnx import OnnxPredictor  # noqa: PLC0415 - late: it imports onnxruntime
    from scoring.runtimes.ort import onnxruntime  # noqa: PLC0415 - likewise

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(compiled.model, options, providers=providers)
    except Exception as error:
        raise ConversionError(describe(error)) from error
    return OnnxPredictor(session, compiled.schema)


def _answers(predictor: OnnxPredictor, inputs: Inputs) -> dict[str, Any]:
    try:
        return predictor.predict(_feeds(predictor, inputs))
    except ScoringError as error:
        raise ConversionError(f"The compiled form fails: {error.message}") from error


def _feeds(predictor: OnnxPredictor, inputs: Inputs) -> dict[str, NDArray[Any]]:
    with np.errstate(all="ignore"):
        return {
            spec.name: inputs[spec.name].astype(NUMPY_DTYPES[spec.dtype])
            for spec in predictor.schema.inputs
        }
