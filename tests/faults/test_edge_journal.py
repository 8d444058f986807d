"""The journal and the blobs of a device, killed at every write and on disks that are full."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.agent.blobs import DeviceBlobs
from edge.agent.journal import Journal
from scoring import digest as digests
from tests.faults import harness

PROGRAM = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    import msgspec
    from edge.agent.blobs import DeviceBlobs
    from edge.agent.journal import Journal
    from edge.agent.states import DeviceState, Track
    from edge.protocol.messages import Desired, Module
    folder = Path(sys.argv[1])
    one = Module(package="sha256:" + "1" * 64)
    with Journal(folder) as journal:
        for generation in range(1, 6):
            state = DeviceState(
                desired=Desired(site="s", device="d", generation=generation, issued_at=0.0),
                tracks={"m": Track(wanted=one, attempt=generation)},
            )
            journal.save(state)
            with open(folder / "said", "ab", buffering=0) as said:
                said.write(b"%d\\n" % generation)
            data = b"%d" % generation * 100000
            DeviceBlobs(folder).put_bytes(data)
    """
)


def prepared(tmp_path: Path) -> tuple[harness.Argv, list[Path]]:
    folders: list[Path] = []

    def argv() -> Sequence[str | Path]:
        folders.append(tmp_path / str(len(folders)))
        folders[-1].mkdir()
        (folders[-1] / "said").touch()
        return [sys.executable, "-c", PROGRAM, folders[-1]]

    return argv, folders


def require_sound(folder: Path) -> int:
    """What was said to be saved is there, whole; returns the number of saves that are."""
    said = len((folder / "said").read_bytes().splitlines())
    with Journal(folder) as journal:
        assert journal.damage == ""
        generation = journal.state.generation
        assert said <= generation <= said + 1
        if generation:
            assert journal.state.tracks["m"].attempt == generation
        journal.set_note("works", "again")
    blobs = DeviceBlobs(folder)
    for digest in blobs.digests():
        assert digests.of_bytes(blobs.path(digest).read_bytes()) == digest
    assert not list(blobs.arriving.iterdir())
    return generation


def test_killed_at_every_write(tmp_path: Path) -> None:
    argv, folders = prepared(tmp_path)
    seen: set[int] = set()
    harness.kill_at_each_write(argv, lambda _: seen.add(require_sound(folders[-1])), sample=14)
    assert seen


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_writes_that_fail(tmp_path: Path, error: str) -> None:
    argv, folders = prepared(tmp_path)

    def check(_: harness.Step, code: int) -> None:
        assert code in {0, 1}
        require_sound(folders[-1])

    harness.fail_at_each_write(argv, check, error=error, sample=8)
