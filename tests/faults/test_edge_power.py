"""The power goes at any moment: what a device said that it had kept is there, whole or not at all.

See `tests/support/powercut.py` for what a disk may hold then. By default a sample of the moments is
tried; with FIELDPOST_TEST_LONG=1 every one, each in all ways.
"""

from __future__ import annotations

import random
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.agent.blobs import DeviceBlobs
from edge.agent.journal import Journal
from edge.protocol.messages import Telemetry, decode
from edge.security.trust import DeviceTrust
from edge.telemetry.inbox import Inbox
from edge.telemetry.received import unpack
from edge.telemetry.spool import Spool
from scoring import digest as digests
from scoring.errors import RollbackError
from tests.faults.harness import LONG, require_strace
from tests.support import powercut
from tests.support.fleettrust import Fleet

SAMPLE = 45

JOURNAL = """
    import sys
    from pathlib import Path
    from edge.agent.blobs import DeviceBlobs
    from edge.agent.journal import Journal
    from edge.agent.states import DeviceState, Track
    from edge.protocol.messages import Desired, Module
    folder = Path(sys.argv[1])
    one = Module(package="sha256:" + "1" * 64)
    with Journal(folder) as journal:
        for generation in range(1, 5):
            journal.save(DeviceState(
                desired=Desired(site="s", device="d", generation=generation, issued_at=0.0),
                tracks={"m": Track(wanted=one, attempt=generation, active=one)},
            ))
            print("saved", generation, flush=True)
            journal.set_note("n", str(generation))
            print("noted", generation, flush=True)
            found = DeviceBlobs(folder).put_bytes(b"%d" % generation * 9000)
            print("blob", found.digest, flush=True)
"""

SPOOL = """
    import sys
    from pathlib import Path
    from edge.telemetry.spool import Spool
    for opening in range(2):
        with Spool(Path(sys.argv[1]) / "spool", "cam") as spool:
            for turn in range(6):
                assert spool.put("metric", "requests", {"turn": turn, "text": "x" * 300})
                print(spool.epoch, turn, flush=True)
            spool.tend()
"""

INBOX = """
    import sys
    from pathlib import Path
    from edge.protocol.messages import Record, Telemetry, encode_compressed
    from edge.protocol.topics import topic
    from edge.telemetry.inbox import Inbox
    from edge.telemetry.ingest import Ingest
    with Inbox(Path(sys.argv[1]) / "t") as inbox:
        ingest = Ingest(inbox)
        for first in range(0, 24, 4):
            records = tuple(Record(seq=n, at=1.0, kind="k") for n in range(first, first + 4))
            message = Telemetry(device="cam", epoch="e", records=records)
            ack = ingest.take(topic("s", "cam", "tele/metric"), encode_compressed(message))
            print("acked", ack.ranges[0][1], flush=True)
"""

TRUST = """
    import shutil, sys
    from pathlib import Path
    from edge.security.trust import DeviceTrust
    place = Path(sys.argv[1])
    source = Path(sys.argv[2])
    def fetch(name, most):
        path = source / "metadata" / name
        return path.read_bytes() if path.exists() else None
    own = DeviceTrust(place, site="hall", device="camera", root=(source / "root.json").read_bytes())
    for number in (1, 2, 3):
        wish = (source / f"wish-{number}").read_bytes()
        own.verify(wish, float((source / "now").read_text()), fetch)
        print("took", number, flush=True)
"""


