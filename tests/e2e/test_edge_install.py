"""What goes onto a device: a small install, whose agent runs a real package and stays small.

About half a minute: a wheel is built, and its few needs are fetched.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import real_packages
from tests.support.edge_site import EdgeSite

ROOT = Path(__file__).parents[2]
NEEDS = ROOT / "edge" / "agent" / "requirements.txt"
UV = Path(sys.executable).parent / "uv"
MOST_KIB = 45 * 1024
MOST_DISK_BYTES = 100 << 20

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fieldpost without its needs, and the agent's."""
    folder = tmp_path_factory.mktemp("install")
    call(UV, "build", "--quiet", "--wheel", "--out-dir", folder / "wheel", ROOT)
    call(UV, "venv", "--quiet", "--python", sys.executable, folder / "venv")
    install: list[str | Path] = [UV, "pip", "install", "--quiet", "--compile-bytecode"]
    install += ["--python", folder / "venv" / "bin" / "python"]
    (wheel,) = (folder / "wheel").glob("*.whl")
    call(*install, "--no-deps", wheel)
    call(*install, "-r", NEEDS)
    return folder / "venv"


def call(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_agent_needs_what_the_extra_and_the_messages_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    messages = [each for each in project["dependencies"] if each.startswith("msgspec")]
    wanted = {*project["optional-dependencies"]["agent"], *messages}
    assert set(NEEDS.read_text().split()) == wanted


def test_a_small_install_runs_a_real_package_in_little_memory(venv: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    found = {path.name for path in venv.glob("lib/python*/site-packages/*")}
    assert not found & {"numpy", "onnxruntime", "click", "httpx"}
    size = sum(path.stat().st_size for path in venv.rglob("*") if path.is_file())
    assert size < MOST_DISK_BYTES
    iris = real_packages.iris(tmp_path / "iris")
    with EdgeSite(tmp_path).open() as site:
        config = site.enrol(tmp_path / "device")
        state = Path(config.state)
        lines = [f'broker = "{config.broker}"', f'controller = "{config.controller}"']
        (state / "agent.toml").write_text("\n".join(lines))
        kept = {k: v for k, v in os.environ.items() if not re.match("PYTHON|FIELDPOST_", k)}
        with (tmp_path / "agent.log").open("wb") as log:
            agent = subprocess.Popen(
                [venv / "bin" / "fieldpost-agent", "run", "--state", state], env=kept, stderr=log
            )
        try:
            site.wish(iris)
            site.wait_for("good", iris, 90)
            assert resident_kib(agent.pid) < MOST_KIB
        finally:
            agent.terminate()
            assert agent.wait(30) == 0, (tmp_path / "agent.log").read_text()[-2000:]


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
