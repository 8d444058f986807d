"""The names under which answers carry what a model has put out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scoring.schema import ModelSchema


def answer_keys(schema: ModelSchema) -> list[tuple[str, str]]:
    """The keys of a `predictions` answer: the first is fixed, the others are the outputs' names."""
    first, *others = [spec.name for spec in schema.outputs]
    renamed = [(f"{name}_output" if name == "predictions" else name, name) for name in others]
    return [("predictions", first), *renamed]
