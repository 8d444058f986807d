"""Power cuts: what a disk may hold when the power goes in the middle of a program.

A real run is recorded by `strace`, every write with its bytes, and replayed on a model of a disk
that keeps no promise but those of POSIX: what a file holds is safe once it was synced, and a name
once its folder was. At any moment of the run the model gives the folder as a power cut could leave
it:

    synced    nothing but what was synced is there
    names     all names are there, and of their content what was synced (as with delayed allocation)
    torn      of what was not synced anything is there, in any order, and the last write by half

Files that map memory (SQLite's `-shm`) are left out: SQLite makes them anew. One thread only.
"""

from __future__ import annotations

import copy
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

How = Literal["synced", "names", "torn"]
HOWS: Final[tuple[How, ...]] = ("synced", "names", "torn")

_CALLS: Final = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,ftruncate,truncate,fallocate,"
    "fsync,fdatasync,syncfs,close,dup,dup2,dup3,fcntl,rename,renameat,renameat2,link,linkat,unlink,"
    "unlinkat,mkdir,mkdirat,rmdir,sendfile,copy_file_range"
)
_LINE: Final = re.compile(r"^(\d+)\s+(\w+)\((.*)\)\s+=\s+(-?\d+)")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_SECTOR: Final = 512
_MOST_BYTES: Final = 4 << 20


class Write(NamedTuple):
    """Bytes at a place of a file; None: its length is changed to `at`."""

    at: int
    data: bytes | None


@dataclass
class File:
    """A file: what is safe, and what came since."""

    safe: bytes = b""
    since: list[Write] = field(default_factory=list)

    def content(self, writes: Sequence[Write]) -> bytes:
        """With these on top of what is safe."""
        out = bytearray(self.safe)
        for at, data in writes:
            if data is None:
                out = out[:at].ljust(at, b"\0")
            else:
                out.extend(bytes(max(0, at + len(data) - len(out))))
                out[at : at + len(data)] = data
        return bytes(out)

    def sync(self) -> None:
        self.safe, self.since = self.content(self.since), []

    @property
    def size(self) -> int:
        return len(self.content(self.since))


@dataclass
class Folder:
    """A folder: which names are safe, and what came since; None: a name that went."""

    safe: dict[str, Node] = field(default_factory=dict)
    since: list[dict[str, Node | None]] = field(default_factory=list)

    def names(self, changes: Sequence[Mapping[str, Node | None]]) -> dict[str, Node]:
        """With these on top of what is safe."""
        out: dict[str, Node | None] = dict(self.safe)
        for change in changes:
            out.update(change)
        return {name: node for name, node in out.items() if node is not None}

    @property
    def now(self) -> dict[str, Node]:
        return self.names(self.since)

    def sync(self) -> None:
        self.safe, self.since = self.now, []


Node = File | Folder


@dataclass
class Open:
    """A file that is open."""

    node: Node | None
    at: int = 0
    appends: bool = False


class Recorded(NamedTuple):
    """A run.

    Attributes:
        calls: Name, arguments, result.
        root: The folder that it worked in.
    """

    calls: list[tuple[str, str, int]]
    root: Path


class Moment(NamedTuple):
    """The disk before one of the calls of a run.

    Attributes:
        call: Which one comes next.
        said: What the program had printed.
        disk: The root.
    """

    call: str
    said: bytes
    disk: Folder


