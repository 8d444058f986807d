"""scikit-learn estimators in their own library: for models that have no compiled form.

Also reads their files (joblib, pickle, skops), since that is the same in a package as outside it.
"""

from __future__ import annotations

import pickle
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import (
    CorruptModelError,
    InputError,
    MissingDependencyError,
    ModelFileError,
    ModelNotFoundError,
    ScoringFailedError,
    UnsupportedModelError,
    UntrustedModelError,
)
from scoring.runtimes import boosters
from scoring.runtimes.arrays import is_none
from scoring.runtimes.base import NUMPY_DTYPES, Arrays
from scoring.runtimes.dependencies import missing, quiet, require
from scoring.runtimes.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from scoring.bundle import Bundle
    from scoring.schema import ModelSchema, TensorSpec

_WHAT = "A scikit-learn model"
_METHODS = {
    "predictions": "predict",
    "probabilities": "predict_proba",
    "transformed": "transform",
}
"""Output name to the estimator's method that answers it."""
_MAX_PARTS = 10_000


class SklearnPredictor:
    """Answers with a fitted estimator; prediction reads the estimator only."""

    thread_safe = True

    def __init__(self, model: Any, schema: ModelSchema) -> None:
        self.schema = schema
        self.model = model
        self._assemble = assembler(model, schema)
        self._calls = [(spec, getattr(model, _METHODS[spec.name])) for spec in schema.outputs]

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        """See `scoring.runtimes.base.Predictor`."""
        try:
            return self._answer(inputs)
        except InputError:
            raise
        except ValueError as error:
            # What scikit-learn raises for values that it cannot take; the types have been checked.
            text = _text(error).partition("\n")[0]
            raise refusal(text, inputs, self.schema, self._answer) from error
        except Exception as error:
            text = " ".join(_text(error).split())
            raise ScoringFailedError(f"The model failed: {type(error).__name__}: {text}") from error

    def _answer(self, inputs: Arrays) -> dict[str, Any]:
        data = self._assemble(inputs)
        return {spec.name: as_output(call(data), spec) for spec, call in self._calls}


def _text(error: Exception) -> str:
    return str(error).strip()[:400]


def as_output(values: Any, spec: TensorSpec) -> NDArray[Any]:
    """An estimator's answer as an array of the schema's type; sparse and pandas answers too."""
    if hasattr(values, "toarray"):
        values = values.toarray()
    return np.asarray(values).astype(NUMPY_DTYPES[spec.dtype], copy=False)


def assembler(model: Any, schema: ModelSchema) -> Callable[[Arrays], Any]:
    """A function that makes what the estimator takes from the arrays of a request.

    An estimator that was fitted on a DataFrame gets one, with its names; else it gets an array.
    """
    framed = hasattr(model, "feature_names_in_") or not hasattr(model, "n_features_in_")
    if schema.layout == "table":
        return _frames(model, schema) if framed else _columns(schema)
    name = schema.inputs[0].name
    features = list(getattr(model, "feature_names_in_", ()))
    if features and len(schema.inputs[0].shape) == 2:  # noqa: PLR2004 - a matrix
        pandas = require("pandas", _WHAT)
        return lambda inputs: pandas.DataFrame(inputs[name], columns=features, copy=False)
    return lambda inputs: inputs[name]


def _columns(schema: ModelSchema) -> Callable[[Arrays], Any]:
    """One object array from columns of several types, as the estimator was fitted on one."""
    names = [spec.name for spec in schema.inputs]
    return lambda inputs: np.hstack([inputs[name].astype(object) for name in names])


def _frames(model: Any, schema: ModelSchema) -> Callable[[Arrays], Any]:
    pandas = require("pandas", _WHAT)
    known = booster_categories(model)
    if known:
        return lambda inputs: boosters.frame(
            inputs, schema, known, strict=_is_from(model, "xgboost")
        )
    to_text = _keep if _fitted_on_none(model) else _with_nan
    names = [(spec.name, spec.dtype == "string") for spec in schema.inputs]

    def frame(inputs: Arrays) -> Any:
        return pandas.DataFrame(
            {name: to_text(inputs[name]) if text else inputs[name][:, 0] for name, text in names}
        )

    return frame


