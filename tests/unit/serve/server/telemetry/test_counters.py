"""Cells and their directory."""

from __future__ import annotations

import os

import pytest

from serve.server.telemetry import families as f
from serve.server.telemetry.counters import OTHER, SIZE, Cells, NoRoomError


def test_a_block_is_found_again() -> None:
    cells = Cells.in_memory()
    first = cells.block(f.REJECTED, "overloaded")
    assert cells.block(f.REJECTED, "overloaded") == first
    assert cells.block(f.REJECTED, "unauthorized") != first


def test_blocks_do_not_overlap() -> None:
    cells = Cells.in_memory()
    taken: set[int] = set()
    for number in range(50):
        for family in f.COUNTED:
            first = cells.block(family, *(f"{label}{number}" for label in family.labels))
            mine = set(range(first, first + family.width))
            if family.labels:
                assert not mine & taken
            taken |= mine


def test_a_reader_sees_what_the_writer_adds() -> None:
    memory = bytearray(SIZE)
    writer, reader = Cells(memoryview(memory)), Cells(memoryview(memory).toreadonly())
    before = reader.valid
    writer.begin(os.getpid(), 7)
    assert (before, reader.valid) == (False, True)
    assert (reader.pid, reader.ticks) == (os.getpid(), 7)
    assert reader.born > 0
    for reason in ('a"b\n', "ü", "c"):
        writer.values[writer.block(f.REJECTED, reason)] += 3
        reader.refresh()
        first = reader.blocks[f.REJECTED, (reason,)]
        assert reader.read(f.REJECTED, first) == [3.0]


def test_a_successor_goes_on_with_counters_and_begins_gauges_anew() -> None:
    memory = memoryview(bytearray(SIZE))
    one = Cells(memory)
    one.begin(1, 1)
    one.values[one.block(f.REJECTED, "overloaded")] = 5
    one.values[one.block(f.QUEUE, "m", "1")] = 9
    two = Cells(memory)
    two.begin(2, 2)
    assert two.pid == 2
    assert two.born == one.born
    assert two.values[two.block(f.REJECTED, "overloaded")] == 5
    assert two.values[two.block(f.QUEUE, "m", "1")] == 0


def test_labels_are_cut_and_made_fit_for_every_reader() -> None:
    cells = Cells.in_memory()
    cells.block(f.REJECTED, "\ud800" + "x" * 500)
    ((_, (label,)),) = cells.blocks
    assert label == "?" + "x" * 127


def test_there_is_always_room_for_other() -> None:
    cells = Cells.in_memory()

    def fill() -> None:
        for number in range(100_000):
            cells.block(f.DURATION, str(number), "1", "v2")

    with pytest.raises(NoRoomError):
        fill()
    assert len(cells.blocks) > 1000
    cells.values[cells.block(f.DURATION, OTHER, "", "v2")] += 1
    with pytest.raises(NoRoomError):
        cells.block(f.DURATION, "one more", "1", "v2")


def test_lines_that_this_version_does_not_know_are_passed_over() -> None:
    memory = bytearray(SIZE)
    writer = Cells(memoryview(memory))
    writer.begin(1, 1)
    lines = [b"[]", b'["no_such",["a"],20]', b"{", b'["fieldpost_rejected",["a"],-1]',
             b'["fieldpost_rejected",["a"],99999999]', b'["fieldpost_rejected",["a","b"],20]',
             b'["fieldpost_rejected","a",20.5]', b'["fieldpost_rejected",["good"],20]']  # fmt: skip
    text = b"\n".join(lines) + b"\n"
    directory = 98_304 * 8
    memory[directory : directory + len(text)] = text
    writer.values[2] = len(text)
    reader = Cells(memoryview(memory))
    reader.refresh()
    assert reader.blocks == {(f.REJECTED, ("good",)): 20}
