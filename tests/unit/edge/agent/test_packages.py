"""What is unpacked on a device, and what goes again."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from edge.agent import containers
from edge.agent.packages import Packages
from edge.agent.throttle import Stop, Throttle
from edge.agent.transfer import Wishes
from edge.agent.web import Web
from edge.protocol.messages import Module
from scoring.errors import PackagingError, UnsafeArchiveError
from tests.support.blob_source import BlobSource, Made, digest_of
from tests.support.edge_site import package, package_of_archives


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


def archive_of(name: str, **changes: object) -> bytes:
    """One entry, as nobody who builds packages makes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        for key, value in changes.items():
            setattr(member, key, value)
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    return out.getvalue()


INSIDE = "opt/fieldpost/model"
HOSTILE = {
    "beside": (archive_of(f"{INSIDE}/../../../../../evil"), None),
    "absolute": (archive_of("/tmp/evil"), None),
    "link": (archive_of(f"{INSIDE}/evil", type=tarfile.SYMTYPE, linkname="/etc/passwd"), None),
    "device": (archive_of(f"{INSIDE}/evil", type=tarfile.CHRTYPE), None),
    "more than it says": (archive_of(f"{INSIDE}/evil", size=1 << 20), 5000),
    "bomb that says nothing": (archive_of(f"{INSIDE}/evil", size=80 << 20), 0),
}


# What is kept unpacked has its bytes on the disk already: it does not burst.
KEPT = [(case, kept) for case in HOSTILE for kept in ("packed", "raw")][:-1]


@pytest.mark.parametrize(("case", "kept"), KEPT)
def test_archives_that_escape_or_burst_are_refused(
    packages: Packages, tmp_path: Path, case: str, kept: str
) -> None:
    """Also where they came as deltas, and are kept as what those gave."""
    archive, size = HOSTILE[case]
    made = package_of_archives({"model": archive}, {} if size is None else {"model": size})
    run = have(packages, made)
    if kept == "raw":
        packages.blobs.put_bytes(archive)
    with pytest.raises(UnsafeArchiveError):
        packages.root(run)
    assert not list(tmp_path.rglob("evil"))
    assert not list((tmp_path / "device" / "unpacked").glob("layers/*"))


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
