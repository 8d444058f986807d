"""Compares the answers of an original model with those of its compiled form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from scoring.schema import ModelSchema, TensorSpec


class Agreement(msgspec.Struct, frozen=True):
    """How far two forms of a model agree.

    Attributes:
        rows: Rows compared.
        labels: Labels compared.
        label_mismatches: Labels that differ.
        max_difference: Of probabilities and values; infinite where shapes or NaN differ.
    """

    rows: int = 0
    labels: int = 0
    label_mismatches: int = 0
    max_difference: float = 0.0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            rows=self.rows + other.rows,
            labels=self.labels + other.labels,
            label_mismatches=self.label_mismatches + other.label_mismatches,
            max_difference=max(self.max_difference, other.max_difference),
        )

    def within(self, tolerance: float) -> bool:
        """Whether all labels are equal and no value differs by more than the tolerance."""
        return self.label_mismatches == 0 and self.max_difference <= tolerance


def is_label(spec: TensorSpec, schema: ModelSchema) -> bool:
    """Whether an output is a label, which has to be equal, rather than a number."""
    if spec.dtype in ("string", "bool"):
        return True
    first = spec.name == schema.outputs[0].name
    return first and (bool(schema.classes) or "int" in spec.dtype)


def compare(
    schema: ModelSchema,
    reference: Mapping[str, Any],
    compiled: Mapping[str, Any],
) -> Agreement:
    """Compares two answers to the same rows, output by output.

    Args:
        schema: The original model's.
        reference: Its answer.
        compiled: The compiled form's answer, with outputs of the same names.
    """
    rows = len(next(iter(reference.values())))
    total = Agreement(rows=rows)
    for spec in schema.outputs:
        one, other = np.asarray(reference[spec.name]), np.asarray(compiled[spec.name])
        if one.shape != other.shape:
            total += Agreement(max_difference=float("inf"))
        elif is_label(spec, schema):
            wrong = int(np.count_nonzero(one != other))
            total += Agreement(labels=one.size, label_mismatches=wrong)
        else:
            total += Agreement(max_difference=difference(one, other))
    return total


def difference(reference: NDArray[Any], compiled: NDArray[Any]) -> float:
    """The largest difference, relative where the reference is over one in size.

    NaN agrees with NaN, and an infinity with itself, only.
    """
    one = reference.astype(np.float64).ravel()
    other = compiled.astype(np.float64).ravel()
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    one, other = one[~same], other[~same]
    if not one.size:
        return 0.0
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    return float(np.max(np.abs(one - other) / np.maximum(1.0, np.abs(one))))