def booster_categories(model: Any) -> dict[str, list[Any]]:
    """Column name to categories, for XGBoost's and LightGBM's estimators fitted on some."""
    if _is_from(model, "xgboost") and hasattr(model, "get_booster"):
        from scoring.runtimes.xgboost import categories  # noqa: PLC0415 - another framework

        return dict(categories(model.get_booster()))
    if _is_from(model, "lightgbm") and hasattr(model, "booster_"):
        from scoring.runtimes import lightgbm  # noqa: PLC0415 - another framework

        return lightgbm.categories(model.booster_)
    return {}


def _is_from(model: Any, module: str) -> bool:
    return type(model).__module__.split(".", maxsplit=1)[0] == module


def _keep(column: NDArray[Any]) -> NDArray[Any]:
    return column[:, 0]


def _with_nan(column: NDArray[Any]) -> NDArray[Any]:
    """A column of strings with NaN for None, as pandas has it; encoders tell the two apart."""
    values = column[:, 0]
    absent = is_none(values)
    return np.where(absent, np.nan, values) if absent.any() else values


def _fitted_on_none(model: Any) -> bool:
    found = [
        category
        for part in parts(model)
        for categories in _categories(part)
        if isinstance(categories, np.ndarray) and categories.dtype.kind == "O"
        for category in categories
        if not isinstance(category, str)
    ]
    return any(value is None for value in found) and not any(value != value for value in found)  # noqa: PLR0124 - NaN


def _categories(part: Any) -> Any:
    found = getattr(part, "categories_", ())
    return found if isinstance(found, list | tuple) else ()


def parts(model: Any) -> Iterator[Any]:
    """An estimator and all fitted objects inside it; of a list of many alike, the first ones."""
    seen: set[int] = set()
    todo = [model]
    while todo and len(seen) < _MAX_PARTS:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, list | tuple):
            todo.extend(part[:200])
        elif isinstance(part, dict):
            todo.extend(part.values())
        elif hasattr(part, "__dict__") and not isinstance(part, type) and not callable(part):
            yield part
            todo.extend(vars(part).values())


