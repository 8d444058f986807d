from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import uv

from scoring.errors import EnvironmentResolutionError
from serve.packaging.toml_files import read_pyproject, read_uv_lock

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = """\
[project]
name = "mine"
version = "1.0"
requires-python = ">=3.11"
dependencies = [
    "numpy>=2",  # arrays
    'scikit-learn==1.9.*',
    "tomli ; python_version < '3.11'",
]
"""


def _write(tmp_path: Path, text: str, name: str = "pyproject.toml") -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


def test_pyproject_dependencies_with_their_lines(tmp_path: Path) -> None:
    file = _write(
        tmp_path,
        PROJECT
        + '[tool.uv]\nconstraint-dependencies = ["scipy<2"]\n'
        + '[[tool.uv.index]]\nurl = "https://a.example/simple"\ndefault = true\n',
    )
    source = read_pyproject(file)
    assert [(package.name, package.line) for package in source.packages] == [
        ("numpy", 6),
        ("scikit-learn", 7),
        ("tomli", 8),
    ]
    assert source.kind == "pyproject"
    assert source.python_range == ">=3.11"
    assert source.python_where == f"{file}:4"
    assert [package.text for package in source.constraints] == ["scipy<2"]
    assert source.options == ("--default-index", "https://a.example/simple")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[tool.poetry]\nname = 'x'\n", 1, "no \\[project\\]"),
        ("[project]\nname = 'x'\ndynamic = ['dependencies']\n", 3, "dynamic"),
        ("[project]\nname = 'x'\ndependencies = 'numpy'\n", 3, "not a list"),
        (
            "[project]\nname = 'x'\ndependencies = [\n'numpy',\n'mine @ file:///x']\n",
            5,
            "local path",
        ),
        ("[project]\nname = 'x\n", 2, "not valid TOML"),
        (PROJECT + "[tool.uv.sources]\nnumpy = { path = '../numpy' }\n", 11, "local folder"),
        (PROJECT + "[tool.uv.sources]\nnumpy = { git = 'https://x/y' }\n", 11, "version control"),
    ],
)
def test_pyproject_names_the_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    file = _write(tmp_path, text)
    with pytest.raises(EnvironmentResolutionError, match=message) as caught:
        read_pyproject(file)
    assert caught.value.where == f"{file}:{line}"


def test_a_real_uv_lock_pins_everything(tmp_path: Path) -> None:
    _write(tmp_path, PROJECT.replace("    'scikit-learn==1.9.*',\n", ""))
    done = subprocess.run(
        [uv.find_uv_bin(), "lock", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"uv could not lock: {done.stderr[-200:]}")
    source = read_uv_lock(tmp_path / "uv.lock")
    assert source.kind == "uv.lock"
    assert {package.name for package in source.packages} == {"numpy"}
    pins = [package for package in source.constraints if package.name == "numpy"]
    assert pins
    for pin in pins:
        assert pin.text.startswith("numpy==")
        assert len(pin.sha256) > 5
    assert source.python_range == ">=3.11"


LOCK = """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "mine"
version = "0.1"
source = { virtual = "." }
dependencies = [
    { name = "numpy", marker = "sys_platform == 'linux'" },
    { name = "uvicorn", extra = ["standard"] },
]

[[package]]
name = "numpy"
version = "1.26.4"
source = { registry = "https://pypi.org/simple" }
resolution-markers = ["python_full_version < '3.12'"]
wheels = [{ url = "https://x/y.whl", hash = "sha256:AA" }]

[[package]]
name = "numpy"
version = "2.4.6"
source = { registry = "https://b.example/simple" }
resolution-markers = ["python_full_version >= '3.13'", "python_full_version == '3.12.*'"]
"""


def test_a_forked_lock_keeps_its_markers(tmp_path: Path) -> None:
    source = read_uv_lock(_write(tmp_path, LOCK, "uv.lock"))
    assert [package.text for package in source.packages] == [
        'numpy; sys_platform == "linux"',
        "uvicorn[standard]",
    ]
    old, new = source.constraints
    assert old.text == 'numpy==1.26.4; python_full_version < "3.12"'
    assert " or " in new.text
    assert source.options == ("--index", "https://b.example/simple")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('virtual = "."', 'registry = "x"'), "locks no project"),
        (('registry = "https://b.example/simple"', 'editable = "../n"'), "no wheel"),
        (('registry = "https://b.example/simple"', 'git = "https://x/y"'), "no wheel"),
    ],
)
def test_a_lock_of_what_has_no_wheel(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    file = _write(tmp_path, LOCK.replace(*change), "uv.lock")
    with pytest.raises(EnvironmentResolutionError, match=message):
        read_uv_lock(file)