def cut_at_many_moments(
    program: str, tmp_path: Path, check: Callable[[Path, list[list[str]]], None], *more: Path
) -> int:
    """Runs a program once, and checks what power cuts leave; how many were tried."""
    require_strace()
    root = tmp_path / "ran"
    root.mkdir()
    argv: list[str | Path] = [sys.executable, "-c", textwrap.dedent(program), root, *more]
    run = powercut.record(argv, root, tmp_path / "log")
    chance = random.Random(606)
    found = sum(1 for _ in powercut.moments(run))
    assert found > 20, "nothing was recorded"
    wanted = set(range(found)) if LONG else set(chance.sample(range(found), min(SAMPLE, found)))
    wanted.add(found - 1)
    tried = 0
    for number, moment in enumerate(powercut.moments(run)):
        if number not in wanted:
            continue
        for how in powercut.HOWS if LONG else (chance.choice(powercut.HOWS),):
            left = tmp_path / f"left-{number}-{how}"
            powercut.leave(moment, left, how, chance)
            said = [line.split() for line in moment.said.decode().splitlines()]
            try:
                check(left, said)
            except Exception as error:
                raise AssertionError(f"after {moment.call}, {how}: {left}, {said[-3:]}") from error
            tried += 1
    return tried


def last(said: list[list[str]], word: str) -> int:
    return max((int(line[1]) for line in said if line[0] == word), default=0)


def test_the_journal_and_the_blobs(tmp_path: Path) -> None:
    def check(left: Path, said: list[list[str]]) -> None:
        with Journal(left) as journal:
            assert journal.damage == ""
            saved = journal.state.generation
            assert last(said, "saved") <= saved <= last(said, "saved") + 1
            noted = int(journal.note("n") or 0)
            assert last(said, "noted") <= noted <= last(said, "noted") + 1
            journal.set_note("works", "again")
        blobs = DeviceBlobs(left)
        for digest in blobs.digests():
            assert digests.of_bytes(blobs.path(digest).read_bytes()) == digest
        assert {line[1] for line in said if line[0] == "blob"} <= set(blobs.digests())

    assert cut_at_many_moments(JOURNAL, tmp_path, check) >= SAMPLE


def test_the_spool_of_telemetry(tmp_path: Path) -> None:
    def check(left: Path, said: list[list[str]]) -> None:
        with Spool(left / "spool", "cam") as spool:
            assert spool.counts().damaged == 0
            found = [
                (message.epoch, record.seq)
                for batch in spool.batches(1000)
                for message in [decode(batch.payload, Telemetry)]
                for record in message.records
            ]
            assert len(found) == len(set(found))
            assert {(epoch, int(turn)) for epoch, turn in said} <= set(found)
            assert spool.put("alarm", "works", {"again": True})

    assert cut_at_many_moments(SPOOL, tmp_path, check) >= SAMPLE


def test_what_the_controller_has_acknowledged(tmp_path: Path) -> None:
    def check(left: Path, said: list[list[str]]) -> None:
        with Inbox(left / "t") as inbox:
            with inbox.transaction(write=False):
                stored = [r.seq for one in inbox.stored(0, 10**6) for r in unpack(one.body).records]
            assert len(stored) == len(set(stored))
            acked = max((int(line[1]) for line in said), default=-1)
            assert set(range(acked + 1)) <= set(stored)

    assert cut_at_many_moments(INBOX, tmp_path, check) >= SAMPLE


def test_whom_the_device_believes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    fleet = Fleet(source / "metadata")
    (source / "root.json").write_bytes(fleet.repository.root(1))
    (source / "now").write_text(str(fleet.clock()))
    wishes = {}
    for number in (1, 2, 3):
        wishes[number] = fleet.wish(number, fleet.permit(f"v{number}"))
        (source / f"wish-{number}").write_bytes(wishes[number])

    def check(left: Path, said: list[list[str]]) -> None:
        left.chmod(0o700)
        device = DeviceTrust(left, site="hall", device="camera", root=fleet.repository.root(1))
        taken = last(said, "took")
        for number in range(1, taken):  # older than what was taken on
            with pytest.raises(RollbackError):
                device.verify(wishes[number], fleet.clock(), fleet.fetch)
        assert device.verify(wishes[3], fleet.clock(), fleet.fetch).generation == 3

    assert cut_at_many_moments(TRUST, tmp_path, check, source) >= 20
