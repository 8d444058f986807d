"""What libraries would send to their makers, switched off before they are loaded."""

from __future__ import annotations

import os

_OFF = {"ORT_DISABLE_TELEMETRY": "1"}


def keep_private() -> None:
    """Switches it off for this process and its children; what the user has set stays."""
    for name, value in _OFF.items():
        os.environ.setdefault(name, value)
