"""Every block of the README's tour, in order, as a reader would run it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def script() -> str:
    """All blocks as one bash script: variables and `$!` live on from block to block."""
    lines = ["set -euo pipefail"]
    for language, text in BLOCK.findall(README.read_text()):
        if language == "python":
            lines += ["python - <<'PY'", text.rstrip(), "PY"]
        else:
            lines.append(text.rstrip())
    return "\n".join(lines)


@pytest.mark.timeout(300)
def test_the_tour_runs(tmp_path: Path) -> None:
    binaries = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "FIELDPOST_WORKSPACE": str(tmp_path / "workspace"),
    }
    try:
        result = subprocess.run(
            ["bash", "-c", script()],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    finally:
        subprocess.run(
            ["fieldpost", "deployment", "stop", "iris"],
            env=environment,
            capture_output=True,
            check=False,
        )
    assert result.returncode == 0, result.stdout + result.stderr
    assert '"predictions"' in result.stdout
    assert "iris revision 3 is running" in result.stdout
    assert len(BLOCK.findall(README.read_text())) >= 6
