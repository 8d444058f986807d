"""Words for what a body holds, in errors. Without numpy, for those who have none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoring.schema import TensorSpec

_KINDS = {list: "a list", dict: "an object", str: "a string", bool: "a boolean", type(None): "null"}


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    return _KINDS.get(type(value), "a number")


def shape_text(spec: TensorSpec) -> str:
    """A shape for a sentence: `(any, 4)`."""
    sizes = ", ".join("any" if size is None else str(size) for size in spec.shape)
    return f"({sizes},)" if len(spec.shape) == 1 else f"({sizes})"
