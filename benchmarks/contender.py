"""What a server is, to those who measure it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.payloads import Ask
from benchmarks.venvs import python


@dataclass(frozen=True)
class Start:
    """What a server is started with.

    Attributes:
        folder: Its own; it is started there.
        model: The ONNX file.
        ports: HTTP, gRPC and one for anything else.
    """

    folder: Path
    model: Path
    ports: tuple[int, int, int]

    def words(self, venv: str) -> dict[str, str]:
        """What stands for what in a command."""
        interpreter = python(venv)
        http, grpc, other = (str(port) for port in self.ports)
        return {
            "python": str(interpreter),
            "bin": str(interpreter.parent),
            "folder": str(self.folder),
            "model": str(self.model),
            "name": self.model.stem,
            "http": http,
            "grpc": grpc,
            "other": other,
        }


def _nothing(_start: Start) -> None:
    """Most servers need no files."""


@dataclass(frozen=True, eq=False)
class Contender:
    """A server.

    Attributes:
        name: In the tables.
        venv: Its environment; empty for ours.
        command: With the words of `Start.words` in braces.
        asks: Kind of work to the request that asks for it here.
        environment: Variables beside the usual ones, with the same words in braces.
        prepare: Writes the files that it needs into its folder.
        distributions: Whose versions are told.
        grpc: Which of the ports answers gRPC.
    """

    name: str
    venv: str
    command: tuple[str, ...]
    asks: Mapping[str, Ask]
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Start], None] = _nothing
    distributions: tuple[str, ...] = ()
    grpc: int = 1
