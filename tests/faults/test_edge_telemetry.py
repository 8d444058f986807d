"""Telemetry under SIGKILL and on a full disk: what was promised is there, once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.protocol.messages import Record, Telemetry, decode, encode_compressed
from edge.protocol.topics import topic
from edge.telemetry.inbox import Inbox
from edge.telemetry.ingest import Ingest
from edge.telemetry.received import unpack
from edge.telemetry.spool import Spool
from edge.telemetry.store import Store
from scoring.errors import StorageFullError

_PUT = """
import sys
from pathlib import Path
from edge.telemetry.spool import Spool
spool = Spool(Path(sys.argv[1]), "cam-1")
for turn in range(10**9):
    assert spool.put("metric", "requests", {"turn": turn, "text": "x" * 300})
    print(spool.epoch, turn, flush=True)
    if turn % 50 == 49:
        spool.tend()
"""
_TAKE = """
import sys
from pathlib import Path
from edge.protocol.messages import Record, Telemetry, encode_compressed
from edge.protocol.topics import topic
from edge.telemetry.ingest import Ingest
from edge.telemetry.store import Store
store = Store(Path(sys.argv[1]))
ingest = Ingest(store.inbox)
print("ready", flush=True)
for first in range(0, 10**9, 5):
    records = tuple(Record(seq=n, at=1.0, kind="k") for n in range(first, first + 5))
    message = Telemetry(device="cam-1", epoch=sys.argv[2], records=records)
    ack = ingest.take(topic("s", "cam-1", "tele/metric"), encode_compressed(message))
    print(sys.argv[2], ack.ranges[0][1], flush=True)
    if first % 100 == 95:
        store.seal()
"""


def killed(code: str, arguments: list[str], after_s: float) -> list[str]:
    """What a process said until it was killed."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=root,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(after_s)  # a moment that nobody chooses is the test
    process.send_signal(signal.SIGKILL)
    lines = [first, *process.stdout.read().splitlines()]
    process.wait()
    process.stdout.close()
    return [line.strip() for line in lines if line.strip() and line.strip() != "ready"]


def test_what_was_put_outlives_sigkill(tmp_path: Path) -> None:
    source = random.Random(5)
    promised: set[tuple[str, int]] = set()
    for _ in range(6):
        lines = killed(_PUT, [str(tmp_path / "spool")], source.random() * 0.3)
        promised |= {(line.split()[0], int(line.split()[1])) for line in lines[:-1]}
    found: list[tuple[str, int]] = []
    with Spool(tmp_path / "spool", "cam-1") as spool:
        assert spool.counts().damaged == 0
        for batch in spool.batches(10_000):
            message = decode(batch.payload, Telemetry)
            found += [(message.epoch, record.seq) for record in message.records]
    assert len(found) == len(set(found))
    assert promised <= set(found)
    assert len(promised) > 20


def test_what_was_acknowledged_is_stored_once_whatever_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    source = random.Random(6)
    acknowledged: dict[str, int] = {}
    for turn in range(6):
        lines = killed(_TAKE, [str(tmp_path / "t"), f"e{turn}"], 0.1 + source.random() * 0.5)
        whole = [line.split() for line in lines if len(line.split()) == 2]
        if whole:
            acknowledged[f"e{turn}"] = max(int(number) for _, number in whole[:-1] or whole)
    with Store(tmp_path / "t") as store:
        store.seal()
        rows = store.query("SELECT epoch, seq FROM records").rows
        left = [path.name for path in (tmp_path / "t" / "records").iterdir()]
        with store.inbox.transaction(write=False):
            assert sorted(left) == sorted(file.name for file in store.inbox.files())
    assert len(rows) == len(set(rows))
    assert {(epoch, n) for epoch, last in acknowledged.items() for n in range(last + 1)} <= {*rows}
    assert acknowledged


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("mount is not installed")
    if done.returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def _take_for_ever(ingest: Ingest, acknowledged: list[int]) -> None:
    for seq in range(10**6):
        data = {"text": random.Random(seq).randbytes(4000).hex()}
        record = Record(seq=seq, at=1.0, kind="k", data=data)
        message = Telemetry(device="cam-1", epoch="e", records=(record,))
        ack = ingest.take(topic("s", "cam-1", "tele/debug"), encode_compressed(message))
        assert ack is not None
        acknowledged.append(seq)


def test_a_full_disk_loses_no_alarm_and_ends_nothing(small_disk: Path) -> None:
    now = [0.0]
    with Spool(small_disk / "spool", "cam-1", steady=lambda: now[0]) as spool:
        for turn in range(50):
            spool.put("debug", "log", {"turn": turn, "text": "x" * 2000})
        (small_disk / "filler").write_bytes(b"\0" * (900 << 10))
        _fill(small_disk / "rest")
        for turn in range(400):
            now[0] += 1
            spool.put("alarm", "module", {"turn": turn, "text": "y" * 500})
        assert spool.counts().trouble
        held = {
            record.data["turn"]
            for batch in spool.batches(999)
            if batch.name == "alarm"
            for record in decode(batch.payload, Telemetry).records
        }
        lost = spool.counts().dropped.get("alarm", 0)
        assert len(held) + lost == 400
        assert 399 in held
        (small_disk / "filler").unlink()
        (small_disk / "rest").unlink()
        now[0] += 60
        assert spool.put("alarm", "module", {"turn": 400})
        spool.tend()
        assert spool.counts().trouble == ""
    with Spool(small_disk / "spool", "cam-1") as spool:
        turns = {
            record.data["turn"]
            for batch in spool.batches(999)
            if batch.name == "alarm"
            for record in decode(batch.payload, Telemetry).records
        }
    assert held | {400} <= turns


def test_a_full_disk_acknowledges_nothing_that_is_not_there(small_disk: Path) -> None:
    acknowledged: list[int] = []
    with Inbox(small_disk / "t") as inbox:
        with pytest.raises(StorageFullError):
            _take_for_ever(Ingest(inbox), acknowledged)
        with inbox.transaction(write=False):
            stored = [r.seq for one in inbox.stored(0, 10**6) for r in unpack(one.body).records]
    assert stored == acknowledged
    assert len(acknowledged) > 10
