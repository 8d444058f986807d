"""What the device's side imports: nothing that a small device does not need."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
import edge.security.identity, edge.security.joining, edge.security.trust
unwanted = {"numpy", "click", "urllib3", "requests", "httptools", "asyncio", "sqlite3", "paho"}
theirs = {"authority", "broker", "enrol", "endpoint", "fleet", "keys", "repository", "tables"}
print(sorted(unwanted & {name.split(".")[0] for name in sys.modules}))
print(sorted(name for name in theirs if f"edge.security.{name}" in sys.modules))
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmRSS")))
"""


def test_a_device_imports_little() -> None:
    said = subprocess.run(
        [sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True, timeout=60
    ).stdout.splitlines()
    assert said[:2] == ["[]", "[]"]
    assert int(said[2]) < 40 * 1024
