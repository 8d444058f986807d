"""What is unpacked on a device, and what goes again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge.agent import containers
from edge.agent.packages import Packages
from edge.agent.throttle import Stop, Throttle
from edge.agent.transfer import Wishes
from edge.agent.web import Web
from edge.protocol.messages import Module
from scoring.errors import PackagingError
from tests.support.blob_source import BlobSource, Made, digest_of
from tests.support.edge_site import package


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path / "device")


def have(packages: Packages, made: Made, **changes: object) -> Module:
    for data in made.blobs.values():
        packages.blobs.put_bytes(data)
    return Module(package=made.digest, **changes)  # type: ignore[arg-type]


def compile_layers(root: Path) -> list[Path]:
    """Has Python keep byte code of a package's runtime, as a worker of it does."""
    runtime = (root / "runtime").resolve()
    prefix = (root / "pycache").resolve()
    command = [sys.executable, "-X", f"pycache_prefix={prefix}", "-c", "import worker"]
    environment = {"PYTHONPATH": str(runtime)}
    subprocess.run(command, env=environment, check=True, timeout=30)
    return list(prefix.rglob("worker.*.pyc"))


def test_byte_code_of_what_is_removed_goes_too(packages: Packages) -> None:
    kept = have(packages, package("kept"))
    gone = have(packages, package("gone", other="runtime"))
    # Both have one runtime layer: its byte code stays.
    [code] = compile_layers(packages.root(kept))
    packages.root(gone)
    packages.clean({kept.package}, set())
    assert code.exists()
    packages.clean(set(), set())
    assert not code.exists()


def test_a_circuit_has_a_root_of_its_model_alone(packages: Packages) -> None:
    made = package("one")
    small, whole = have(packages, made, run="circuit"), have(packages, made)
    roots = [packages.root(small), packages.root(whole)]
    assert sorted(path.name for path in roots[0].iterdir()) == ["model", "pycache"]
    assert sorted(path.name for path in roots[1].iterdir()) == [
        *("env", "model", "pycache", "runtime"),
    ]
    packages.clean({made.digest}, set())
    assert all(root.exists() for root in roots)
    packages.clean(set(), set())
    assert not any(root.exists() for root in roots)


def test_byte_code_of_containers_goes_with_their_package(packages: Packages) -> None:
    run = have(packages, package("one"))
    folder = containers.byte_code(packages.root(run))
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o777 == 0o777
    packages.clean({run.package}, set())
    assert folder.is_dir()
    packages.clean(set(), set())
    assert not folder.exists()


def test_no_lock_is_left_of_what_is_gone(packages: Packages, tmp_path: Path) -> None:
    run = have(packages, package("one"))
    packages.root(run)
    locks = tmp_path / "device" / "unpacked" / "locks"
    assert list(locks.iterdir())
    packages.clean(set(), set())
    assert not list(locks.iterdir())
    packages.blobs.clean(set())
    run = have(packages, package("one"))
    assert packages.root(run).is_dir()


def test_a_circuit_of_other_machines_is_fetched_and_unpacked(packages: Packages) -> None:
    made = package("one")
    entry = {"digest": made.digest, "size": len(made.blobs[made.digest])}
    kind = "application/vnd.oci.image"
    foreign = {"architecture": "s390x", "os": "linux"}
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.index.v1+json",
            "manifests": [{"mediaType": f"{kind}.manifest.v1+json", "platform": foreign, **entry}],
        }
    ).encode()
    several = Made(digest_of(index), {digest_of(index): index}, ())
    small = Module(package=several.digest, run="circuit")
    whole = Module(package=several.digest)
    with BlobSource(made, several) as source:
        wishes = Wishes(sources=[source.source], web=Web(), throttle=Throttle(), stop=Stop())
        with pytest.raises(PackagingError, match="nothing for linux"):
            packages.fetch(whole, wishes, ())
        assert packages.fetch(small, wishes, ()).wholes == 1
        assert (packages.root(small) / "model" / "behaviour.json").exists()
        packages.clean({several.digest}, set())
        assert packages.fetch(small, wishes, ()).received == 0
        assert (packages.root(small) / "model" / "behaviour.json").exists()
