"""LightGBM models in their own library, from the text files that LightGBM writes."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import CorruptModelError, ModelNotFoundError, ScoringFailedError
from scoring.runtimes import boosters
from scoring.runtimes.dependencies import quiet, require

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from scoring.bundle import Bundle
    from scoring.runtimes.base import Arrays
    from scoring.schema import ModelSchema

_WHAT = "A LightGBM model"
_SPLIT = 2
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf|nan)", re.IGNORECASE)
_PER_LEAF = {"leaf_value", "leaf_weight", "leaf_count"}
_PER_NODE = {
    *("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child"),
    *("internal_value", "internal_weight", "internal_count"),
}
_log = logging.getLogger(__name__)


class LightgbmPredictor:
    """Answers with a Booster; prediction is safe on several threads."""

    thread_safe = True

    def __init__(self, model: Any, schema: ModelSchema) -> None:
        self.schema = schema
        self.model = model
        self._task = task(model)
        self._categories = categories(model)

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        """See `scoring.runtimes.base.Predictor`."""
        try:
            return boosters.answer(self._task, self.raw(inputs))
        except ScoringFailedError:
            raise
        except Exception as error:
            raise ScoringFailedError(f"The model failed: {str(error)[:300]}") from error

    def raw(self, inputs: Arrays) -> NDArray[Any]:
        """The booster's own answer, before labels are made of it."""
        if self._categories:
            # LightGBM takes a category that it does not know as a missing one.
            data = boosters.frame(inputs, self.schema, self._categories, strict=False)
        else:
            data = inputs[boosters.MATRIX]
        return np.asarray(self.model.predict(data, num_threads=1))


def header(model_text: str) -> dict[str, str]:
    """The `key=value` lines before the first tree."""
    lines = re.split(r"\r?\n\r?\n|\r?\nTree=", model_text, maxsplit=1)[0].splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def task(model: Any) -> boosters.Task:
    """What the booster's answer means, by its objective."""
    objective = header(model.model_to_string(num_iteration=1)).get("objective", "").split(" ")[0]
    if objective == "binary":
        return "binary"
    return "multiclass" if objective in ("multiclass", "multiclassova") else "values"


def categories(model: Any) -> dict[str, list[Any]]:
    """Column name to its categories, for a model that was fitted on a DataFrame with categories."""
    stored = model.pandas_categorical
    if not stored:
        return {}
    infos = header(model.model_to_string(num_iteration=1)).get("feature_infos", "").split(" ")
    columns = [
        name
        for name, info in zip(model.feature_name(), infos, strict=False)
        if info != "none" and not info.startswith("[")
    ]
    if len(columns) != len(stored):
        raise CorruptModelError(
            f"The model has {len(stored)} columns of categories but used {len(columns)} of them.",
            hint="Fit it again without the columns that are constant.",
        )
    return dict(zip(columns, stored, strict=True))


def open_booster(path: Path) -> Any:
    """Reads a booster.

    Raises:
        ModelNotFoundError: There is no such file.
        CorruptModelError: The text is damaged. LightGBM itself would end the process on some
            damages, so the text is checked before it sees it.
    """
    lightgbm = require("lightgbm", _WHAT)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ModelNotFoundError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise _corrupt(path, "it is not UTF-8 text") from error
    lightgbm.register_logger(_log)
    try:
        _check(text)
        with quiet():
            return lightgbm.Booster(model_str=text)
    except Exception as error:
        raise _corrupt(path, " ".join(str(error).split())[:300]) from error


def _corrupt(path: Path, reason: str) -> CorruptModelError:
    return CorruptModelError(
        f"{path} is a damaged LightGBM model: {reason}.",
        hint="Save the model again: booster.save_model('model.txt').",
        where=str(path),
    )


def _check(text: str) -> None:
    """Checks that the trees are where the header says, and that each is whole.

    Raises:
        ValueError: A tree is missing, cut off or points outside itself.
    """
    data = text.encode()
    features = int(header(text)["max_feature_idx"]) + 1
    end = data.index(b"end of trees")
    starts = [match.start() for match in re.finditer(rb"^Tree=\d+\s*$", data[:end], re.MULTILINE)]
    sizes = [int(size) for size in header(text).get("tree_sizes", "").split()]
    stops = [*starts[1:], end]
    if sizes and [stop - start for start, stop in zip(starts, stops, strict=True)] != sizes:
        raise ValueError("the trees are not as long as the header says")
    for start, stop in zip(starts, stops, strict=True):
        _check_tree(data[start:stop].decode(), features)


def _check_tree(text: str, features: int) -> None:
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    leaves = int(fields["num_leaves"])
    for name, value in fields.items():
        count = leaves if name in _PER_LEAF else leaves - 1 if name in _PER_NODE else None
        _check_numbers(name, value, count)
    if leaves < _SPLIT:
        return
    if not all(0 <= int(column) < features for column in fields["split_feature"].split()):
        raise ValueError("a tree splits on a feature that is not there")
    for side in ("left_child", "right_child"):
        for node, child in enumerate(map(int, fields[side].split())):
            if not (node < child < leaves - 1 or -leaves <= child < 0):
                raise ValueError("a tree points to a node that is not there")


def _check_numbers(name: str, value: str, count: int | None) -> None:
    numbers = value.split()
    if not all(map(_NUMBER.fullmatch, numbers)) or not value.isascii():
        raise ValueError(f"{name} of a tree holds what is no number")
    if count is not None and numbers and len(numbers) != count:
        raise ValueError(f"{name} of a tree has {len(numbers)} numbers instead of {count}")


def load(path: Path, bundle: Bundle) -> LightgbmPredictor:
    """Loads a booster of a package.

    Raises:
        ModelFileError: The file is missing or broken, or LightGBM is not installed.
    """
    if bundle.schema is None:
        raise CorruptModelError(f"The package of {path} has no schema.", where=str(path))
    return LightgbmPredictor(open_booster(path), bundle.schema)
