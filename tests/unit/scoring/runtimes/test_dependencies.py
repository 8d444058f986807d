"""Which distribution a module is of."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from scoring.runtimes.dependencies import distribution, pinned


@pytest.mark.parametrize("module", ["numpy", "onnxruntime", "msgspec", "sklearn", "no_such_module"])
def test_it_is_what_the_metadata_say_loaded_or_not(module: str) -> None:
    code = (
        f"from scoring.runtimes.dependencies import distribution; print(distribution({module!r}))"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if module in {"numpy", "msgspec", "onnxruntime"}:
        __import__(module)
        assert distribution(module) == (module, metadata.version(module))
    assert fresh.stdout.strip() == str(distribution(module))


def test_loaded_modules_are_pinned_without_reading_metadata() -> None:
    code = (
        "import sys, numpy; from scoring.runtimes.dependencies import pinned\n"
        "print(*pinned('numpy'), 'importlib.metadata' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*pinned("numpy"), "False"]
