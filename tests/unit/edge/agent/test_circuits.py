"""Which packages the small runtime serves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edge.agent import circuits
from edge.protocol.messages import Module
from scoring import bundle as bundles
from scoring.bundle import Bundle
from scoring.packages.platformindex import this_platform
from tests.support.circuit_server import write_root
from tests.support.circuits import random_circuit

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def run(how: str) -> Module:
    return Module(package=f"sha256:{'0' * 64}", run=how)  # type: ignore[arg-type]


def environment(root: Path, *, numpy: bool, **changes: str) -> Path:
    site = root / "env" / "site-packages"
    (site / "numpy" if numpy else site).mkdir(parents=True)
    told = {"python": HERE, "platform": this_platform(), **changes}
    (root / "env" / "environment.json").write_text(json.dumps(told))
    return root


@pytest.fixture
def circuit(tmp_path: Path) -> Path:
    return write_root(tmp_path / "root", random_circuit(2, 8, 5))


def test_a_package_that_runs_by_itself_does(circuit: Path) -> None:
    root = environment(circuit, numpy=True)
    assert not circuits.is_served_small(run("auto"), root)
    assert circuits.is_served_small(run("circuit"), root)
    assert not circuits.is_served_small(run("process"), root)


@pytest.mark.parametrize("changes", [{"platform": "linux/riscv64"}, {"python": "3.2"}])
def test_of_another_platform_the_circuit_is_served(circuit: Path, changes: dict[str, str]) -> None:
    root = environment(circuit, numpy=True, **changes)
    assert circuits.is_served_small(run("auto"), root)


def test_without_numpy_the_circuit_is_served(circuit: Path) -> None:
    assert circuits.is_served_small(run("auto"), environment(circuit, numpy=False))


def test_what_is_no_circuit_is_not(tmp_path: Path) -> None:
    root = environment(tmp_path / "root", numpy=False)
    assert not circuits.is_served_small(run("auto"), root)
    (root / "model").mkdir()
    other = Bundle(name="iris", runtime="onnx")
    (root / bundles.BUNDLE_FILE).write_bytes(bundles.encode(other))
    assert not circuits.is_served_small(run("auto"), root)


def test_a_circuit_needs_its_model_alone() -> None:
    assert circuits.layers_of(run("circuit")) == {"model"}
    assert not circuits.layers_of(run("auto"))