def record(argv: Sequence[str | Path], root: Path, log: Path) -> Recorded:
    """Runs a program that works in an empty folder, and notes what it does to the disk."""
    strace = shutil.which("strace")
    assert strace is not None
    options = ["-f", "-qq", "-xx", "-s", str(_MOST_BYTES), "-e", f"trace={_CALLS}", "-o", str(log)]
    done = subprocess.run([strace, *options, *argv], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    calls: list[tuple[str, str, int]] = []
    for line in log.read_text().splitlines():
        found = _LINE.match(line)
        assert "unfinished" not in line, "one thread, please"
        if found and int(found[4]) >= 0:
            calls.append((found[2], found[3], int(found[4])))
    return Recorded(calls, root)


def moments(run: Recorded) -> Iterator[Moment]:
    """The disk before each call that changes it, and at the end."""
    replay = _Replay(run.root)
    for name, arguments, result in run.calls:
        before = replay.changes
        replay.take(name, arguments, result)
        if replay.changes != before:
            yield Moment(name, replay.said, replay.root)


def leave(moment: Moment, folder: Path, how: How, chance: random.Random) -> None:
    """Writes what a power cut at this moment leaves."""
    _leave(copy.deepcopy(moment.disk), folder, how, chance)


def _leave(found: Folder, folder: Path, how: How, chance: random.Random) -> None:
    folder.mkdir()
    changes = {"synced": 0, "names": len(found.since)}.get(how, chance.randint(0, len(found.since)))
    for name, node in found.names(found.since[:changes]).items():
        if isinstance(node, Folder):
            _leave(node, folder / name, how, chance)
        elif not name.endswith("-shm"):
            writes = list(_some(node.since, chance)) if how == "torn" else []
            (folder / name).write_bytes(node.content(writes))


def _some(writes: Sequence[Write], chance: random.Random) -> Iterator[Write]:
    part = chance.choice((0.1, 0.5, 0.9, 1.0))
    for write in writes:
        if chance.random() > part:
            continue
        if write.data is not None and chance.random() < 0.2:
            sectors = chance.randint(0, len(write.data) // _SECTOR)
            yield Write(write.at, write.data[: sectors * _SECTOR])
        else:
            yield write


class _Replay:
    """A run on the model of the disk."""

    def __init__(self, root: Path) -> None:
        self._base = str(root)
        self.root = Folder()
        self.said = b""
        self.changes = 0
        self._fds: dict[int, Open] = {}

    def take(self, name: str, arguments: str, result: int) -> None:
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]
        words = [word.strip() for word in _TEXT.sub("", arguments).split(",")]
        getattr(self, f"_{name}", self._unknown)(texts, words, result)

    def _unknown(self, _texts: list[bytes], words: list[str], _result: int) -> None:
        fds = [int(word) for word in words[:2] if word.isdigit()]
        assert not any(fd in self._fds for fd in fds), "a call that is not modelled"

    # -- paths

    def _parts(self, path: bytes) -> list[str] | None:
        """Below the root; None for elsewhere."""
        text = path.decode()
        if text == self._base:
            return []
        if not text.startswith(self._base + "/"):
            return None
        return text[len(self._base) + 1 :].split("/")

    def _folder(self, parts: Sequence[str]) -> Folder:
        found: Node = self.root
        for part in parts:
            assert isinstance(found, Folder)
            found = found.now[part]
        assert isinstance(found, Folder)
        return found

    def _change(self, parts: Sequence[str], node: Node | None) -> None:
        self._folder(parts[:-1]).since.append({parts[-1]: node})
        self.changes += 1

    # -- names

    def _openat(self, texts: list[bytes], words: list[str], result: int) -> None:
        parts = self._parts(texts[0])
        if parts is None:
            self._fds.pop(result, None)
            return
        flags = " ".join(words)
        node: Node = self.root
        if parts:
            folder = self._folder(parts[:-1])
            if parts[-1] not in folder.now:
                assert "O_CREAT" in flags
                self._change(parts, File())
            node = folder.now[parts[-1]]
        if "O_TRUNC" in flags and isinstance(node, File):
            node.since.append(Write(0, None))
        self._fds[result] = Open(node, appends="O_APPEND" in flags)

    _open = _openat

    def _mkdir(self, texts: list[bytes], _words: list[str], _result: int) -> None:
        parts = self._parts(texts[0])
        if parts:
            self._change(parts, Folder())

    _mkdirat = _mkdir

    def _unlink(self, texts: list[bytes], _words: list[str], _result: int) -> None:
        parts = self._parts(texts[0])
        if parts:
            self._change(parts, None)

    _unlinkat = _rmdir = _unlink

    def _rename(self, texts: list[bytes], _words: list[str], _result: int) -> None:
        old, new = self._parts(texts[0]), self._parts(texts[1])
        if old is None or new is None:
            assert old is new, "a name that comes from elsewhere, or goes there"
            return
        node = self._folder(old[:-1]).now[old[-1]]
        if old[:-1] == new[:-1]:  # at once, or not at all
            self._folder(old[:-1]).since.append({old[-1]: None, new[-1]: node})
            self.changes += 1
        else:
            self._change(new, node)
            self._change(old, None)

    _renameat = _renameat2 = _rename

    def _link(self, texts: list[bytes], _words: list[str], _result: int) -> None:
        old, new = self._parts(texts[0]), self._parts(texts[1])
        if old is not None and new is not None:
            self._change(new, self._folder(old[:-1]).now[old[-1]])

    _linkat = _link

    # -- contents

    def _file(self, words: list[str]) -> Open | None:
        return self._fds.get(int(words[0]))

    def _put(self, found: Open, at: int, data: bytes) -> None:
        assert isinstance(found.node, File)
        found.node.since.append(Write(at, data))
        self.changes += 1

    def _write(self, texts: list[bytes], words: list[str], result: int) -> None:
        found = self._file(words)
        if words[0] == "1" and found is None:
            self.said += texts[0][:result]
        if found is None:
            return
        assert isinstance(found.node, File)
        at = found.node.size if found.appends else found.at
        self._put(found, at, texts[0][:result])
        found.at = at + result

    def _pwrite64(self, texts: list[bytes], words: list[str], result: int) -> None:
        found = self._file(words)
        if found is not None:
            self._put(found, int(words[-1]), texts[0][:result])

    def _lseek(self, _texts: list[bytes], words: list[str], result: int) -> None:
        found = self._file(words)
        if found is not None:
            found.at = result

    def _ftruncate(self, _texts: list[bytes], words: list[str], _result: int) -> None:
        found = self._file(words)
        if found is not None and isinstance(found.node, File):
            found.node.since.append(Write(int(words[-1]), None))
            self.changes += 1

    def _fallocate(self, _texts: list[bytes], words: list[str], _result: int) -> None:
        found = self._file(words)
        if found is None or not isinstance(found.node, File) or "KEEP_SIZE" in words[1]:
            return
        end = int(words[2]) + int(words[3])
        if end > found.node.size:
            found.node.since.append(Write(end, None))
            self.changes += 1

    def _fsync(self, _texts: list[bytes], words: list[str], _result: int) -> None:
        found = self._file(words)
        if found is not None and found.node is not None:
            found.node.sync()
            self.changes += 1

    _fdatasync = _fsync

    # -- descriptors

    def _close(self, _texts: list[bytes], words: list[str], _result: int) -> None:
        self._fds.pop(int(words[0]), None)

    def _dup(self, _texts: list[bytes], words: list[str], result: int) -> None:
        found = self._file(words)
        if found is not None:
            self._fds[result] = found

    _dup2 = _dup3 = _dup

    def _fcntl(self, texts: list[bytes], words: list[str], result: int) -> None:
        if "F_DUPFD" in words[1]:
            self._dup(texts, words, result)
