from __future__ import annotations

import subprocess
import sys

import pytest

import serve.targets.kubernetes as package
from serve.targets.base import Previewing, Scaling, find_target

WITHOUT = """
import sys
sys.modules["lightkube"] = None
from scoring.errors import TargetError
from serve.targets.base import find_target
try:
    find_target("kubernetes")
except TargetError as error:
    print(error.message, error.hint)
"""


def test_the_target_is_found_and_offers_more_than_others() -> None:
    found = find_target("kubernetes")
    assert found.name == "kubernetes"
    assert issubclass(found, Previewing)
    assert issubclass(found, Scaling)
    assert not issubclass(find_target("local"), Scaling)


def test_rendering_needs_no_client() -> None:
    code = (
        "import sys, serve.targets.kubernetes.objects\n"
        "assert not {'lightkube', 'httpx2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_extra_its_name_is_told() -> None:
    command = [sys.executable, "-c", WITHOUT]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "needs lightkube" in done.stdout
    assert "pip install 'fieldpost[kubernetes]'" in done.stdout


def test_nothing_else_is_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        package.Nonsense  # noqa: B018
