"""Compiles original models to ONNX, and accepts the result only where it agrees with them.

`compile.compile_model` is the way in. The frameworks are imported by the modules that need them,
so that importing this package costs nothing.
"""

from __future__ import annotations

import msgspec


class Compilation(msgspec.Struct, frozen=True):
    """How a compilation ended, as `model show` tells it.

    Attributes:
        served: Whether the compiled form answers in place of the original.
        reason: One sentence: why it serves, or why the original does.
        dtype: What the numeric inputs of the compiled form are: `float32` or `float64`; empty where
            nothing was compiled.
        rows_compared: Rows that both forms answered.
        label_mismatches: Labels among them that differ.
        max_difference: The largest difference of a probability or value, relative for values whose
            size is over one.
        tolerance: The largest difference that was accepted.
        opset: Of the ONNX operators; 0 where nothing was compiled.
        converter: What compiled it: "skl2onnx 1.20.0"; empty where nothing could.
    """

    served: bool
    reason: str
    dtype: str = ""
    rows_compared: int = 0
    label_mismatches: int = 0
    max_difference: float = 0.0
    tolerance: float = 1e-5
    opset: int = 0
    converter: str = ""


__all__ = ["Compilation"]
