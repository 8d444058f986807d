from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serve.registry.collector import Collector
from serve.registry.database import Database
from serve.registry.records import Freed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve.registry import Registry


@pytest.fixture
def collector(registry: Registry) -> Iterator[Collector]:
    with Database(registry.location) as database:
        yield Collector(database, registry.blobs)


def test_a_store_in_use_is_left_to_a_later_sweep(registry: Registry, collector: Collector) -> None:
    stray = registry.blobs.put_bytes(b"stray")
    with registry.blobs.hold():
        assert collector.free([stray.digest], patience_s=0.05) == Freed()
        assert collector.collect(patience_s=0.05) == Freed()
    assert registry.blobs.has(stray.digest)
    assert collector.free([stray.digest]) == Freed(blobs=1, size=5)


def test_nothing_to_free_takes_no_lock(registry: Registry, collector: Collector) -> None:
    with registry.blobs.hold():
        assert collector.free([]) == Freed()
