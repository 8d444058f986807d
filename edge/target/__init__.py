"""The target `edge`: a deployment of the workspace that runs on the devices of a fleet."""

from __future__ import annotations

from edge.target.target import EdgeTarget

__all__ = ["EdgeTarget"]
