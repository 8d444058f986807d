"""Helm and Kustomize, where they are at hand, as judges of what we write for them.

Helm is its own command, or its own library in the wheel `helm-python-sdk`; Kustomize is in kubectl.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

Object = dict[str, Any]

RELEASE, NAMESPACE = "release", "models"

_LIBRARY = """
import json, sys
import helm_python as helm
from pathlib import Path
said = helm.lint(sys.argv[1])
with helm.Chart.load(sys.argv[1]) as chart:
    values = json.loads(sys.argv[2])
    made = chart.render(values=values, name=sys.argv[3], namespace=sys.argv[4])
print(json.dumps({"lint": said, "files": made}))
"""


def helm(chart: Path, values: dict[str, Any] | None = None) -> list[Object]:
    """What Helm renders, after its lint has found nothing; skipped where there is no Helm.

    Raises:
        ValueError: Helm refuses the chart or the values; with what it says.
    """
    if shutil.which("helm"):
        return _by_command(chart, values or {})
    if importlib.util.find_spec("helm_python"):
        return _by_library(chart, values or {})
    pytest.skip("neither helm nor helm-python-sdk is installed")


def _by_command(chart: Path, values: dict[str, Any]) -> list[Object]:
    given = chart.parent / "given.json"
    given.write_text(json.dumps(values))
    _run("helm", "lint", "--strict", str(chart), "--values", str(given))
    text = _run(
        *("helm", "template", RELEASE, str(chart), "--namespace", NAMESPACE),
        *("--values", str(given)),
    )
    return [each for each in yaml.safe_load_all(text) if each]


def _by_library(chart: Path, values: dict[str, Any]) -> list[Object]:
    text = _run(
        *(sys.executable, "-c", _LIBRARY, str(chart), json.dumps(values)), RELEASE, NAMESPACE
    )
    found = json.loads(text)
    assert not found["lint"]["errors"], found["lint"]
    assert all(each["severity"] <= 1 for each in found["lint"]["messages"]), found["lint"]
    texts = [text for path, text in found["files"].items() if path.endswith(".yaml")]
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


def kustomize(folder: Path) -> list[Object]:
    """What Kustomize builds; skipped where there is none."""
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]):
            text = _run(*command, str(folder))
            return [each for each in yaml.safe_load_all(text) if each]
    pytest.skip("neither kustomize nor kubectl is installed")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise ValueError(done.stderr or done.stdout)
    return done.stdout
