"""The files that the workers of one server share."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from scoring.errors import CorruptModelError
from serve.server.models.folder import MANIFEST, STATE, Entry, Manifest, ModelFolder


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    (tmp_path / "shelf" / "two").mkdir(parents=True)
    (tmp_path / "shelf" / ".hidden").mkdir()
    (tmp_path / "shelf" / "file").touch()
    manifest = Manifest(("prepare",), names=("one",), repository=str(tmp_path / "shelf"))
    (tmp_path / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return ModelFolder(tmp_path)


def test_names_are_those_of_the_manifest_and_of_the_repository(folder: ModelFolder) -> None:
    assert ModelFolder.is_one(folder.root)
    assert folder.names() == ["one", "two"]
    (folder.root / "shelf" / "three").mkdir()
    assert folder.names() == ["one", "three", "two"]


def test_each_change_counts_up_and_can_be_seen(folder: ModelFolder) -> None:
    assert folder.state().generation == 0
    seen = {folder.stamp()}
    for number in (1, 2):
        with folder.locked():
            folder.change("one", Entry({str(number): f"models/one/{number}"}))
        seen.add(folder.stamp())
    assert folder.state().generation == 2
    assert folder.state().models["one"].versions == {"2": "models/one/2"}
    assert len(seen) == 3


def test_workers_that_are_behind_are_named_and_dead_ones_forgotten(folder: ModelFolder) -> None:
    folder.acknowledge(3)
    assert folder.lagging(3) == []
    assert folder.lagging(4) == [os.getpid()]
    (folder.root / "acks" / "999999999").write_text("0")
    assert folder.lagging(3) == []
    assert not (folder.root / "acks" / "999999999").exists()


def test_a_damaged_state_is_told(folder: ModelFolder) -> None:
    (folder.root / STATE).write_text("{")
    with pytest.raises(CorruptModelError, match=STATE):
        folder.state()
