"""ONNX through onnxruntime: the path that most models are served on.

Small models answer in microseconds here, so nothing is computed per request that can be known
before. Imports numpy and onnxruntime only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import (
    CorruptModelError,
    ModelFileError,
    ModelNotFoundError,
    ScoringError,
    ScoringFailedError,
    UnsupportedModelError,
)
from scoring.runtimes.arrays import is_none
from scoring.runtimes.base import MISSING_STRING, Arrays
from scoring.runtimes.dependencies import quiet
from scoring.runtimes.ort import onnxruntime
from scoring.runtimes.threads import threads

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from scoring.bundle import Bundle
    from scoring.schema import ModelSchema

THREADS_VARIABLE = "FIELDPOST_ORT_THREADS"
_SILENT = 4
_MAX_REASON = 400
# What onnxruntime says of a model that is whole but asks for something that is not there.
_UNSUPPORTED = re.compile(
    r"not a registered function/op|No Op registered|No opset|opset|IR version"
    r"|Could not find an implementation|NOT_IMPLEMENTED|custom op|domain",
    re.IGNORECASE,
)
_NOISE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |\S*/onnxruntime_src/\S+ .*?\) (?=[A-Z])"
    r"|Non-zero status code returned while running (?=\w+ node\.)| Name:'[^']*' Status Message:"
)


class OnnxPredictor:
    """Answers with an onnxruntime session; may run on several threads at once."""

    thread_safe = True

    def __init__(self, session: Any, schema: ModelSchema) -> None:
        self.schema = schema
        self.session = session
        self._names = [output.name for output in schema.outputs]
        self._nullable = [s.name for s in schema.inputs if s.missing and s.dtype == "string"]
        # The session's Python wrapper checks each call again: a fifth of a small model's time.
        native = vars(session).get("_sess")
        self._run = session.run if native is None else native.run

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        """See `scoring.runtimes.base.Predictor`."""
        if self._nullable:
            inputs = {**inputs, **{name: _without_none(inputs[name]) for name in self._nullable}}
        try:
            values = self._run(self._names, inputs, None)
        except Exception as error:
            raise self._failure(error, inputs) from error
        return dict(zip(self._names, values, strict=True))

    def _failure(self, error: Exception, inputs: Arrays) -> ScoringError:
        from scoring.runtimes.refusals import is_refusal, refusal  # noqa: PLC0415 - failures only

        if not is_refusal(str(error)):
            return ScoringFailedError(f"The model failed: {reason(error)}")

        def again(part: Arrays) -> Any:
            return self._run(self._names, part, None)

        return refusal(reason(error), inputs, self.schema, again)


def _without_none(values: NDArray[Any]) -> NDArray[Any]:
    """Strings with `MISSING_STRING` in the place of None, which onnxruntime does not take."""
    absent = is_none(values)
    return np.where(absent, MISSING_STRING, values) if absent.any() else values


def open_session(path: Path) -> Any:
    """Opens an ONNX file.

    `FIELDPOST_ORT_THREADS` sets the threads of one request.

    Raises:
        ModelNotFoundError: The file, or one with its external data, is missing.
        CorruptModelError: The content is broken, or points to data outside its folder.
        UnsupportedModelError: An operator or version that onnxruntime does not have.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads(THREADS_VARIABLE)
    options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    onnxruntime.set_default_logger_severity(_SILENT)
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is not there.", where=str(path))
    # By its name onnxruntime would take a file that ends in .ort for its own form.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        with quiet():  # its wrapper prints before it raises
            return onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
    except Exception as error:
        raise _load_error(path, error) from error


def _load_error(path: Path, error: Exception) -> ModelFileError:
    text, where = reason(error), str(path)
    if "external data path does not exist" in text.lower():
        return ModelNotFoundError(
            f"{path} keeps weights in a file beside it that is missing. {text}",
            hint="Keep the .onnx file and its data files in one folder and give the folder.",
            where=where,
        )
    if "external data" in text.lower():
        return CorruptModelError(
            f"{path} keeps weights in a file outside its folder, or one that is damaged. {text}",
            hint="Save the model again with its data beside it: onnx.save(model, path, "
            "save_as_external_data=True).",
            where=where,
        )
    if _UNSUPPORTED.search(text):
        return UnsupportedModelError(
            f"onnxruntime {onnxruntime.__version__} cannot run {path}: {text}",
            hint="Export it with standard operators and an older opset, or update onnxruntime.",
            where=where,
        )
    return CorruptModelError(
        f"{path} is not a valid ONNX model: {text}",
        hint="Export the model again, and check it with onnx.checker.check_model.",
        where=where,
    )


def reason(error: Exception) -> str:
    """The reason that onnxruntime gives, in one line, without its source paths and codes."""
    text = " ".join(_NOISE.sub("", str(error)).split())
    text = _NOISE.sub("", text)
    return text if len(text) <= _MAX_REASON else text[:_MAX_REASON] + " …"


def load(path: Path, bundle: Bundle) -> OnnxPredictor:
    """Loads an ONNX file; where the package gives no schema, the graph's own is used.

    Raises:
        ModelFileError: The file is missing, corrupt or not supported.
    """
    session = open_session(path)
    schema = bundle.schema
    if schema is None:
        from scoring.formats.onnx import describe  # noqa: PLC0415 - packages carry their schema

        schema = describe(session, path)
    _require_same_names(session, schema, path)
    return OnnxPredictor(session, schema)


def _require_same_names(session: Any, schema: ModelSchema, path: Path) -> None:
    given = {node.name for node in (*session.get_inputs(), *session.get_outputs())}
    absent = [spec.name for spec in (*schema.inputs, *schema.outputs) if spec.name not in given]
    if absent:
        raise CorruptModelError(
            f"{path} has no input or output named {', '.join(absent)}, as its description says.",
            hint="Register the model again.",
            where=str(path),
        )
