"""Changes to estimators that leave their answers alone and that a converter needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier

from scoring.compilation.walk import estimators


@contextlib.contextmanager
def rewritten(model: Any) -> Iterator[None]:
    """Holds a model in the form that skl2onnx takes; it is as before at the end.

    - A column transformer names its columns by position: the names that the graph gives to its
      inputs while it is converted are not those of the data frame.
    - A voting classifier does not flatten what `transform` gives: `predict` never asks for it, but
      skl2onnx refuses to convert one that does.
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
    return {}


def _by_position(transformer: ColumnTransformer) -> list[tuple[str, Any, list[int]]]:
    positions = transformer._transformer_to_input_indices  # noqa: SLF001 - no public form of it
    return [
        (name, inner, [int(index) for index in positions[name]])
        for name, inner, _ in transformer.transformers_
    ]
