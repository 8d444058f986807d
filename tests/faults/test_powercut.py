"""The model of a disk whose power goes: it has to find what was not synced."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from tests.faults.harness import require_strace
from tests.support import powercut

WRITE = """
import os, sys
folder = sys.argv[1]
os.mkdir(folder + "/sub")
for number in range(3):
    fd = os.open(folder + "/sub/new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, b"%d" % number * 2000)
    if "file" in sys.argv:
        os.fsync(fd)
    os.close(fd)
    os.rename(folder + "/sub/new", folder + "/sub/file")
    if "folder" in sys.argv:
        for one in (folder + "/sub", folder):
            fd = os.open(one, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
    os.write(1, b"%d" % number)
"""


def left(tmp_path: Path, *words: str) -> set[tuple[str, str]]:
    """What was found wrong: how, and what."""
    require_strace()
    root = tmp_path / "-".join(("root", *words))
    root.mkdir()
    argv: list[str | Path] = [sys.executable, "-c", WRITE, root, *words]
    run = powercut.record(argv, root, tmp_path / "log")
    wrong: set[tuple[str, str]] = set()
    chance = random.Random(1)
    for number, moment in enumerate(powercut.moments(run)):
        for how in powercut.HOWS:
            folder = tmp_path / f"{root.name}-{number}-{how}"
            powercut.leave(moment, folder, how, chance)
            file = folder / "sub" / "file"
            if not file.exists():
                if moment.said:
                    wrong.add((how, "gone"))
            elif len(set(file.read_bytes())) != 1 or file.stat().st_size != 2000:
                wrong.add((how, "torn"))
            elif moment.said and file.read_bytes()[0] < moment.said[-1]:
                wrong.add((how, "old"))
    return wrong


def test_what_syncs_everything_is_found_right(tmp_path: Path) -> None:
    assert left(tmp_path, "file", "folder") == set()


def test_names_that_were_not_synced_are_lost(tmp_path: Path) -> None:
    assert ("synced", "gone") in left(tmp_path, "file")


def test_bytes_that_were_not_synced_are_lost(tmp_path: Path) -> None:
    assert ("names", "torn") in left(tmp_path, "folder")
