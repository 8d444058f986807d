"""Pushes and pulls that are cut off: by a kill of either side, by a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from scoring.errors import StorageFullError
from serve.distribution.credentials import Logins
from serve.distribution.hosts import Hosts
from serve.distribution.limits import Limits
from serve.distribution.memory import Memory
from serve.distribution.options import Options
from serve.distribution.pulling import pull
from serve.distribution.pushing import push
from serve.distribution.reference import parse_reference
from tests.support import oci
from tests.support.registry import DockerRegistry, is_installed, running
from tests.support.tiny_registry import TinyRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serve.registry.blobs import BlobStore

MEGABYTE = 1 << 20
CHUNK = 1 * MEGABYTE
SIZES = (6 * MEGABYTE, 3 * MEGABYTE, 100_000)
TOTAL = sum(SIZES)
LIMITS = Limits(chunk_bytes=CHUNK, threads=2, patience_s=30, first_patience_s=5)

PUSH_AND_DIE = """
import os, signal, sys
from pathlib import Path
from tests.faults.test_registry_transfers import options
from serve.distribution.content import Descriptor, StoredContent
from serve.distribution.pushing import push
from serve.distribution.reference import parse_reference
from serve.registry.blobs import BlobStore

folder, to, digest, size, after = sys.argv[1:]
left = int(after)

def tell(count):
    global left
    left -= count
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)

root = Descriptor("application/vnd.oci.image.manifest.v1+json", digest, int(size))
content = StoredContent(BlobStore(Path(folder) / "store"))
push(root, content, parse_reference(to), options=options(Path(folder)), progress=tell)
"""


def options(folder: Path) -> Options:
    """Quick ones, with a memory in the folder."""
    environ = {"HOME": str(folder / "home")}
    return Options(
        hosts=Hosts(environ, root=folder),
        logins=Logins(environ),
        limits=LIMITS,
        memory=Memory(folder / "memory"),
    )


@pytest.fixture
def image(tmp_path: Path) -> oci.SmallImage:
    store = oci.make_store(tmp_path / "store")
    return oci.make_image(store, [os.urandom(size) for size in SIZES])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DockerRegistry]:
    if not is_installed():
        pytest.skip("docker-registry is not installed")
    with running(tmp_path / "registry") as found:
        yield found


def push_and_die(image: oci.SmallImage, folder: Path, to: str, after: int) -> None:
    arguments = [str(folder), to, image.root.digest, str(image.root.size), str(after)]
    done = subprocess.run([sys.executable, "-c", PUSH_AND_DIE, *arguments], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def require_whole(to: str, image: oci.SmallImage, folder: Path) -> None:
    store = oci.make_store(folder / "back")
    pull(parse_reference(to), store, options=options(folder))
    for each in (image.root, *image.layers):
        store.verify(each.digest)


@pytest.mark.parametrize("after", [1, 3 * MEGABYTE, TOTAL - 50_000, TOTAL + 100])
def test_a_push_that_was_killed_is_finished_by_the_next(
    registry: DockerRegistry, image: oci.SmallImage, tmp_path: Path, after: int
) -> None:
    to = f"{registry.host}/killed:1"
    push_and_die(image, tmp_path, to, after)
    kept = set(registry.blobs())
    done = push(image.root, image.content, parse_reference(to), options=options(tmp_path))
    assert done.existing == len(kept)
    require_whole(to, image, tmp_path)


def test_what_arrived_before_a_kill_is_not_sent_again(
    image: oci.SmallImage, tmp_path: Path
) -> None:
    with TinyRegistry() as tiny:
        to = f"{tiny.host}/killed:1"
        push_and_die(image, tmp_path, to, TOTAL - 2 * MEGABYTE)
        arrived = sum(map(len, [*tiny.blobs.values(), *tiny.uploads.values()]))
        assert arrived > TOTAL // 2
        done = push(image.root, image.content, parse_reference(to), options=options(tmp_path))
        # Only what came after the last acknowledged chunk of either upload may go twice.
        assert done.bytes_sent < TOTAL - arrived + 2 * CHUNK + 20_000
        require_whole(to, image, tmp_path)


@pytest.mark.parametrize("after", [100_000, 4 * MEGABYTE])
def test_a_registry_that_is_killed_in_a_push(
    registry: DockerRegistry, image: oci.SmallImage, tmp_path: Path, after: int
) -> None:
    killer = Killer(registry, after)
    to = parse_reference(f"{registry.host}/killed:1")
    push(image.root, image.content, to, options=options(tmp_path), progress=killer.tell)
    killer.join()
    require_whole(str(to), image, tmp_path)


def test_a_registry_that_is_killed_in_a_pull(
    registry: DockerRegistry, image: oci.SmallImage, tmp_path: Path
) -> None:
    to = parse_reference(f"{registry.host}/killed:1")
    push(image.root, image.content, to, options=options(tmp_path))
    killer = Killer(registry, 2 * MEGABYTE)
    store = oci.make_store(tmp_path / "other")
    pull(to, store, options=options(tmp_path), progress=killer.tell)
    killer.join()
    for each in (image.root, *image.layers):
        store.verify(each.digest)


class Killer:
    """Kills a registry once, in the middle of a transfer, and starts it again."""

    def __init__(self, registry: DockerRegistry, after: int) -> None:
        self._registry = registry
        self._left = after
        self._thread = threading.Thread(target=self._again)
        self._done = False

    def tell(self, count: int) -> None:
        self._left -= count
        if self._left <= 0 and not self._done:
            self._done = True
            self._registry.kill()
            self._thread.start()

    def join(self) -> None:
        assert self._done
        self._thread.join(30)

    def _again(self) -> None:
        self._registry.start()


def test_a_full_disk_ends_a_pull_and_keeps_nothing_broken(
    image: oci.SmallImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TinyRegistry() as tiny:
        to = parse_reference(f"{tiny.host}/full:1")
        push(image.root, image.content, to, options=options(tmp_path))
        folder = tmp_path / "small"
        with small_disk(folder, 5):
            store = oci.make_store(folder / "store")
            with pytest.raises(StorageFullError, match="No space"):
                pull(to, store, options=options(tmp_path))
            require_sound(store)
            assert not store.has(image.root.digest)


def require_sound(store: BlobStore) -> None:
    for digest in store.digests():
        store.verify(digest)
    store.remove_leftovers()
    assert list(store.incoming.iterdir()) == []


class small_disk:  # noqa: N801 - used as a context manager
    """A file system of a few megabytes; skips the test where none may be mounted."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._folder = folder
        self._options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs"]

    def __enter__(self) -> None:
        self._folder.mkdir()
        mounted = subprocess.run(
            ["mount", *self._options, str(self._folder)], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("no tmpfs may be mounted here")

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self._folder)], check=True)