def read(path: Path, model_format: str, types: tuple[str, ...] = ()) -> Any:
    """Reads an estimator from a file. For a pickle, the caller has made sure that it is trusted.

    Args:
        path: The file.
        model_format: `sklearn-joblib`, `sklearn-pickle` or `sklearn-skops`.
        types: What a skops file may hold beyond the types that skops itself trusts.

    Raises:
        UntrustedModelError: A skops file holds types that are not trusted.
        MissingDependencyError: It needs a package, or another version of scikit-learn.
        UnsupportedModelError: It needs code that is not in the file.
        CorruptModelError: It is cut off or damaged.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is not there.", where=str(path))
    require("sklearn", _WHAT)
    if model_format == "sklearn-skops":
        _require_trusted(path, types)
    with quiet(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = _read(path, model_format, types)
        except (Exception, SystemExit) as error:
            raise _read_error(path, error) from error
    _require_same_version(path, caught)
    _use_one_thread(model)
    return model


def _read(path: Path, model_format: str, types: tuple[str, ...]) -> Any:
    if model_format == "sklearn-skops":
        return require("skops.io", "A skops file").load(path, trusted=list(types))
    if model_format == "sklearn-joblib":
        return require("joblib", "A joblib file").load(path)
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - the operator trusts this file


def _require_trusted(path: Path, types: tuple[str, ...]) -> None:
    io = require("skops.io", "A skops file")
    try:
        with quiet():
            unknown = sorted(set(io.get_untrusted_types(file=path)) - set(types))
    except Exception as error:
        raise _read_error(path, error) from error
    if unknown:
        raise UntrustedModelError(
            f"{path} holds types that are not trusted: {', '.join(unknown)}.",
            hint="If you trust them, add "
            + " ".join(f"--trust-type {name}" for name in unknown[:8])
            + (" …" if len(unknown) > 8 else ""),  # noqa: PLR2004
            where=str(path),
        )


def _read_error(path: Path, error: BaseException) -> ModelFileError:
    text = " ".join(str(error).split())[:300]
    if isinstance(error, ModelFileError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing_module(path, error.name)
    if "lz4 is not installed" in text.lower():
        return missing("lz4", f"{path}, a joblib file under lz4,")
    if isinstance(error, AttributeError | ImportError):
        return _missing_code(path, text)
    if isinstance(error, SystemExit):
        return UnsupportedModelError(f"{path} ended the program when loaded.", where=str(path))
    return CorruptModelError(
        f"{path} cannot be loaded, it is cut off or damaged: {type(error).__name__}: {text}.",
        hint="Save the model again.",
        where=str(path),
    )


def _missing_module(path: Path, name: str) -> MissingDependencyError:
    top = name.split(".", maxsplit=1)[0]
    if top == "sklearn":
        return MissingDependencyError(
            f"{path} was made with a scikit-learn that has {name}; the one installed has not.",
            hint="Install the version that it was made with, or save the model again.",
            where="scikit-learn",
        )
    error = missing(top, str(path))
    error.hint += (
        f"; if {top} is your own code, put it in a package of the environment or beside the script."
    )
    return error


def _missing_code(path: Path, text: str) -> ModelFileError:
    where = re.search(r"module '(\w+)[.']", text) or re.search(r"from '(\w+)[.']", text)
    if where and where[1] in ("sklearn", "numpy", "scipy", "xgboost", "lightgbm"):
        package = {"sklearn": "scikit-learn"}.get(where[1], where[1])
        return MissingDependencyError(
            f"{path} was made with another version of {package}: {text}.",
            hint=f"Install the {package} that it was made with, or save the model again.",
            where=package,
        )
    return UnsupportedModelError(
        f"{path} refers to code that is not in it: {text}.",
        hint="Move functions and classes of the training script into a module, import them from it "
        "and save the model again; a pickle keeps only their names.",
        where=str(path),
    )


def _require_same_version(path: Path, caught: list[warnings.WarningMessage]) -> None:
    for entry in caught:
        made = getattr(entry.message, "original_sklearn_version", "")
        if made:
            require_version(path, str(made))


def require_version(path: Path, made_with: str) -> None:
    """Refuses an estimator that another minor version of scikit-learn has pickled.

    Such an estimator may load and still answer wrongly; patch releases stay compatible.

    Raises:
        MissingDependencyError: The installed version is another one.
    """
    installed = str(require("sklearn", _WHAT).__version__)
    if _minor(made_with) != _minor(installed):
        raise MissingDependencyError(
            f"{path} was made with scikit-learn {made_with}; {installed} is installed.",
            hint=f"Use scikit-learn=={_minor(made_with)}.* in the environment, or convert "
            "the model to ONNX with the version that made it.",
            where=f"scikit-learn=={made_with}",
        )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _use_one_thread(model: Any) -> None:
    """Sets `n_jobs` back: a thread pool costs a small request more than the whole prediction.

    It also makes forests add up their trees in one order, so that equal input has equal output.
    """
    for part in parts(model):
        if vars(part).get("n_jobs") not in (None, 1):
            part.n_jobs = 1


def load(path: Path, bundle: Bundle) -> SklearnPredictor:
    """Loads an estimator of a package.

    Raises:
        UntrustedModelError: A pickle, or a type in a skops file, that the package does not trust.
        ModelFileError: The file is missing or damaged, or needs another package or version.
    """
    if bundle.format != "sklearn-skops" and not bundle.pickle_trusted:
        raise UntrustedModelError(
            f"{path} is a pickle, and this package does not trust it.",
            hint="If you trust it, register the model again with --trust-pickle.",
            where=str(path),
        )
    if bundle.schema is None:
        raise CorruptModelError(f"The package of {path} has no schema.", where=str(path))
    return SklearnPredictor(read(path, bundle.format, bundle.trusted_types), bundle.schema)
