"""Telemetry of many devices into the controller's durable store, on one core."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.results import Row
from edge.protocol.messages import Ack
from edge.protocol.topics import Topic, of_class
from edge.telemetry.ingest import Quota
from edge.telemetry.service import TelemetryService
from edge.telemetry.spool import Batch, Spool

_AT_LEAST = 10_000.0
_RECORD = {
    "requests": 1250, "failed": 3, "p50_s": 0.0021, "p99_s": 0.0193, "in_flight": 2,
    "model": "detect", "version": 2, "cpu": 0.37, "rss_mib": 143.5,
}  # fmt: skip


def batches(folder: Path, devices: int, each: int) -> list[tuple[str, Batch]]:
    """What devices send: made by their own spools, in the order of a fleet that talks at once."""
    found: list[list[tuple[str, Batch]]] = []
    for number in range(devices):
        name = f"device-{number:04}"
        with Spool(folder / name, name) as spool:
            spool.put_many(
                ("metric", "requests", _RECORD | {"number": one}, None) for one in range(each)
            )
            mine: list[tuple[str, Batch]] = []
            after = 0
            while batch := spool.next("metric", after):
                mine.append((name, batch))
                after = batch.last
            found.append(mine)
    return [one for turn in zip(*found, strict=False) for one in turn]


def rows(folder: Path, *, quick: bool) -> list[Row]:
    """Records a second, each on the disk before it is acknowledged."""
    devices, each = (4, 500) if quick else (100, 2000)
    sent = batches(folder / "spools", devices, each)
    total = sum(len(batch.seqs) for _, batch in sent)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        quota = Quota(per_s=1e9, burst=1e9)
        with TelemetryService(folder / "store", quota=quota) as service:
            seconds, used = _take(service, sent)
            stored = sum(one.records for one in service.store.inbox.stored(0, 1_000_000))
            sealed_s = _sealed(service)
    finally:
        os.sched_setaffinity(0, cores)
    assert stored == total, (stored, total)
    rate = total / seconds
    return [
        Row(
            work="telemetry into the durable store",
            unit="records/s",
            ours=rate,
            target=f"at least {_AT_LEAST:.0f} on one core",
            reached=rate >= _AT_LEAST,
            processor={"ours": total / used},
            notes=f"{total} records of {devices} devices in {len(sent)} messages, each synced "
            f"before it is acknowledged; then {sealed_s:.2f} s to write them as Parquet.",
        )
    ]


def _take(service: TelemetryService, sent: list[tuple[str, Batch]]) -> tuple[float, float]:
    begun, used = time.perf_counter(), time.process_time()
    for name, batch in sent:
        ack = service.take(Topic("default", name, of_class(batch.name)), batch.payload)
        assert isinstance(ack, Ack)
    return time.perf_counter() - begun, time.process_time() - used


def _sealed(service: TelemetryService) -> float:
    begun = time.perf_counter()
    while service.store.seal():
        pass
    return time.perf_counter() - begun
