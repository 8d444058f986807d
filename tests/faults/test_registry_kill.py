"""`kill -9` at any write of a registration leaves the old registry or the new one, whole."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from serve.registry import Registry
from serve.registry.connection import Connection
from tests.faults import harness
from tests.folders import names_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD, NEW = b"old" * 100_000, b"new" * 100_000

REGISTER = """
import sys
from pathlib import Path
from serve.registry import Registry
with Registry(sys.argv[1]) as registry:
    source = Path(sys.argv[2])
    registry.models.register("iris", source, prepared={}, compiled=source / "a", tags={"k": "v"})
"""
DELETE = """
import sys
from serve.registry import Registry
with Registry(sys.argv[1]) as registry:
    registry.models.delete("iris:1")
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a").write_bytes(NEW)
    (folder / "b").write_bytes(b"small")
    return folder


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Makes a workspace with one version, always at the same place."""
    template, place = tmp_path / "template", tmp_path / "workspace"
    first = tmp_path / "first"
    first.write_bytes(OLD)
    with Registry(template) as registry:
        registry.models.register("iris", first, prepared={}, tags={"k": "old"})

    def fresh() -> Path:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        return place

    return fresh


def require_whole(place: Path, allowed: tuple[list[int], ...]) -> list[int]:
    """The registry opens, holds one of the allowed sets of versions, and every byte of them."""
    with Registry(place) as registry:
        found = registry.models.list()
        versions = sorted(version.version for version in found)
        assert versions in allowed
        for version in found:
            assert version.tags == {"k": "old" if version.version == 1 else "v"}
            assert len(version.files) == (1 if version.version == 1 else 2)
            blobs = [file.digest for file in version.files]
            blobs += [version.compiled.digest] if version.compiled else []
            for digest in blobs:
                registry.blobs.verify(digest)
        registry.gc()
        kept = {file.digest for version in found for file in version.files}
        assert set(registry.blobs.digests()) == kept
        assert names_in(registry.blobs.incoming) == []
        again = registry.models.register("iris", place / "oci-layout", prepared={})
        assert again.version > max([0, *versions])
    return versions


def test_a_registration_killed_at_any_write(fresh: Callable[[], Path], source: Path) -> None:
    harness.require_strace()

    def argv() -> list[str]:
        return [sys.executable, "-c", REGISTER, str(fresh()), str(source)]

    def check(step: harness.Step) -> None:
        require_whole(source.parent / "workspace", ([1], [1, 2]))

    assert len(harness.kill_at_each_write(argv, check)) >= 3


def test_the_first_registration_killed_at_any_write(tmp_path: Path, source: Path) -> None:
    harness.require_strace()
    place = tmp_path / "new" / "workspace"

    def argv() -> list[str]:
        shutil.rmtree(place.parent, ignore_errors=True)
        return [sys.executable, "-c", REGISTER, str(place), str(source)]

    def check(step: harness.Step) -> None:
        with Registry(place) as registry:
            found = [version.version for version in registry.models.list()]
            assert found in ([], [1])
            for file in registry.models.get("iris").files if found else ():
                registry.blobs.verify(file.digest)

    assert harness.kill_at_each_write(argv, check, sample=3)


def test_a_deletion_killed_at_any_write(fresh: Callable[[], Path], source: Path) -> None:
    harness.require_strace()

    def argv() -> list[str]:
        return [sys.executable, "-c", DELETE, str(fresh())]

    def check(step: harness.Step) -> None:
        require_whole(source.parent / "workspace", ([1], []))

    assert harness.kill_at_each_write(argv, check, sample=3)


PATCHES = (
    *harness.PYTHON_STEPS,
    (Connection, "execute"),  # BEGIN and COMMIT too
    (Connection, "execute_many"),
)


def test_a_registration_killed_at_any_step_without_strace(
    fresh: Callable[[], Path], source: Path
) -> None:
    outcomes = set()

    def prepare() -> Callable[[], None]:
        place = fresh()

        def action() -> None:
            with Registry(place) as registry:
                registry.models.register(
                    "iris", source, prepared={}, compiled=source / "a", tags={"k": "v"}
                )

        return action

    def check(number: int) -> None:
        outcomes.add(len(require_whole(source.parent / "workspace", ([1], [1, 2]))))

    assert harness.kill_in_fork(prepare, check, steps=PATCHES) > 20
    assert 1 in outcomes


def test_a_download_killed_at_any_step(
    fresh: Callable[[], Path], source: Path, tmp_path: Path
) -> None:
    place, dest = fresh(), tmp_path / "out" / "model"
    with Registry(place) as registry:
        registry.models.register("iris", source, prepared={})

    def prepare() -> Callable[[], None]:
        shutil.rmtree(dest, ignore_errors=True)

        def action() -> None:
            with Registry(place) as registry:
                registry.models.download("iris", dest)

        return action

    def check(number: int) -> None:
        if dest.exists():
            assert (dest / "source" / "a").read_bytes() == NEW
            assert (dest / "source" / "b").read_bytes() == b"small"

    harness.kill_in_fork(prepare, check)
    prepare()()  # and the next one clears what the killed ones left
    assert names_in(dest.parent) == ["model"]


def test_an_activation_killed_at_any_step(fresh: Callable[[], Path], tmp_path: Path) -> None:
    template = tmp_path / "deployed"

    def prepare() -> Callable[[], None]:
        place = fresh()
        if not template.exists():
            with Registry(place) as registry:
                package = registry.packages.register(
                    b"{}", [], model="iris", model_version=1, environment=None, platform="p"
                )
                for number in (1, 2):
                    registry.deployments.create_revision(
                        "web", target="local", package=package.digest
                    )
                    if number == 1:
                        registry.deployments.activate("web", 1)
            shutil.copytree(place, template)
        shutil.rmtree(place)
        shutil.copytree(template, place)

        def action() -> None:
            with Registry(place) as registry:
                registry.deployments.activate("web", 2)

        return action

    def check(number: int) -> None:
        with Registry(tmp_path / "workspace") as registry:
            found = registry.deployments.get("web")
        states = [revision.state for revision in found.revisions]
        assert (found.active, states) in (
            (1, ["active", "pending"]),
            (2, ["superseded", "active"]),
        )
        assert found.desired == "running"

    assert harness.kill_in_fork(prepare, check, steps=PATCHES) > 5
