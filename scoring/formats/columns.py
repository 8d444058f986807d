"""What type each column of a fitted scikit-learn estimator has, told from its fitted parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.runtimes.sklearn import booster_categories

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scoring.schema import DType

# Fitted parts that hold a fitted estimator on the same columns.
_WRAPPED = ("best_estimator_", "estimator_", "regressor_", "_preprocessor", "estimator")
_WRAPPED_LISTS = ("estimators_", "calibrated_classifiers_")
_TEXT_METHOD = "build_analyzer"


@dataclass(slots=True)
class Columns:
    """What is known of the columns of an estimator.

    Attributes:
        names: Column names, where it was fitted on a DataFrame.
        kinds: Position to type; `float64` also where it is just some number.
        dropped: Positions that the estimator does not use.
        values: Position to a value that it has seen there.
        selects: Whether it picks columns (a ColumnTransformer).
    """

    names: Sequence[str] = ()
    kinds: dict[int, DType] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    values: dict[int, Any] = field(default_factory=dict)
    selects: bool = False

    def learn(self, position: int, kind: DType, value: Any = None) -> None:
        """Adds what one part says; the more special type wins (a string over a number)."""
        if self.kinds.get(position, "float64") == "float64":
            self.kinds[position] = kind
        if value is not None:
            self.values.setdefault(position, value)


def takes_text(model: Any) -> bool:
    """Whether an estimator takes a sequence of strings: its first part is a text vectorizer."""
    for part in _chain(model):
        if hasattr(part, _TEXT_METHOD):
            return True
        union = getattr(part, "transformer_list", None)
        if union:
            return any(takes_text(transformer) for _, transformer in union)
    return False


def _chain(model: Any) -> Iterable[Any]:
    """The estimator, what it wraps, the first step of that, and so on."""
    for _ in range(16):
        yield model
        steps = getattr(model, "steps", None)
        inner = _first_step(steps) if steps else _wrapped(model)
        if inner is None:
            return
        model = inner


def _first_step(steps: Sequence[tuple[str, Any]]) -> Any | None:
    return next((step for _, step in steps if step is not None and step != "passthrough"), None)


def _wrapped(model: Any) -> Any | None:
    for name in _WRAPPED:
        inner = getattr(model, name, None)
        if hasattr(inner, "fit"):
            return inner
    for name in _WRAPPED_LISTS:
        inners = getattr(model, name, None)
        if isinstance(inners, list) and inners and not _is_matrix(inners):
            first = inners[0]
            return getattr(first, "estimator", first)
    return None


def _is_matrix(inners: Sequence[Any]) -> bool:
    return isinstance(inners[0], list | np.ndarray)


def inspect(model: Any, count: int, names: Sequence[str] = ()) -> Columns:
    """What the fitted parts of an estimator say of its `count` columns."""
    columns = Columns(names=names)
    _visit(model, list(range(count)), columns, 0)
    return columns


def _visit(part: Any, positions: list[int], columns: Columns, depth: int) -> bool:
    """Learns from one part about the columns at `positions`; whether it settled them."""
    if depth > 16:  # noqa: PLR2004 - a cycle, or a nesting that nobody writes
        return False
    if isinstance(part, str) or part is None:
        return _visit_word(part, positions, columns)
    if hasattr(part, "steps"):
        return _visit_steps(part, positions, columns, depth)
    if hasattr(part, "transformers_"):
        return _visit_columns(part, columns, depth)
    if hasattr(part, "transformer_list"):
        visited = [_visit(t, positions, columns, depth + 1) for _, t in part.transformer_list]
        return any(visited)
    if _learn(part, positions, columns):
        return True
    inner = _wrapped(part)
    return inner is not None and _visit(inner, positions, columns, depth + 1)


def _visit_word(word: str | None, positions: list[int], columns: Columns) -> bool:
    if word == "drop":
        columns.dropped.update(positions)
    return word == "drop"


def _visit_steps(part: Any, positions: list[int], columns: Columns, depth: int) -> bool:
    """The steps of a pipeline in order, as long as they see the same columns."""
    for _, step in part.steps:
        if getattr(step, "n_features_in_", len(positions)) != len(positions):
            return False
        if _visit(step, positions, columns, depth + 1):
            return True
        if isinstance(step, str) or step is None:
            continue
    return False


def _visit_columns(part: Any, columns: Columns, depth: int) -> bool:
    columns.selects = True
    used: set[int] = set()
    indices = getattr(part, "_transformer_to_input_indices", {})
    for name, transformer, chosen in part.transformers_:
        positions = [int(i) for i in indices.get(name, ())]
        if isinstance(chosen, str) and hasattr(transformer, _TEXT_METHOD):
            columns.learn(positions[0], "string", "text")
        _visit(transformer, positions, columns, depth + 1)
        if not (isinstance(transformer, str) and transformer == "drop"):
            used.update(positions)
    columns.dropped -= used
    return True


def _learn(part: Any, positions: list[int], columns: Columns) -> bool:
    if _learn_booster(part, positions, columns):
        return True
    if hasattr(part, _TEXT_METHOD):
        for position in positions:
            columns.learn(position, "string", "text")
        return True
    categories = getattr(part, "categories_", None)
    if isinstance(categories, list | tuple) and len(categories) == len(positions):
        for position, values in zip(positions, categories, strict=True):
            columns.learn(position, kind_of(values), _first_present(values))
        return True
    statistics = getattr(part, "statistics_", None)
    if statistics is not None and len(statistics) == len(positions):
        for position, value in zip(positions, statistics, strict=True):
            filler = getattr(part, "strategy", "") == "constant"
            kind = kind_of([value])
            columns.learn(
                position,
                "string" if kind == "string" else "float64",
                None if filler else _first_present([value]),
            )
        # Missing numbers are NaN, so they settle as float; the categories of strings come after.
        return not any(columns.kinds[p] == "string" for p in positions)
    return _learn_center(part, positions, columns)


def _learn_booster(part: Any, positions: list[int], columns: Columns) -> bool:
    """Learns which columns are categories to XGBoost's and LightGBM's own estimators."""
    known = booster_categories(part)
    names = list(getattr(part, "feature_names_in_", ()))
    if not known or len(names) != len(positions):
        return False
    for position, name in zip(positions, names, strict=True):
        if name in known:
            columns.learn(position, "string", known[name][0])
    return True


def _learn_center(part: Any, positions: list[int], columns: Columns) -> bool:
    for name in ("mean_", "center_", "data_min_"):
        center = getattr(part, name, None)
        if isinstance(center, np.ndarray) and center.shape == (len(positions),):
            for position, value in zip(positions, center.tolist(), strict=True):
                columns.learn(position, "float64", value)
            return True
    return False


def _first_present(values: Iterable[Any]) -> Any | None:
    return next((v for v in values if v is not None and v == v), None)  # noqa: PLR0124 - NaN


def kind_of(values: Any) -> DType:
    """The type of some values: what all that are present have in common."""
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return "int64"
    if array.dtype.kind == "b":
        return "bool"
    if array.dtype.kind == "f":
        return "float64"
    present = [v for v in array.ravel().tolist() if v is not None and v == v]  # noqa: PLR0124
    if present and all(isinstance(v, bool) for v in present):
        return "bool"
    if present and all(isinstance(v, int) for v in present):
        return "int64"
    if all(isinstance(v, int | float) for v in present):
        return "float64"
    return "string"
