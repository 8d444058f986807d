"""A full disk at any write leaves the registry as it was, and says so."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from scoring.errors import StorageFullError
from serve.registry import Registry
from tests.faults import harness
from tests.folders import names_in

if TYPE_CHECKING:
    import io

DONE, FULL, REFUSED = 0, 3, 4

# Every outcome is an exit code: with all writes failing, nothing can be printed.
REGISTER = """
import os, sys
from pathlib import Path
from typing import NoReturn
from scoring.errors import StorageFullError, WorkspaceError
from serve.registry import Registry
try:
    with Registry(sys.argv[1]) as registry:
        registry.models.register("iris", Path(sys.argv[2]), prepared={})
except StorageFullError:
    os._exit(3)
except WorkspaceError:
    os._exit(4)
os._exit(0)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    first = tmp_path / "first"
    first.write_bytes(b"old" * 1000)
    with Registry(tmp_path / "template") as registry:
        registry.models.register("iris", first, prepared={})
    return tmp_path / "workspace"


@pytest.mark.parametrize(("error", "sample"), [("ENOSPC", 5), ("EDQUOT", 2)])
def test_a_registration_with_a_full_disk_at_any_write(
    workspace: Path, error: str, sample: int
) -> None:
    harness.require_strace()
    source = workspace.parent / "source"
    source.write_bytes(b"new" * 100_000)
    codes = set()

    def argv() -> list[str]:
        shutil.rmtree(workspace, ignore_errors=True)
        shutil.copytree(workspace.parent / "template", workspace)
        return [sys.executable, "-c", REGISTER, str(workspace), str(source)]

    def check(step: harness.Step, code: int) -> None:
        assert code in (DONE, FULL, REFUSED), str(step)
        codes.add(code)
        with Registry(workspace) as registry:
            found = registry.models.list()
            assert len(found) == (2 if code == DONE else 1), str(step)
            for version in found:
                registry.blobs.verify(version.files[0].digest)

    writes = ("write", "pwrite64", "mkdir", "rename", "renameat2")
    harness.fail_at_each_write(argv, check, error=error, syscalls=writes, sample=sample)
    assert codes


def test_a_full_disk_at_every_python_step(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same without strace, for the steps that are Python's own."""
    source = tmp_path / "source"
    source.write_bytes(b"new" * 1000)
    shutil.copytree(tmp_path / "template", workspace)
    for name in ("write", "fsync", "replace", "fchmod"):

        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched, Registry(workspace) as registry:
            patched.setattr(os, name, fail)
            with pytest.raises(StorageFullError, match="as it was") as caught:
                registry.models.register("iris", source, prepared={})
        assert caught.value.retryable
        with Registry(workspace) as registry:
            assert [each.ref for each in registry.models.list()] == ["iris:1"]
            assert len(registry.blobs.digests()) == 1
            assert names_in(registry.blobs.incoming) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB, where this user may mount one."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    folder = tmp_path / "disk"
    folder.mkdir()
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    done = subprocess.run([mount, *options], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run([umount, "--lazy", str(folder)], check=True)


def write_endlessly(file: io.FileIO, data: bytes) -> NoReturn:
    while True:
        file.write(data)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096):
            with pytest.raises(OSError, match="No space"):
                write_endlessly(file, bytes(size))
    return ballast


def versions(place: Path) -> list[int]:
    with Registry(place) as registry:
        return [version.version for version in registry.models.list("iris")]


def test_a_model_that_does_not_fit(small_disk: Path, tmp_path: Path) -> None:
    place = small_disk / "workspace"
    sources: dict[str, Path] = {}
    for name, size in (("small", 100_000), ("large", 4_000_000)):
        sources[name] = tmp_path / name
        sources[name].write_bytes(os.urandom(size))
    with Registry(place) as registry:
        registry.models.register("iris", sources["small"], prepared={})
        parts = {"a": sources["small"], "b": sources["large"]}
        for source in (sources["large"], parts):
            with pytest.raises(StorageFullError, match="as it was"):
                registry.models.register("iris", source, prepared={})
            assert len(registry.blobs.digests()) == 1  # nothing of the large one stays
            assert names_in(registry.blobs.incoming) == []
    assert versions(place) == [1]
    sources["small"].write_bytes(os.urandom(100_000))
    with Registry(place) as registry:
        assert registry.models.register("iris", sources["small"], prepared={}).version == 2


Change = Callable[[Registry, Path], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda registry, source: registry.models.register("iris", source, prepared={}),
        lambda registry, source: registry.models.tag("iris", {"k": "v" * 60_000}),
        lambda registry, source: registry.models.download("iris", source.parent / "disk" / "out"),
    ],
    ids=["register", "tag", "download"],
)
def test_a_disk_without_a_single_byte_left(
    small_disk: Path, tmp_path: Path, change: Change
) -> None:
    source, place = tmp_path / "model", small_disk / "workspace"
    source.write_bytes(b"model" * 1000)
    with Registry(place) as registry:
        before = registry.models.register("iris", source, prepared={})
    ballast = fill(small_disk)
    with pytest.raises(StorageFullError) as caught, Registry(place) as registry:
        change(registry, source)
    assert "Free space" in caught.value.hint
    ballast.unlink()
    with Registry(place) as registry:
        assert registry.models.list() == (before,)
        change(registry, source)
    assert not [name for name in names_in(small_disk) if name.startswith(".fieldpost")]


def test_a_workspace_that_cannot_even_be_made(small_disk: Path) -> None:
    ballast = fill(small_disk)
    with pytest.raises(StorageFullError):
        Registry(small_disk / "workspace")
    ballast.unlink()
    assert versions(small_disk / "workspace") == []


def test_deleting_frees_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    source, place = tmp_path / "model", small_disk / "workspace"
    with Registry(place) as registry:
        for _ in range(2):
            source.write_bytes(os.urandom(300_000))
            registry.models.register("iris", source, prepared={})
        # Full but for what a database needs to record a deletion.
        ballast = fill(small_disk)
        os.truncate(ballast, ballast.stat().st_size - 200_000)
        assert registry.models.delete("iris:1").size == 300_000
        registry.models.register("iris", source, prepared={})
    assert versions(place) == [3, 2]
