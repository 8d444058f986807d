"""What a server needs inside a package: the one place that lists it.

Version ranges come from Fieldpost's own distribution metadata, so that a package runs on what the
tests ran on and no range is written twice.
"""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from scoring.bundle import RuntimeName

# Imported by `serve.server` and the parts of `scoring` that answer requests, some of them late:
# HTTP/2 (hpack, hyperframe), gRPC (protobuf), large JSON bodies (pysimdjson), several workers
# (tenacity). What keys of OpenID Connect need brings the user's environment, or nobody.
SERVER = (
    *("hpack", "httptools", "hyperframe", "msgspec", "numpy", "orjson"),
    *("protobuf", "pysimdjson", "tenacity", "uvloop"),
)

# The server does without what has no wheel for a Python version.
_ONLY = {"pysimdjson": "python_version < '3.14'"}

# Imported by `scoring.runtimes` and `scoring.azureml`, beside the server's own. The frameworks of
# natively served models are not here: the model itself says which version it was made with.
RUNTIMES: dict[RuntimeName, tuple[str, ...]] = {
    "onnx": ("onnxruntime",),
    "script": ("flask", "inference-schema"),
}


# For scripts that bring no environment: what most of them import beside their model's framework.
DEFAULTS: dict[RuntimeName, tuple[str, ...]] = {"script": ("onnxruntime", "pandas")}


def server_requirements() -> tuple[str, ...]:
    """Requirements of every server, whatever it runs."""
    return _with_ranges(SERVER)


def serving_requirements(runtime: RuntimeName) -> tuple[str, ...]:
    """Requirements of the server for a runtime, with ranges: `numpy>=2.0`, sorted."""
    return _with_ranges((*SERVER, *RUNTIMES.get(runtime, ())))


def default_requirements(runtime: RuntimeName) -> tuple[str, ...]:
    """What a package has whose user brings no environment: the server's needs and a few more."""
    return _with_ranges((*SERVER, *RUNTIMES.get(runtime, ()), *DEFAULTS.get(runtime, ())))


def _with_ranges(names: tuple[str, ...]) -> tuple[str, ...]:
    ranges = _own_ranges()
    return tuple(sorted(f"{name}{ranges[name]}{_marker(name)}" for name in names))


def _marker(name: str) -> str:
    return f"; {_ONLY[name]}" if name in _ONLY else ""


@cache
def _own_ranges() -> dict[str, str]:
    """Name to version range, from the distribution's metadata."""
    requirements = [Requirement(text) for text in metadata.requires("fieldpost") or ()]
    return {requirement.name.lower(): str(requirement.specifier) for requirement in requirements}
