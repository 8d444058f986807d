"""Models from a registered file to a running deployment: registry, packages, targets, server.

>>> from serve import Workspace
>>> ws = Workspace()
>>> model = ws.models.register("iris", "iris.onnx")
>>> package = ws.packages.build(model)
>>> deployment = ws.deploy("iris", package)
>>> deployment.score({"data": [[5.1, 3.5, 1.4, 0.2]]})
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve.client import Client
    from serve.workspace import Workspace

__all__ = ["Client", "Workspace"]


def __getattr__(name: str) -> object:
    # A server inside a package imports `serve.server` and must not pay for, or have, the rest.
    if name == "Workspace":
        from serve.workspace import Workspace

        return Workspace
    if name == "Client":
        from serve.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
