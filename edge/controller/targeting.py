"""Which deployments apply to a device, and what it runs for them.

Of those whose condition it meets, the one with the highest priority is its base; of equal ones the
newest. Layers that match come on top: each module is taken from the highest priority that has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edge.controller import conditions
from edge.controller.conditions import Subject
from edge.controller.entities import Revision
from edge.protocol.messages import Module, Window


class Candidate(NamedTuple):
    """A revision that a device would run.

    Attributes:
        revision: Of a deployment.
        made: The deployment's place in the order of making.
    """

    revision: Revision
    made: int

    @property
    def rank(self) -> tuple[int, int]:
        """The highest wins."""
        return (self.revision.priority, self.made)


class Choice(NamedTuple):
    """What a device runs, and why.

    Attributes:
        applied: The revisions, the winner first; base and layers.
        modules: Name to module.
        owners: Name of a module to the deployment that it is of.
        window: When the device may switch: of the highest rank that says.
        rate: Bytes a second, likewise; 0 for all.
    """

    applied: tuple[Revision, ...] = ()
    modules: Mapping[str, Module] = {}
    owners: Mapping[str, str] = {}
    window: Window | None = None
    rate: int = 0


def choose(subject: Subject, candidates: Iterable[Candidate]) -> Choice:
    """What a device runs for these revisions, of which not all may match."""
    matching = [
        one for one in candidates if conditions.parse(one.revision.condition).matches(subject)
    ]
    ranked = sorted(matching, key=lambda one: one.rank, reverse=True)
    base = next((one for one in ranked if not one.revision.layer), None)
    applied = [one.revision for one in ranked if one.revision.layer or one is base]
    modules: dict[str, Module] = {}
    owners: dict[str, str] = {}
    for revision in reversed(applied):
        modules |= revision.modules
        owners |= dict.fromkeys(revision.modules, revision.deployment)
    return Choice(
        tuple(applied),
        modules,
        owners,
        next((one.window for one in applied if one.window), None),
        next((one.rate for one in applied if one.rate), 0),
    )
