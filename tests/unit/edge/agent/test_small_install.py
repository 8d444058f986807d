"""A device has room for a small install: what the agent imports is counted here."""

from __future__ import annotations

import json
import subprocess
import sys

ALLOWED = {
    *("_cffi_backend", "_openssl", "cryptography", "edge", "google", "msgspec", "paho"),
    *("scoring", "securesystemslib", "tuf", "typing_extensions", "zstandard"),
}
_LIST = """
import json, sys
before = set(sys.modules)
import edge.agent.device, edge.agent.main
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_the_agent_imports_little() -> None:
    run = subprocess.run([sys.executable, "-c", _LIST], check=True, capture_output=True, timeout=60)
    found = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert found - ALLOWED <= set(sys.stdlib_module_names) | {"_cython_3_0_11"}
    assert not found & {"asyncio", "numpy", "click", "serve", "httpx", "yaml"}
