"""A process of the small runtime, serving a model layer that was made here."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from scoring import bundle as bundles
from scoring.bundle import Bundle
from scoring.quantum import document
from scoring.quantum.circuit import Model
from scoring.quantum.describing import describe
from scoring.schema import ModelSchema

# As on a device: whoever imports one of these fails.
_WITHOUT = """
import sys
for name in ("numpy", "orjson", "onnxruntime", "uvloop", "httptools", "scipy", "serve"):
    sys.modules[name] = None
from edge.circuits.worker import main
sys.exit(main(sys.argv))
"""


def write_root(root: Path, model: Model, schema: ModelSchema | None = None) -> Path:
    """A package's root with nothing but a circuit."""
    folder = root / "model"
    folder.mkdir(parents=True)
    document.save(model, folder / "moons.circuit.json")
    bundle = Bundle(
        name="moons",
        model_version=3,
        runtime="circuit",
        format="circuit",
        model_path="moons.circuit.json",
        schema=schema or describe(model),
    )
    (root / bundles.BUNDLE_FILE).write_bytes(bundles.encode(bundle))
    return root


@contextlib.contextmanager
def serving(root: Path, **settings: object) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The port of a worker that is ready, and its process."""
    own = socket.create_server(("127.0.0.1", 0))
    status, write = os.pipe()
    environment = {
        **{f"FIELDPOST_SERVER_{name.upper()}": str(value) for name, value in settings.items()},
        "FIELDPOST_LISTEN_FD": str(own.fileno()),
        "FIELDPOST_STATUS_FD": str(write),
        "PATH": os.environ["PATH"],
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _WITHOUT, str(root)],
        env=environment,
        pass_fds=(own.fileno(), write),
    )
    os.close(write)
    try:
        with os.fdopen(status, "rb") as pipe:
            told = msgspec.json.decode(pipe.readline())
        assert told["state"] == "ready", told
        yield own.getsockname()[1], process
    finally:
        own.close()
        process.terminate()
        process.wait(30)
