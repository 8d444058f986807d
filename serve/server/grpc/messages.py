"""The protocol's messages, as protobuf (upb) reads and writes them.

They live in a pool of their own: a script that uses tritonclient in this process brings messages of
the same names, and one pool refuses a name that comes twice. The classes are made from descriptors
at import, so no generated code binds us to one release of protobuf.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from scoring.errors import MalformedPayloadError
from serve.server.grpc.descriptors import FILES

POOL: Any = descriptor_pool.DescriptorPool()
for _file in FILES.values():
    POOL.AddSerializedFile(_file)


def message(name: str) -> Any:
    """The class of a message by its full name."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


def parse(kind: Any, data: bytes) -> Any:
    """A message from its bytes.

    Raises:
        MalformedPayloadError: They are no such message.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        raise MalformedPayloadError(
            f"The message is no {kind.DESCRIPTOR.full_name} in protobuf's encoding.",
            hint="Compare the client's .proto files with those of the Open Inference Protocol.",
        ) from None


ModelInferRequest = message("inference.ModelInferRequest")
ModelInferResponse = message("inference.ModelInferResponse")
ModelStreamInferResponse = message("inference.ModelStreamInferResponse")
