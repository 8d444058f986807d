"""Compiles the native boosters of XGBoost and LightGBM with onnxmltools."""

from __future__ import annotations

from typing import Any

import onnxmltools

from scoring.compilation.graph import ML_OPSET, input_names
from scoring.formats.base import LoadedModel

CONVERTER = f"onnxmltools {onnxmltools.__version__}"
OPSET = 15


def convert(loaded: LoadedModel, floats: str) -> Any:
    from onnxmltools.convert.common.data_types import DoubleTensorType, FloatTensorType

    factory = FloatTensorType if floats == "float32" else DoubleTensorType
    types = [
        (n, factory(list(s.shape)))
        for n, s in zip(input_names(len(loaded.schema.inputs)), loaded.schema.inputs)
    ]
    if loaded.detection.runtime == "xgboost":
        return onnxmltools.convert_xgboost(loaded.model, initial_types=types, target_opset=OPSET)
    return onnxmltools.convert_lightgbm(
        loaded.model, initial_types=types, target_opset=OPSET, zipmap=False
    )
