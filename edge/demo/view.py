"""How the demo looks: a table that moves in a terminal, sentences elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edge.controller.entities import Device, Rollout
from edge.demo.story import MODULE, Picture, Screen

_COLOURS: Final = {
    "good": "green",
    "reverted": "yellow",
    "reverting": "yellow",
    "failed": "red",
    "halted": "red",
    "complete": "green",
    "running": "cyan",
}
_MOST_SAID: Final = 12


class Sentences(Screen):
    """For logs and pipes: one line each.

    Args:
        write: Takes a line.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._begun = time.monotonic()

    def say(self, sentence: str) -> None:
        """Tells what happens next."""
        self._write(f"{time.monotonic() - self._begun:5.1f} s  {sentence}")


class Moving(Screen):
    """For terminals: what is said, and the fleet below it, drawn anew as it changes.

    Args:
        live: Where it is drawn.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._begun = time.monotonic()
        self._said: list[str] = []
        self._picture: Picture | None = None

    def say(self, sentence: str) -> None:
        """Tells what happens next."""
        self._said.append(f"{time.monotonic() - self._begun:5.1f} s  {sentence}")
        self._draw()

    def show(self, picture: Picture) -> None:
        """Shows the fleet."""
        self._picture = picture
        self._draw()

    def _draw(self) -> None:
        said = Text("\n".join(self._said[-_MOST_SAID:]))
        parts: list[Text | Table | Panel] = [Panel(said, title="fieldpost fleet demo")]
        if self._picture is not None:
            parts += [devices(self._picture), *map(rollout, self._picture.rollouts)]
        self._live.update(Group(*parts), refresh=True)


@contextmanager
def moving() -> Iterator[Screen]:
    """A screen on the terminal until the end of the block; what was last shown stays."""
    with Live(console=Console(), auto_refresh=False) as live:
        yield Moving(live)


def devices(picture: Picture) -> Table:
    """The devices as a table."""
    table = Table("DEVICE", "BOARD", "LINK", "RUNS", "PHASE", "WHY NOT", expand=True)
    for device in picture.devices:
        table.add_row(*_cells(device, picture.versions))
    return table


def _cells(device: Device, versions: dict[str, int]) -> list[Text]:
    module = device.modules.get(MODULE)
    link = Text("online", "green") if device.online else Text("offline", "red")
    head = [Text(device.name), Text(device.tags.get("board", "")), link]
    if module is None:
        return [*head, Text("-"), Text("-"), Text("")]
    version = versions.get(module.package)
    runs = Text(f"version {version}" if version else "-", _colour_of_version(version))
    why = module.failure.message if module.failure is not None else ""
    return [*head, runs, Text(module.phase, _COLOURS.get(module.phase, "cyan")), Text(why, "dim")]


def _colour_of_version(version: int | None) -> str:
    return {1: "blue", 2: "magenta"}.get(version or 0, "dim")


def rollout(found: Rollout) -> Text:
    """A rollout as a line."""
    text = Text(f"{found.id}  ", "bold")
    text.append(found.state, _COLOURS.get(found.state, "cyan"))
    text.append(f"  wave {found.wave + 1} of {found.waves}  ")
    text.append(found.note, "dim")
    return text
