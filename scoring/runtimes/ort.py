"""onnxruntime, which sends nothing home.

Since 1.29 its official builds for Linux tell Microsoft of every process and model: they keep an
identifier of the device and a database in the user's home, and a thread that sends what is in it.
That is switched off here, for everything in this process and its children; `ORT_DISABLE_TELEMETRY`
in the environment is left as its user has set it.
"""

from __future__ import annotations

from scoring.runtimes.privacy import keep_private

keep_private()  # looked at once, when the library is loaded

import onnxruntime  # noqa: E402

__all__ = ["onnxruntime"]
