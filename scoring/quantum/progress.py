"""A bar on stderr for a training that takes a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from scoring.quantum.training.run import Progress
from scoring.quantum.training.state import RunState


@contextlib.contextmanager
def bar(*, enabled: bool, starts: int, epochs: int) -> Iterator[Progress | None]:
    """Shows how far the start points are; None where no bar is wanted."""
    if not enabled:
        yield None
        return
    from rich.console import Console  # noqa: PLC0415  (only who looks needs them)
    from rich.progress import Progress as Bar  # noqa: PLC0415

    with Bar(console=Console(stderr=True)) as shown:
        task = shown.add_task("training", total=max(1, starts * epochs))

        def told(states: Sequence[RunState]) -> None:
            done = sum(epochs if state.done else state.epoch for state in states)
            best = min(state.best_score for state in states)
            shown.update(task, completed=done, description=f"training, best {best:.4g}")

        yield told
