from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from scoring.errors import EnvironmentResolutionError, UsageError
from scoring.packages.platformindex import this_platform
from serve.packaging import needs
from serve.packaging.requirements import read_requirements, target_for
from serve.packaging.sources import EnvironmentSource

if TYPE_CHECKING:
    from pathlib import Path

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("requirements.txt", "numpy\n", "requirements"),
        ("dev.in", "numpy\n", "requirements"),
        ("requirements.lock", "numpy\n", "requirements"),
        ("pyproject.toml", '[project]\nname = "x"\ndependencies = ["numpy"]\n', "pyproject"),
        ("environment.yml", "dependencies: [numpy]\n", "conda"),
        ("conda.YAML", "dependencies: [numpy]\n", "conda"),
    ],
)
def test_the_name_tells_the_kind(tmp_path: Path, name: str, text: str, kind: str) -> None:
    (tmp_path / name).write_text(text)
    source = read_requirements(tmp_path / name)
    assert source.kind == kind
    assert [package.name for package in source.packages] == ["numpy"]


def _source(python: str = "", python_range: str = "") -> EnvironmentSource:
    return EnvironmentSource(
        kind="conda",
        path="conda.yml",
        python=python,
        python_range=python_range,
        python_where="conda.yml:4",
    )


def test_the_python_version_is_the_files_else_this_one() -> None:
    assert target_for(None).python == HERE
    assert target_for(_source()).python == HERE
    assert target_for(_source("3.12")).python == "3.12"
    assert target_for(_source(python_range="==3.12.*")).python == "3.12"
    assert target_for(_source(python_range=">=3.12.3,<3.13")).python == "3.12"
    assert target_for(_source(), python="3.13").python == "3.13"
    assert target_for(None).platform == this_platform()
    assert target_for(None, "linux/arm64").architecture == "arm64"


@pytest.mark.parametrize(
    ("source", "python"),
    [
        (_source("3.8"), None),
        (_source("3.12"), "3.11"),
        (_source(python_range="<3.11"), None),
        (_source(python_range=">=3.12"), "3.11"),
        (_source(python_range="about three"), None),
        (_source("2.7"), None),
    ],
)
def test_another_python_version_is_refused_by_its_line(
    source: EnvironmentSource, python: str | None
) -> None:
    with pytest.raises(EnvironmentResolutionError) as caught:
        target_for(source, python=python)
    assert caught.value.where == "conda.yml:4"


def test_unknown_platforms_are_refused() -> None:
    with pytest.raises(UsageError, match="windows"):
        target_for(None, "windows/amd64")


def test_the_servers_needs_have_the_ranges_of_the_distribution() -> None:
    from importlib import metadata

    declared = {text.split(";")[0].strip() for text in metadata.requires("fieldpost") or ()}
    for runtime in ("onnx", "script", "sklearn"):
        wanted = needs.default_requirements(runtime)
        assert {text.split(";")[0] for text in wanted} <= declared
        assert set(needs.serving_requirements(runtime)) <= set(wanted)
        assert set(needs.server_requirements()) <= set(wanted)
