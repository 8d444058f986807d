"""The journal: what was saved is there after restarts, damage and full disks."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edge.agent import journal as j
from edge.agent.journal import Journal
from edge.agent.states import DeviceState, Track
from edge.protocol.messages import Desired, Failure, Module
from scoring.errors import InUseError, StorageFullError

ONE = Module(package=f"sha256:{1:064x}", release=1)
TWO = Module(package=f"sha256:{2:064x}", release=2)


def state(generation: int = 1, **changes: object) -> DeviceState:
    track = msgspec.structs.replace(
        Track(phase="good", wanted=ONE, active=ONE, good=ONE, attempt=generation), **changes
    )
    desired = Desired(
        site="s", device="d", generation=generation, issued_at=1.0, modules={"m": ONE}
    )
    return DeviceState(desired=desired, tracks={"m": track}, floors={"m": 1})


def test_what_was_saved_is_there(tmp_path: Path) -> None:
    with Journal(tmp_path / "deep" / "state") as journal:
        assert (journal.state, journal.boot, journal.damage) == (DeviceState(), 1, "")
        journal.save(state())
        journal.set_note("key", "text")
    with Journal(tmp_path / "deep" / "state") as journal:
        assert (journal.state, journal.boot, journal.damage) == (state(), 2, "")
        assert journal.note("key") == "text"


def test_one_agent_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(InUseError, match="Another agent"):
        Journal(tmp_path)
    Journal(tmp_path).close()


def test_notes(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for key in ("a.1", "a.2", "b", "a%"):
            journal.set_note(key, key.upper())
        journal.set_note("a.1", "é")
        assert journal.notes("a.") == {"a.1": "é", "a.2": "A.2"}
        journal.drop_note("a.1")
        journal.drop_note("never")
        assert journal.note("a.1") is None
        assert journal.notes("a") == {"a.2": "A.2", "a%": "A%"}


def test_the_history_tells_what_changed_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(j, "MOST_HISTORY", 150)
    with Journal(tmp_path, clock=lambda: 7.0) as journal:
        for attempt in range(400):
            journal.save(state(attempt=attempt))
        journal.save(state(attempt=0, phase="failed", failure=Failure(code="c", message="m")))
        journal.save(DeviceState())
        lines = journal.history()
        assert 150 <= len(lines) <= 250
    *_, failed, gone = lines
    assert (failed.phase, failed.failure, failed.active) == ("failed", "c: m", ONE.package)
    assert (gone.module, gone.phase, gone.active, gone.at, gone.boot) == ("m", "gone", "", 7.0, 1)


def alter(folder: Path, statement: str) -> None:
    db = sqlite3.connect(folder / j.FILE)
    db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: alter(p, "UPDATE rows SET value = replace(value, 'good', 'goof')"),
        lambda p: alter(p, "UPDATE rows SET digest = 'x' WHERE key = 'state'"),
        lambda p: alter(p, "DELETE FROM rows"),
        lambda p: (p / j.FILE).write_bytes(b"no database at all" * 100),
        lambda p: (p / j.FILE).write_bytes((p / j.FILE).read_bytes()[:4096]),
        lambda p: (p / j.FILE).write_bytes(b""),
        lambda p: (p / j.FILE).unlink(),
    ],
    ids=["value", "digest", "rows", "garbage", "cut", "empty", "gone"],
)
def test_a_damaged_journal_starts_from_its_copy(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    with Journal(tmp_path) as journal:
        journal.save(state(3))
        boot = journal.boot
    damage(tmp_path)
    with Journal(tmp_path) as journal:
        assert journal.state == state(3)
        assert "copy" in journal.damage
        assert journal.boot > boot
        boot = journal.boot
        journal.save(state(4))
    with Journal(tmp_path) as journal:
        assert (journal.state, journal.damage) == (state(4), "")
        assert journal.boot == boot + 1


def test_without_a_copy_it_begins_anew(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.save(state(3))
    (tmp_path / j.COPY).write_bytes(b"x")
    (tmp_path / j.FILE).write_bytes(b"no database at all" * 100)
    with Journal(tmp_path) as journal:
        assert journal.state == DeviceState()
        assert journal.damage
    assert (tmp_path / f"{j.FILE}.damaged").exists()


def test_a_damaged_copy_does_no_harm(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.save(state(3))
    (tmp_path / j.COPY).write_bytes(b"x")
    with Journal(tmp_path) as journal:
        assert (journal.state, journal.damage) == (state(3), "")
        journal.save(state(4))
    assert (tmp_path / j.COPY).stat().st_size > 100


def test_every_flipped_bit_is_noticed_or_does_no_harm(tmp_path: Path) -> None:
    """One bit in each of many places: what starts is what was saved, or what the copy has."""
    with Journal(tmp_path / "original") as journal:
        journal.save(state(1))
        journal.save(state(2))
    drawn = random.Random(5)
    size = (tmp_path / "original" / j.FILE).stat().st_size
    for number in range(60):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "original", folder)
        data = bytearray((folder / j.FILE).read_bytes())
        data[drawn.randrange(size)] ^= 1 << drawn.randrange(8)
        (folder / j.FILE).write_bytes(data)
        with Journal(folder) as journal:
            assert journal.state == state(2)
            journal.save(state(3))
        with Journal(folder) as journal:
            assert journal.state == state(3)


def test_a_full_disk_takes_the_room_that_was_kept_back(tmp_path: Path) -> None:
    asked: list[int] = []
    with Journal(tmp_path) as journal:
        journal.save(state(1))
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]

    def make_room() -> bool:
        asked.append(1)
        journal._db.execute("PRAGMA max_page_count = 100000")
        return True

    with Journal(tmp_path, make_room=make_room) as journal:
        journal._db.execute(f"PRAGMA max_page_count = {pages}")
        journal.set_note("large", "x" * 100_000)
        assert asked == [1]
        limit = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._make_room = lambda: False
        journal._db.execute(f"PRAGMA max_page_count = {limit}")
        with pytest.raises(StorageFullError, match="Nothing was changed"):
            journal.set_note("larger", "x" * 1_000_000)
        assert journal.note("large") == "x" * 100_000
        assert journal.note("larger") is None
        journal.save(state(2))
    with Journal(tmp_path) as journal:
        assert journal.state == state(2)
