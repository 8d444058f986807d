"""`config.pbtxt`: protobuf's text form of `inference.ModelConfig`, as tritonclient brings it.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scoring.errors import CorruptModelError, MissingDependencyError, PackagingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


_MAX_BYTES = 1 << 20

# ONNX Runtime's names of types; Triton's ONNX backend takes no others.
_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(bfloat16)": "TYPE_BF16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


def read(path: Path) -> Any:
    """A model's description; an empty one where there is no such file, as Triton has it.

    Returns:
        An `inference.ModelConfig`. Fields that are newer than tritonclient are left out.

    Raises:
        CorruptModelError: The file is not such a text.
        MissingDependencyError: tritonclient is not installed.
    """
    config, text_format = _library()
    found = config.ModelConfig()
    if not path.is_file():
        return found
    try:
        return text_format.Parse(_text(path), found, allow_unknown_field=True)
    except (text_format.ParseError, ValueError, OSError) as error:
        raise CorruptModelError(
            f"{path} cannot be read: {error}",
            hint="Triton's log says the same when it loads the model: mend the file there.",
            where=str(path),
        ) from error


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES} bytes")
    return data.decode()


def write(
    name: str, version: int, inputs: Sequence[Any], outputs: Sequence[Any], labels: str = ""
) -> str:
    """The text for an ONNX model that Triton's ONNX Runtime backend serves.

    All sizes stand in it, that of the batch too, so that shapes are the ones of every other server:
    `max_batch_size` is 0.

    Args:
        name: The model's.
        version: The only one that is served.
        inputs: As ONNX Runtime's session describes them (`name`, `type`, `shape`).
        outputs: Likewise.
        labels: The name of the output whose labels `labels.txt` has; empty for none.

    Raises:
        PackagingError: A type that Triton's backend does not have: maps and sequences.
        MissingDependencyError: tritonclient is not installed.
    """
    config, text_format = _library()
    made = config.ModelConfig(name=name, backend="onnxruntime", platform="onnxruntime_onnx")
    made.version_policy.specific.versions.append(version)
    for tensors, given in ((made.input, inputs), (made.output, outputs)):
        for each in given:
            tensor = tensors.add(name=each.name, data_type=_type(config, each))
            tensor.dims.extend(_size(size) for size in each.shape)
    for tensor in made.output:
        if tensor.name == labels:
            tensor.label_filename = "labels.txt"
    text: str = text_format.MessageToString(made)
    return text


def _type(config: Any, tensor: Any) -> int:
    name = _TYPES.get(tensor.type)
    if name is None:
        raise PackagingError(
            f"The model has {tensor.name!r} of type {tensor.type}, which Triton does not take.",
            hint="Run the package in Triton by the base 'triton' instead: its Python backend takes "
            "it.",
        )
    return int(config.DataType.Value(name))


def _size(size: object) -> int:
    """A size that is free has a name in ONNX, or none at all."""
    return size if isinstance(size, int) and size >= 0 else -1


def _library() -> tuple[Any, Any]:
    try:
        from google.protobuf import text_format  # noqa: PLC0415 - an extra
        from tritonclient.grpc import model_config_pb2  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            "Triton's model repositories need tritonclient.",
            hint="pip install 'fieldpost[triton]'",
        ) from error
    return model_config_pb2, text_format
