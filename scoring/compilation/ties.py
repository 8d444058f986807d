"""Finds out whether a model's neighbours are often equally far, so that chance picks them.

scikit-learn and ONNX pick different ones. A wrong pick changes the answer so seldom that comparing
rows may miss it, but that there are such rows is seen at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RELATIVE = 1e-12


def count_ties(model: Any, inputs: Mapping[str, NDArray[Any]]) -> tuple[int, int]:
    """Counts the rows whose last neighbour is as far as the next one.

    Args:
        model: An estimator of neighbours, or a pipeline that ends in one; others have no ties.
        inputs: One matrix.

    Returns:
        The number of such rows, and of all rows that were looked at.
    """
    before, last = _split(model)
    if not all(hasattr(last, name) for name in ("kneighbors", "n_neighbors", "_fit_X")):
        return 0, 0
    rows = next(iter(inputs.values()))
    if len(inputs) > 1 or rows.ndim != 2 or last.n_samples_fit_ <= last.n_neighbors:  # noqa: PLR2004
        return 0, 0
    seen = rows if before is None else before.transform(rows)
    distances, _ = last.kneighbors(seen, last.n_neighbors + 1)
    nearest, next_one = distances[:, -2], distances[:, -1]
    return int(np.count_nonzero(next_one - nearest <= _RELATIVE * next_one)), len(rows)


def _split(model: Any) -> tuple[Any, Any]:
    if hasattr(model, "steps"):
        return (model[:-1] if len(model.steps) > 1 else None), model.steps[-1][1]
    return None, model
