"""Cells of doubles with a directory that names them, in a worker's memory or in a shared file.

Layout of the memory: a header of 16 cells, the cells, and then the directory: one line of JSON,
`[family, [label, ...], first cell]`, for each block of cells. A block, once there, never moves. A
writer adds the line first and its length second, so that a reader, who may be another process,
sees whole lines only. Cells are aligned doubles, written in one piece by their one writer.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Any

import orjson

from serve.server.telemetry.families import COUNTED, Family

MAGIC = b"FPCELLS1"
_CELLS = 98_304
_CELL_BYTES = 8
_DIRECTORY = _CELLS * _CELL_BYTES
SIZE = 1 << 20
"""Of the memory, in bytes: about a thousand combinations of model, version and protocol."""

_NEXT, _LISTED, _PID, _TICKS, _BORN = range(1, 6)
_FIRST = 16
_LONGEST_LABEL = 128
_SPARED = 16_384
"""Cells, and bytes of the directory, that are only for `OTHER`."""
OTHER = "other"
"""The label that stands for all those for which there is no room any more."""
_FAMILIES = {family.name: family for family in COUNTED}

Labels = tuple[str, ...]
Key = tuple[Family, Labels]


class NoRoomError(Exception):
    """There are as many metrics as there may be."""


class Cells:
    """The cells of one worker, as their writer or as a reader.

    Args:
        memory: `SIZE` bytes, zeros where nothing has been counted yet.

    Attributes:
        values: The doubles; what counts does `values[cell] += 1.0`.
        blocks: The first cell of each block that has been seen.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._parsed = 0
        self.values: memoryview[float] = memory[:_DIRECTORY].cast("d")
        self.blocks: dict[Key, int] = {}

    @classmethod
    def in_memory(cls) -> Cells:
        """Cells that no other process sees."""
        # Unlike a bytearray, only what is used of it takes memory; a forked child has its own.
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        cells = cls(memoryview(mmap.mmap(-1, SIZE, flags=private)))
        cells.begin(os.getpid(), 0)
        return cells

    @property
    def valid(self) -> bool:
        """Whether this is such memory at all, in the layout of this version."""
        return bytes(self._memory[: len(MAGIC)]) == MAGIC

    @property
    def pid(self) -> int:
        """Of the process that writes, or wrote, here."""
        return int(self.values[_PID])

    @property
    def ticks(self) -> int:
        """When that process started, as the kernel counts; 0 where it does not say."""
        return int(self.values[_TICKS])

    @property
    def born(self) -> float:
        """When counting began here, in seconds since the epoch."""
        return self.values[_BORN]

    def begin(self, pid: int, ticks: int) -> None:
        """Takes the cells over for a process: counters go on, gauges begin anew."""
        values = self.values
        if not self.valid:
            values[_NEXT], values[_BORN] = _FIRST, time.time()
        self.refresh()
        for (family, _), first in self.blocks.items():
            if family.kind == "gauge":
                values[first] = 0.0
        values[_PID], values[_TICKS] = pid, ticks
        self._memory[: len(MAGIC)] = MAGIC

    def block(self, family: Family, *labels: str) -> int:
        """The first cell of a family's samples with these labels.

        Raises:
            NoRoomError: There is no room for another block; there always is for `OTHER`.
        """
        key = family, tuple(_text(label) for label in labels)
        first = self.blocks.get(key)
        if first is None:
            first = self.blocks[key] = self._add(*key)
        return first

    def refresh(self) -> None:
        """Reads what has been added to the directory since the last time."""
        end = _DIRECTORY + min(int(self.values[_LISTED]), SIZE - _DIRECTORY)
        lines = bytes(self._memory[_DIRECTORY + self._parsed : end])
        self._parsed += len(lines)
        for line in lines.splitlines():
            entry = _parse(line)
            if entry is not None:
                key, first = entry
                self.blocks[key] = first

    def read(self, family: Family, first: int) -> list[float]:
        """The values of a block."""
        return list(self.values[first : first + family.width])

    def _add(self, family: Family, labels: Labels) -> int:
        values = self.values
        first, listed = int(values[_NEXT]), int(values[_LISTED])
        line = orjson.dumps([family.name, labels, first]) + b"\n"
        begin = _DIRECTORY + listed
        spared = 0 if OTHER in labels else _SPARED
        if first + family.width > _CELLS - spared or begin + len(line) > SIZE - spared:
            raise NoRoomError
        self._memory[begin : begin + len(line)] = line
        values[_NEXT] = first + family.width
        values[_LISTED] = self._parsed = listed + len(line)
        return first


def _parse(line: bytes) -> tuple[Key, int] | None:
    """A line of the directory; None for one that this version does not know."""
    try:
        entry: Any = orjson.loads(line)
        name, labels, first = entry
        family = _FAMILIES[name]
        key = family, tuple(str(label) for label in labels)
        fits = first in range(_FIRST, _CELLS - family.width) and len(labels) == len(family.labels)
    except (ValueError, TypeError, KeyError):
        return None
    return (key, first) if fits and type(first) is int else None


def _text(label: str) -> str:
    """A label that every reader can take."""
    return label[:_LONGEST_LABEL].encode("utf-8", "replace").decode()
