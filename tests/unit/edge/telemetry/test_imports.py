"""What runs on the device imports nothing that a small one has no room for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_DEVICE = ("collect", "metrics", "resources", "spool", "uplink")
_HEAVY = ("numpy", "duckdb", "click", "httpx", "urllib3", "yaml", "serve", "pandas", "asyncio")


def test_the_devices_side_is_light() -> None:
    code = "import sys\n" + "\n".join(f"import edge.telemetry.{name}" for name in _DEVICE)
    code += f"\nprint(*[name for name in {_HEAVY!r} if name in sys.modules])"
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == ""
