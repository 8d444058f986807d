"""Formats that Fieldpost recognises in order to say what a file is and what to do with it."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from scoring.errors import ScoringError, UnknownFormatError, UnsupportedModelError

if TYPE_CHECKING:
    from scoring.formats.source import Source

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
SAVED_MODEL_HINT = (
    "Convert it to ONNX: python -m tf2onnx.convert --saved-model DIR --output model.onnx"
)
_KERAS_HINT = "Load it with keras.saving.load_model and save it again: model.save('model.keras')."


class Foreign(NamedTuple):
    """A format that is named and refused.

    Attributes:
        offset: Where its magic bytes stand.
        magic: The bytes.
        name: What the file is, with its article.
        hint: What to do.
    """

    offset: int
    magic: bytes
    name: str
    hint: str


MODELS = (
    Foreign(0, b"GGUF", "a GGUF language model", "Serve it with llama.cpp; Fieldpost does not."),
    Foreign(4, b"TFL3", "a TensorFlow Lite model", "Convert the original to ONNX with tf2onnx."),
    Foreign(
        4, b"ORTM", "a model in onnxruntime's ORT form", "Give the .onnx file it was made from."
    ),
    Foreign(
        0, b"CBM1", "a CatBoost model", "Export it: model.save_model('m.onnx', format='onnx')."
    ),
    Foreign(0, b"ftrt", "a TensorRT engine", "Give the ONNX file that the engine was built from."),
)
NO_MODELS = (
    Foreign(
        0,
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the file that it stands for",
        "Fetch the content: git lfs pull",
    ),
    Foreign(0, b"\x93NUMPY", "a NumPy array", "Give a model, not data."),
    Foreign(0, b"PAR1", "a Parquet table", "Give a model, not data."),
    Foreign(257, b"ustar", "a tar archive", "Unpack it and give the model file or folder inside."),
    Foreign(0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it and give the model inside."),
    Foreign(0, b"\x28\xb5\x2f\xfd", "a Zstandard file", "Decompress it and give the model inside."),
    Foreign(0, b"Rar!\x1a\x07", "a RAR archive", "Unpack it and give the model inside."),
    Foreign(0, b"%PDF-", "a PDF document", "Give a model file."),
    Foreign(0, b"\x7fELF", "a compiled program", "Give a model file."),
    Foreign(0, b"SQLite format 3\x00", "an SQLite database", "Give a model file."),
)
_TEXTS = (
    (rb"\s*<(?:!doctype html|html)", "an HTML page: the download went wrong", False),
    (rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<PMML", "a PMML model", True),
    (rb"\s*(?:<\?xml[^>]*>\s*)?<net\b", "an OpenVINO network", True),
    (rb"booster\[\d+\]:\s*\n", "a text dump of an XGBoost model, which cannot be loaded", True),
    (
        rb'\s*\[\s*\{\s*"nodeid"\s*:',
        "a JSON dump of an XGBoost model, which cannot be loaded",
        True,
    ),
    (
        rb'\s*\{\s*"name"\s*:\s*"tree"',
        "a JSON dump of a LightGBM model, which cannot be loaded",
        True,
    ),
    (rb'\s*\{\s*"(?:class_name|module)"\s*:', "the architecture of a Keras model alone", True),
)
_TEXT_HINTS = {
    "XGBoost": "Save the model itself: booster.save_model('model.ubj').",
    "LightGBM": "Save the model itself: booster.save_model('model.txt').",
    "Keras": "Save the whole model: model.save('model.keras').",
    "HTML": "Download the file again; the server answered with a page, perhaps a login.",
}


def refuse(source: Source) -> None:
    """Raises the error that names the format, where the bytes are of one of these formats.

    Raises:
        UnsupportedModelError: A model that Fieldpost does not serve.
        UnknownFormatError: A file that is no model.
    """
    for kinds, error in ((MODELS, UnsupportedModelError), (NO_MODELS, UnknownFormatError)):
        for kind in kinds:
            if source.head.startswith(kind.magic, kind.offset):
                raise _error(source, error, kind.name, kind.hint)
    _refuse_hdf5(source)
    _refuse_safetensors(source)
    _refuse_saved_model(source)
    _refuse_text(source)


def _error(
    source: Source, error: type[ScoringError], name: str, hint: str = "Convert the model to ONNX."
) -> ScoringError:
    return error(f"{source.path} is {name}.", hint=hint, where=str(source.path))


def _refuse_hdf5(source: Source) -> None:
    if not source.head.startswith(HDF5_MAGIC):
        return
    window = source.read_at(0, 1 << 20)
    if b"model_config" in window:
        raise _error(
            source, UnsupportedModelError, "a Keras model in the old HDF5 form", _KERAS_HINT
        )
    if any(mark in window for mark in (b"keras_version", b"layer_names", b"_layer_checkpoint")):
        raise _error(
            source,
            UnsupportedModelError,
            "a file of Keras weights without the model",
            "Build the model, load the weights into it and save it: model.save('model.keras').",
        )
    raise _error(source, UnknownFormatError, "an HDF5 file without a Keras model", _KERAS_HINT)


def _refuse_safetensors(source: Source) -> None:
    head = source.head
    if len(head) < 10 or head[8:9] != b"{":  # noqa: PLR2004 - a 64-bit length and "{"
        return
    (length,) = struct.unpack_from("<Q", head)
    if length <= source.size and (b'"dtype"' in head or b'"__metadata__"' in head):
        raise _error(
            source,
            UnsupportedModelError,
            "a safetensors file: weights without the model's code",
            "Load them into the model and export it: "
            "torch.onnx.export(model, args, 'model.onnx', dynamo=True).",
        )


def _refuse_saved_model(source: Source) -> None:
    if source.head.startswith(b"\x08\x01\x12") and b"\x12\x00" not in source.head[:4]:
        window = source.head
        if b"serve" in window or b"Placeholder" in window or b"VarHandleOp" in window:
            raise _error(source, UnsupportedModelError, "a TensorFlow SavedModel", SAVED_MODEL_HINT)


def _refuse_text(source: Source) -> None:
    for pattern, name, is_model in _TEXTS:
        if re.match(pattern, source.head, re.IGNORECASE | re.DOTALL):
            hint = next((h for key, h in _TEXT_HINTS.items() if key in name), "Convert it to ONNX.")
            raise _error(
                source, UnsupportedModelError if is_model else UnknownFormatError, name, hint
            )
