"""Loads scikit-learn estimators, and finds out what they take and answer by asking them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from scoring.errors import ScoringError, UnsupportedModelError
from scoring.formats import columns as fitted
from scoring.formats import probing
from scoring.formats import sample as samples
from scoring.formats.base import Detection, LoadedModel, Trust
from scoring.runtimes.arrays import is_none
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.runtimes.dependencies import pinned, quiet
from scoring.runtimes.sklearn import (
    SklearnPredictor,
    assembler,
    parts,
    read,
    require_version,
)
from scoring.schema import DType, Layout, ModelSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MATRIX = "X"
_DROPPED: DType = "string"  # holds anything that a request may send
_OWN = {"sklearn", "numpy", "scipy", "joblib", "pandas", "builtins", "collections", "functools"}


@dataclass(slots=True)
class Inputs:
    """The inputs of an estimator and batches that it should be able to answer.

    Attributes:
        specs: Without `missing`, which is found by asking.
        layout: As in the schema.
        features: As in the schema.
        batches: To be tried in turn.
    """

    specs: tuple[TensorSpec, ...]
    layout: Layout = "tensors"
    features: tuple[str, ...] = ()
    batches: list[dict[str, NDArray[Any]]] = field(default_factory=list)


def load(detection: Detection, trust: Trust, sample: Any | None = None) -> LoadedModel:
    """Loads an estimator and describes it.

    Raises:
        UntrustedModelError: A skops file holds types that are not trusted.
        MissingDependencyError: A package is missing or has another version.
        UnsupportedModelError: It is no fitted estimator, or does not tell what it takes.
        CorruptModelError: The file is damaged.
    """
    made_with = detection.made_with.get("scikit-learn")
    if made_with:
        require_version(detection.path, made_with)
    model = read(detection.path, detection.format, trust.types)
    with quiet():
        _require_estimator(model, detection.path)
        schema = describe(model, sample, detection.path)
        predictor = SklearnPredictor(model, schema)
    return LoadedModel(
        detection=detection,
        model=model,
        schema=schema,
        predictor=predictor,
        requirements=requirements(model, detection, schema),
    )


def _require_estimator(model: Any, path: Path) -> None:
    if isinstance(model, type) or not any(_callable(model, m) for m in ("predict", "transform")):
        raise UnsupportedModelError(
            f"{path} holds {_describe(model)}, which cannot predict.",
            hint=_advice(model),
            where=str(path),
        )
    module = type(model).__module__
    if module in ("xgboost.core", "lightgbm.basic"):
        raise UnsupportedModelError(
            f"{path} holds a pickled {module.split('.')[0]} Booster.",
            hint="Save it in its own format: booster.save_model('model.ubj') for XGBoost, "
            "booster.save_model('model.txt') for LightGBM.",
            where=str(path),
        )
    if not hasattr(model, "n_features_in_") and not _is_fitted(model):
        raise _not_fitted(model, path)


def _callable(model: Any, method: str) -> bool:
    return callable(getattr(model, method, None))


def _describe(model: Any) -> str:
    if isinstance(model, type):
        return f"the class {model.__name__}, not an instance of it"
    if isinstance(model, dict):
        keys = ", ".join(repr(key) for key in list(model)[:5])
        return f"a dict with {len(model)} keys ({keys})" if model else "an empty dict"
    if isinstance(model, list | tuple):
        kinds = ", ".join(type(item).__name__ for item in model[:5])
        return f"a {type(model).__name__} of {len(model)} ({kinds})"
    name = type(model).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _advice(model: Any) -> str:
    if isinstance(model, dict | list | tuple):
        return "Save the estimator alone; join preprocessing and model in a scikit-learn Pipeline."
    if hasattr(model, "fit_predict"):
        return "This estimator labels only the data it was fitted on; use one that has predict."
    return "Save a fitted estimator with a predict method."


def _is_fitted(model: Any) -> bool:
    from sklearn.exceptions import NotFittedError  # noqa: PLC0415 - an optional framework
    from sklearn.utils.validation import check_is_fitted  # noqa: PLC0415

    try:
        check_is_fitted(model)
    except NotFittedError:
        return False
    except TypeError:  # no fit method: an object of the user's own
        return True
    return True


def _not_fitted(model: Any, path: Path) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{path} holds {_describe(model)} that has not been fitted.",
        hint="Call fit before saving it.",
        where=str(path),
    )


def describe(model: Any, sample: Any | None, path: Path) -> ModelSchema:
    """The schema of a fitted estimator.

    Raises:
        UnsupportedModelError: It does not tell what it takes, or fails on all that was tried.
    """
    inputs = _inputs(model, sample, path)
    inputs, outputs, batch = _answering(model, inputs, path)
    schema = ModelSchema(
        inputs=inputs.specs,
        outputs=outputs,
        layout=inputs.layout,
        features=inputs.features,
        classes=_classes(model),
    )
    return msgspec.structs.replace(schema, inputs=_with_missing(model, schema, batch))


def _inputs(model: Any, sample: Any | None, path: Path) -> Inputs:
    count = getattr(model, "n_features_in_", None)
    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    if fitted.takes_text(model) or (
        sample is not None and count is None and samples.is_texts(sample)
    ):
        return _text_inputs(sample)
    frame = None if sample is None else samples.as_frame(sample, names, count)
    if frame is not None and count is None:
        count = len(frame.columns)
        named = not all(isinstance(name, int) for name in frame.columns)
        names = names or ([str(name) for name in frame.columns] if named else [])
    if count is None:
        raise UnsupportedModelError(
            f"{path} holds {_describe(model)}, which does not tell how many features it takes.",
            hint="Give some rows of input: --sample FILE.",
            where=str(path),
        )
    return _table_or_matrix(model, int(count), names, frame)


def _text_inputs(sample: Any | None) -> Inputs:
    texts = (
        list(sample)[: samples.MAX_ROWS] if sample is not None and samples.is_texts(sample) else []
    )
    batch = np.array(texts or ["a text", "another"], dtype=object)
    spec = TensorSpec(MATRIX, "string", (None,))
    return Inputs((spec,), batches=[{MATRIX: batch}])


def _table_or_matrix(model: Any, count: int, names: list[str], frame: Any | None) -> Inputs:
    known = fitted.inspect(model, count, names)
    kinds = [_kind(known, frame, position) for position in range(count)]
    used = {kind for position, kind in enumerate(kinds) if position not in known.dropped}
    if not names and len(used) == 1:
        # One array held them all, so that what is dropped has the type of the others.
        kinds, known.dropped = [*used] * count, set()
    alike = len(set(kinds)) == 1
    framed = bool(names) and (known.selects or not hasattr(model, "n_features_in_"))
    if framed or not alike or (names and kinds[0] != "float64"):
        return _table(known, kinds, names, frame)
    dtype: DType = "float64" if kinds[0] == "bool" else kinds[0]
    table = _table(known, [dtype] * count, names, frame)
    batches = [{MATRIX: np.hstack(list(batch.values()))} for batch in table.batches]
    spec = TensorSpec(MATRIX, dtype, (None, count))
    return Inputs((spec,), features=tuple(names), batches=batches)


def _kind(known: fitted.Columns, frame: Any | None, position: int) -> DType:
    """A column's type: what the fitted parts say, refined by the sample.

    A number stays float64 though the sample holds integers, so that requests may carry NaN and
    fractions, unless the model knows the column as one of integer categories.
    """
    if position in known.dropped:
        return _DROPPED
    told = known.kinds.get(position)
    if told is not None and told != "float64":
        return told
    if frame is None:
        return told or "float64"
    given = samples.column_kind(frame, position)
    if given in ("string", "bool"):
        return given
    return told or "float64"


def _table(
    known: fitted.Columns, kinds: list[DType], names: list[str], frame: Any | None
) -> Inputs:
    columns = names or [f"x{position}" for position in range(len(kinds))]
    specs = tuple(
        TensorSpec(name, kind, (None, 1), unused=position in known.dropped)
        for position, (name, kind) in enumerate(zip(columns, kinds, strict=True))
    )
    batches = []
    if frame is not None:
        batches.append(
            {spec.name: samples.column_values(frame, i, spec.dtype) for i, spec in enumerate(specs)}
        )
    batches.extend(
        {s.name: _made_up(s, known, i, default) for i, s in enumerate(specs)} for default in (0, 1)
    )
    return Inputs(specs, layout="table", batches=batches)


def _made_up(spec: TensorSpec, known: fitted.Columns, position: int, default: int) -> NDArray[Any]:
    """Two rows of one column: a value that the estimator has seen, where it tells one."""
    value = known.values.get(position, "" if spec.dtype == "string" else default)
    return np.full((2, 1), value, dtype=NUMPY_DTYPES[spec.dtype])


def _answering(
    model: Any, inputs: Inputs, path: Path
) -> tuple[Inputs, tuple[TensorSpec, ...], dict[str, NDArray[Any]]]:
    """The inputs and outputs, with the first batch that the estimator answers.

    Raises:
        UnsupportedModelError: It answers none.
    """
    from sklearn.exceptions import NotFittedError  # noqa: PLC0415 - an optional framework

    failure: Exception | None = None
    for tried, batch in [(t, b) for t in (inputs, *_in_singles(inputs)) for b in t.batches]:
        draft = ModelSchema(tried.specs, (), layout=tried.layout)
        try:
            data = assembler(model, draft)(batch)
            return tried, tuple(_outputs(model, data)), batch
        except NotFittedError as error:
            raise _not_fitted(model, path) from error
        except Exception as error:  # noqa: BLE001 - an estimator may fail in any way
            failure = failure or error
    reason = " ".join(str(failure).split())[:300]
    raise UnsupportedModelError(
        f"{path} fails on the rows that were tried: {type(failure).__name__}: {reason}.",
        hint="Give some rows that it can answer: --sample FILE.",
        where=str(path),
    ) from failure


def _in_singles(inputs: Inputs) -> Iterator[Inputs]:
    """The same matrix in float32: some estimators that were fitted on that take nothing else."""
    if [spec.dtype for spec in inputs.specs] == ["float64"] and inputs.layout == "tensors":
        spec = msgspec.structs.replace(inputs.specs[0], dtype="float32")
        batches = [{spec.name: batch[spec.name].astype(np.float32)} for batch in inputs.batches]
        yield Inputs((spec,), inputs.layout, inputs.features, batches)


def _outputs(model: Any, data: Any) -> Iterator[TensorSpec]:
    if not _callable(model, "predict"):
        yield _output("transformed", model.transform(data))
        return
    yield _output("predictions", model.predict(data), number=_is_regressor(model))
    if _callable(model, "predict_proba"):
        probabilities = model.predict_proba(data)
        # Of several labels at once there is a list of matrices, which has no common shape.
        if not isinstance(probabilities, list):
            yield _output("probabilities", probabilities, number=True)


def _is_regressor(model: Any) -> bool:
    from sklearn.base import is_regressor  # noqa: PLC0415 - an optional framework

    try:
        return bool(is_regressor(model))
    except (AttributeError, TypeError):  # an object without scikit-learn's tags
        return False


def _output(name: str, values: Any, *, number: bool = False) -> TensorSpec:
    """The type and shape of an answer; integers become int64, labels that are objects strings."""
    shape: tuple[int | None, ...] = (None, *np.shape(values)[1:])
    array = values if hasattr(values, "dtype") else np.asarray(values)
    if array.dtype == np.float32:
        return TensorSpec(name, "float32", shape)
    kind = fitted.kind_of(np.asarray(array)) if not hasattr(array, "toarray") else "float64"
    return TensorSpec(name, "float64" if number and kind != "string" else kind, shape)


def _classes(model: Any) -> tuple[str | int | float | bool, ...]:
    """The labels; none for an estimator with several outputs, which has a list for each."""
    classes = getattr(model, "classes_", None)
    if not isinstance(classes, np.ndarray) or classes.ndim != 1:
        return ()
    return tuple(c if isinstance(c, str | int | float | bool) else str(c) for c in classes.tolist())


def _with_missing(
    model: Any, schema: ModelSchema, batch: dict[str, NDArray[Any]]
) -> tuple[TensorSpec, ...]:
    """The inputs with what is known of missing values: one hole is tried at a time."""
    predictor = SklearnPredictor(model, schema)
    complete = {name: _filled(array) for name, array in batch.items()}
    try:
        base = complete if _all_finite(predictor.predict(complete)) else batch
    except ScoringError:
        base = batch
    return tuple(
        msgspec.structs.replace(spec, missing=spec.unused or _takes_holes(predictor, spec, base))
        for spec in schema.inputs
    )


def _filled(array: NDArray[Any]) -> NDArray[Any]:
    """The batch with what is missing in it replaced."""
    if array.dtype == object:
        return np.where(is_none(array), "", array)
    return np.nan_to_num(array) if array.dtype.kind == "f" else array


def _takes_holes(
    predictor: SklearnPredictor, spec: TensorSpec, batch: dict[str, NDArray[Any]]
) -> bool:
    """Whether the estimator answers where one feature of this input is missing.

    Labels count as an answer here: scikit-learn raises an error where it cannot take NaN.
    """
    probe = probing.with_holes(spec, batch)
    try:
        return probe is not None and _all_finite(predictor.predict(probe))
    except ScoringError:
        return False


def _all_finite(answer: dict[str, Any]) -> bool:
    return all(a.dtype.kind != "f" or bool(np.isfinite(a).all()) for a in answer.values())


def requirements(model: Any, detection: Detection, schema: ModelSchema) -> tuple[str, ...]:
    """What serving the estimator natively needs, pinned to what is installed."""
    modules = ["numpy", "scikit-learn"]
    if detection.format == "sklearn-skops":
        modules.append("skops")
    elif detection.format == "sklearn-joblib":
        modules.append("joblib")
    if schema.layout == "table" or schema.features:
        modules.append("pandas")
    return pinned(*modules, *_foreign(model))


def _foreign(model: Any) -> list[str]:
    """Top-level modules of the parts that come from neither scikit-learn nor what it needs."""
    found = {type(part).__module__.split(".")[0] for part in parts(model)}
    for part in parts(model):
        found |= {
            str(getattr(value, "__module__", "")).split(".")[0]
            for value in vars(part).values()
            if callable(value)
        }
    return sorted(found - _OWN - {"", "__main__"})
