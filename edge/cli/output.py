"""What the fleet's commands print, and how they read what people write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from scoring.errors import UsageError

if TYPE_CHECKING:
    from edge.controller.records import Fleet
    from edge.workspace import Workspace

Function = TypeVar("Function", bound=Callable[..., Any])


@contextmanager
def opened(workspace: str | None) -> Iterator[tuple[Workspace, Fleet]]:
    """The workspace and the records of its fleet."""
    from edge.controller.records import Fleet
    from edge.workspace import open_workspace

    with open_workspace(workspace) as found:
        yield found, Fleet(found.registry.database)


def document(value: Any) -> Any:
    """A record as `--json` has it: with all of its fields, also those that messages leave out."""
    import msgspec

    if isinstance(value, msgspec.Struct):
        return {name: document(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: document(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [document(each) for each in value]
    return value


def counted(count: int, noun: str) -> str:
    """`1 device`, `2 devices`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def ago(seconds: float, now: float | None = None) -> str:
    """How long ago a moment was: `3m`; empty for never."""
    if not seconds:
        return ""
    passed = max(0.0, (time.time() if now is None else now) - seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if passed >= 2 * size:
            return f"{passed / size:.0f}{unit}"
    return f"{passed:.0f}s"


class Duration(click.ParamType):  # type: ignore[type-arg]
    """`90s`, `30m`, `2h`, `1d`; a number alone is in seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds."""
        if isinstance(value, int | float):
            return float(value)
        from edge.controller import texts

        try:
            return texts.duration(str(value))
        except UsageError as error:
            self.fail(f"{error.message} {error.hint}", param, ctx)


class Rate(click.ParamType):  # type: ignore[type-arg]
    """`500k`, `2M`, in bytes a second."""

    name = "rate"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Bytes a second."""
        from edge.controller import texts

        try:
            return texts.rate(str(value))
        except UsageError as error:
            self.fail(f"{error.message} {error.hint}", param, ctx)


DURATION: Final = Duration()
RATE: Final = Rate()
