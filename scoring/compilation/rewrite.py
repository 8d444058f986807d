"""Changes to estimators that leave their answers alone and that a converter needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.impute import SimpleImputer

from scoring.compilation.walk import estimators
from scoring.runtimes.base import MISSING_STRING


@contextlib.contextmanager
def rewritten(model: Any) -> Iterator[None]:
    """Holds a model in the form that skl2onnx takes; it is as before at the end.

    - A column transformer names its columns by position: the names that the graph gives to its
      inputs while it is converted are not those of the data frame.
    - A voting classifier does not flatten what `transform` gives: `predict` never asks for it, but
      skl2onnx refuses to convert one that does.
    - A missing string is `MISSING_STRING` to imputers and encoders, as ONNX has no null.
    """
    changed: list[tuple[Any, str, Any]] = []
    try:
        for estimator in estimators(model):
            for name, value in _changes(estimator).items():
                changed.append((estimator, name, vars(estimator)[name]))
                setattr(estimator, name, value)
        yield
    finally:
        for estimator, name, value in changed:
            setattr(estimator, name, value)


def _changes(estimator: Any) -> dict[str, Any]:
    if isinstance(estimator, ColumnTransformer) and hasattr(estimator, "transformers_"):
        return {"transformers_": _by_position(estimator)}
    if isinstance(estimator, VotingClassifier):
        return {"flatten_transform": False}
    if isinstance(estimator, SimpleImputer) and _holds_strings(
        getattr(estimator, "statistics_", None)
    ):
        return {"missing_values": MISSING_STRING}
    if isinstance(getattr(estimator, "categories_", None), list):
        return {"categories_": [_without_null(known) for known in estimator.categories_]}
    return {}


def _holds_strings(values: Any) -> bool:
    return getattr(values, "dtype", "") == "object" and any(
        isinstance(value, str) for value in values
    )


def _without_null(known: Any) -> Any:
    """Categories of strings with `MISSING_STRING` in the place of None and NaN."""
    if not _holds_strings(known):
        return known
    return np.array(
        [value if isinstance(value, str) else MISSING_STRING for value in known], dtype=object
    )


def _by_position(transformer: ColumnTransformer) -> list[tuple[str, Any, list[int]]]:
    positions = transformer._transformer_to_input_indices  # noqa: SLF001 - no public form of it
    return [
        (name, inner, [int(index) for index in positions[name]])
        for name, inner, _ in transformer.transformers_
    ]
