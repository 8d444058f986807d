"""Makes `descriptors.py` from the `.proto` files beside it; needs grpcio-tools.

    uv run --with grpcio-tools python serve/server/grpc/make_messages.py

The descriptors are the same whichever release of the tools makes them: source positions and
generated code, which would be of one release of protobuf, are left out.
"""

from __future__ import annotations

import sys
import tempfile
import textwrap
from importlib import import_module
from pathlib import Path

_HERE = Path(__file__).parent
_FILES = ("health.proto", "inference.proto", "reflection.proto")
_HEADER = '''"""The `.proto` files beside this one, serialized. Made by make_messages.py."""

# fmt: off
FILES = {
'''


def main() -> None:
    """Writes the module."""
    parts = [_HEADER]
    for name in _FILES:
        lines = textwrap.wrap(describe(name).hex(), 88)
        parts.append(f'    "{name}": bytes.fromhex(\n')
        parts.extend(f'        "{line}"\n' for line in lines)
        parts.append("    ),\n")
    parts.append("}\n")
    (_HERE / "descriptors.py").write_text("".join(parts), encoding="ascii")


def describe(name: str) -> bytes:
    """The serialized FileDescriptorProto of one file."""
    protoc = import_module("grpc_tools.protoc")
    descriptors = import_module("google.protobuf.descriptor_pb2")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        if protoc.main(["protoc", f"-I{_HERE}", f"--descriptor_set_out={out}", name]):
            sys.exit(f"{name} does not compile")
        [file] = descriptors.FileDescriptorSet.FromString(out.read_bytes()).file
    return bytes(file.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
