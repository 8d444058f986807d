"""Settings of a deployment, where targets of this package look for them."""

from __future__ import annotations

from scoring.deploying.settings import (
    ENV_PREFIX,
    MASK,
    SERVER_PREFIX,
    describe_settings,
    mask_settings,
    parse_settings,
)

__all__ = [
    "ENV_PREFIX",
    "MASK",
    "SERVER_PREFIX",
    "describe_settings",
    "mask_settings",
    "parse_settings",
]
