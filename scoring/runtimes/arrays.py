"""Small facts about arrays that several runtimes need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def is_none(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Which elements of an object array are None."""
    return np.array([value is None for value in array.flat], dtype=bool).reshape(array.shape)
