"""Reads conda environment files: conda's packages as pip's of that name, and the pip section."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import yaml

from scoring.errors import EnvironmentResolutionError
from serve.packaging.requirement_lines import (
    parse_requirement,
    read_requirement_lines,
    read_text,
)
from serve.packaging.sources import EnvironmentSource, RequestedPackage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RENAMED = {
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "opencv": "opencv-python-headless",
    "py-opencv": "opencv-python-headless",
    "msgpack-python": "msgpack",
    "pytables": "tables",
    "python-graphviz": "graphviz",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost-cpu",
    "dask-core": "dask",
    "matplotlib-base": "matplotlib",
    "seaborn-base": "seaborn",
    "tensorflow-base": "tensorflow",
    "tensorflow-cpu": "tensorflow",
    "tensorflow-mkl": "tensorflow",
    "pyyaml": "pyyaml",
    "ruamel_yaml": "ruamel-yaml",
}
# They say how conda installs, and nothing about what is imported.
_SKIPPED = frozenset({"pip", "nomkl", "cpuonly", "setuptools", "wheel", "python_abi", "tzdata"})
_CONDA_ONLY = re.compile(
    r"_.*|lib.*|cuda.*|cudnn|nccl|openssl|ca-certificates|ncurses|readline|sqlite|tk|xz|zlib|bzip2"
    r"|ld_impl_.*|blas|openblas|mkl-service|mkl_fft|mkl_random|intel-openmp|llvm-openmp|gcc.*|gxx.*"
    r"|gfortran.*|compilers|c-compiler|cxx-compiler|binutils.*|sysroot_.*|ffmpeg|openjdk|nodejs|git"
    r"|make|r|r-.*|conda|mamba|hdf5|gdal|geos|proj|unixodbc|krb5|icu|qt.*|glib|openmpi|mpich"
)
_PIP_LIBRARIES = frozenset({"librosa", "libclang", "libcst", "liblinear-official", "cuda-python"})
_SPEC = re.compile(
    r"(?:[^:\s]+::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]*)\s*(?P<version>[<>=!~\s\d*].*)?"
)
_EXACT_PARTS = 3


class _Item(msgspec.Struct, frozen=True):
    text: str
    path: str
    line: int

    def wrong(self, message: str, hint: str = "") -> EnvironmentResolutionError:
        return EnvironmentResolutionError(message, hint=hint, where=f"{self.path}:{self.line}")


def read_conda(path: Path) -> EnvironmentSource:
    """Reads `dependencies:` with its `pip:` section; channels do not matter.

    Raises:
        EnvironmentResolutionError: It is no conda file, or names something that pip cannot give.
    """
    packages: list[RequestedPackage] = []
    constraints: list[RequestedPackage] = []
    options: list[str] = []
    python = _Item("", str(path), 0)
    for item, from_pip in _dependencies(path):
        if from_pip:
            _add_pip(item, path, packages, constraints, options)
        elif _split(item)[0] == "python":
            python = item
        elif package := _from_conda(item):
            packages.append(package)
    exact, allowed = _python(python) if python.line else ("", "")
    return EnvironmentSource(
        kind="conda",
        path=str(path),
        packages=tuple(packages),
        constraints=tuple(constraints),
        python=exact,
        python_range=allowed,
        python_where=f"{path}:{python.line}" if python.line else "",
        options=tuple(options),
    )


def _dependencies(path: Path) -> Iterator[tuple[_Item, bool]]:
    """Every entry with its line, and whether it is in the pip section."""
    try:
        root = yaml.compose(read_text(path), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise EnvironmentResolutionError(
            f"{path} is not valid YAML: {getattr(error, 'problem', error)}.", where=f"{path}:{line}"
        ) from error
    found = _value(root, "dependencies")
    if not isinstance(found, yaml.SequenceNode):
        raise EnvironmentResolutionError(
            f"{path} has no list of dependencies.",
            hint="A conda file has 'dependencies:' with one '- NAME=VERSION' on each line.",
            where=f"{path}:1",
        )
    for node in found.value:
        if isinstance(node, yaml.ScalarNode):
            yield _item(node, path), False
            continue
        section = _value(node, "pip")
        if not isinstance(section, yaml.SequenceNode):
            raise _item(node, path).wrong("This is neither a package nor a 'pip:' section.")
        for entry in section.value:
            yield _item(entry, path), True


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _item(node: yaml.Node, path: Path) -> _Item:
    text = str(node.value).strip() if isinstance(node, yaml.ScalarNode) else ""
    return _Item(text, str(path), node.start_mark.line + 1)


def _add_pip(
    item: _Item,
    path: Path,
    packages: list[RequestedPackage],
    constraints: list[RequestedPackage],
    options: list[str],
) -> None:
    if not item.text.startswith("-"):
        packages.append(parse_requirement(item.text, item.path, item.line))
        return
    name, _, value = item.text.partition(" ")
    if name in {"-r", "--requirement"}:
        included = read_requirement_lines(path.parent / value.strip())
        packages += included.packages
        constraints += included.constraints
        options += included.options
    elif name in {"--index-url", "-i", "--extra-index-url", "--find-links", "-f"}:
        options += [{"-i": "--index-url", "-f": "--find-links"}.get(name, name), value.strip()]
    else:
        raise item.wrong(f"{item.text!r} cannot be part of a package.", "Remove that line.")


def _split(item: _Item) -> tuple[str, str]:
    match = _SPEC.fullmatch(item.text)
    if match is None:
        raise item.wrong(
            f"{item.text!r} is no conda package that can be read.", "Write it as NAME=VERSION."
        )
    return match["name"].lower(), (match["version"] or "").strip()


def _from_conda(item: _Item) -> RequestedPackage | None:
    name, version = _split(item)
    if name in _SKIPPED:
        return None
    if _CONDA_ONLY.fullmatch(name) and name not in _PIP_LIBRARIES:
        raise item.wrong(
            f"{name!r} is a conda package that pip does not have.",
            "Remove the line: wheels bring the libraries they need. A library of the system "
            "belongs into the base image.",
        )
    text = _RENAMED.get(name, name) + _specifier(version)
    return parse_requirement(text, item.path, item.line)


def _specifier(version: str) -> str:
    """A conda version as pip writes it: `=1.2` means any 1.2.x, a build string is dropped."""
    version = re.sub(r"\s*(==|>=|<=|!=|~=|=|<|>)\s*", r"\1", version)
    if version.lstrip("=") in {"", "*"}:
        return ""
    parts = version.split()  # `1.2 py311_0`: version and build
    text = parts[0]
    if text[0].isdigit():
        text = f"={text}"
    match = re.fullmatch(r"==?([0-9][^=,|<>]*)(=[^=,]*)?", text)
    if match is None:
        return text
    exact = text.startswith("==") or match[2] is not None
    return _pin(match[1], exact=exact)


def _pin(version: str, *, exact: bool) -> str:
    if version.endswith("*"):
        return f"=={version.rstrip('*').rstrip('.')}.*"
    return f"=={version}" if exact or version.count(".") >= _EXACT_PARTS - 1 else f"=={version}.*"


def _python(item: _Item) -> tuple[str, str]:
    """The version `3.11` of `python=3.11.5`, or the range of `python>=3.10`."""
    specifier = _specifier(_split(item)[1])
    match = re.fullmatch(r"==(\d+\.\d+)(\.(\d+|\*))*", specifier)
    return (match[1], "") if match else ("", specifier)
