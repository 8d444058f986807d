from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scoring.errors import EnvironmentResolutionError
from serve.packaging.conda_file import read_conda

if TYPE_CHECKING:
    from pathlib import Path


def _write(tmp_path: Path, *dependencies: str) -> Path:
    file = tmp_path / "conda.yml"
    file.write_text("name: x\nchannels: [conda-forge]\ndependencies:\n" + "\n".join(dependencies))
    return file


def test_reads_both_sections_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("flask\n")
    file = _write(
        tmp_path,
        "  - python=3.11",
        "  - numpy=2.4.6",
        "  - pip=24.0",
        "  - conda-forge::scikit-learn=1.9",
        "  - pip:",
        "    - pandas>=2,<4",
        "    - -r more.txt",
        "    - --extra-index-url https://a.example/simple",
        "  - pytorch",
    )
    source = read_conda(file)
    assert [(package.text, package.line) for package in source.packages] == [
        ("numpy==2.4.6", 5),
        ("scikit-learn==1.9.*", 7),
        ("pandas<4,>=2", 9),
        ("flask", 1),
        ("torch", 12),
    ]
    assert (source.kind, source.python, source.python_where) == ("conda", "3.11", f"{file}:4")
    assert source.options == ("--extra-index-url", "https://a.example/simple")


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        ("numpy", "numpy"),
        ("numpy=*", "numpy"),
        ("numpy=2", "numpy==2.*"),
        ("numpy=2.4", "numpy==2.4.*"),
        ("numpy=2.4.*", "numpy==2.4.*"),
        ("numpy 2.4.*", "numpy==2.4.*"),
        ("numpy=2.4.6", "numpy==2.4.6"),
        ("numpy==2.4", "numpy==2.4"),
        ("numpy=2.4=py311h1_0", "numpy==2.4"),
        ("numpy=2.4.6=*_0", "numpy==2.4.6"),
        ("numpy 2.4.6 py311_0", "numpy==2.4.6"),
        ("numpy>=2,<3", "numpy<3,>=2"),
        ("numpy >= 2, < 3", "numpy<3,>=2"),
        ("numpy >=2", "numpy>=2"),
        ("numpy!=2.1", "numpy!=2.1"),
        ("numpy~=2.1", "numpy~=2.1"),
        ("py-xgboost-cpu=3.1", "xgboost-cpu==3.1.*"),
        ("matplotlib-base", "matplotlib"),
    ],
)
def test_translates_versions(tmp_path: Path, conda: str, pip: str) -> None:
    (found,) = read_conda(_write(tmp_path, f"  - {conda}")).packages
    assert found.text == pip


@pytest.mark.parametrize(
    ("conda", "exact", "allowed"),
    [
        ("python=3.11", "3.11", ""),
        ("python==3.12.4", "3.12", ""),
        ("python=3.11.*", "3.11", ""),
        ("python 3.11", "3.11", ""),
        ("python=3.11.5=h_0_cpython", "3.11", ""),
        ("python>=3.10,<3.13", "", ">=3.10,<3.13"),
        ("python=3", "", "==3.*"),
        ("python", "", ""),
    ],
)
def test_reads_the_python_version(tmp_path: Path, conda: str, exact: str, allowed: str) -> None:
    source = read_conda(_write(tmp_path, f"  - {conda}", "  - numpy"))
    assert (source.python, source.python_range) == (exact, allowed)


def test_skips_what_says_only_how_conda_installs(tmp_path: Path) -> None:
    source = read_conda(_write(tmp_path, "  - pip", "  - nomkl", "  - cpuonly", "  - setuptools"))
    assert source.packages == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("  - cudatoolkit=11.8", "pip does not have"),
        ("  - libgcc-ng", "pip does not have"),
        ("  - _libgcc_mutex=0.1=main", "pip does not have"),
        ("  - openssl=3.0", "pip does not have"),
        ("  - r-base", "pip does not have"),
        ("  - 'numpy[version>=2'", "no conda package"),
        ("  - numpy=abc", "no requirement"),
        ("  - other: [x]", "neither a package"),
        ("  - pip: numpy", "neither a package"),
    ],
)
def test_names_the_line_that_is_wrong(tmp_path: Path, line: str, message: str) -> None:
    file = _write(tmp_path, "  - numpy", line)
    with pytest.raises(EnvironmentResolutionError, match=message) as caught:
        read_conda(file)
    assert caught.value.where == f"{file}:5"


@pytest.mark.parametrize("entry", ["-e .", "./mine", "--no-deps"])
def test_names_the_line_of_the_pip_section(tmp_path: Path, entry: str) -> None:
    file = _write(tmp_path, "  - pip:", "    - numpy", f"    - {entry}")
    with pytest.raises(EnvironmentResolutionError) as caught:
        read_conda(file)
    assert caught.value.where == f"{file}:6"


@pytest.mark.parametrize("text", ["", "name: x", "dependencies: numpy", "- a\n- b", "a: [", "\t"])
def test_refuses_other_documents(tmp_path: Path, text: str) -> None:
    file = tmp_path / "conda.yml"
    file.write_text(text)
    with pytest.raises(EnvironmentResolutionError):
        read_conda(file)
