"""Where the training of one start point is: what a checkpoint keeps."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np


@dataclass
class RunState:
    """Where the training of one start point is.

    Attributes:
        parameters: The angles now.
        bias: The bias now.
        best_parameters: Those with the best score so far.
        best_bias: Their bias.
        best_score: Misses (the library's loop) or the loss; less is better.
        random: The state of the generator.
        epoch: Rounds done.
        stalls: Rounds without a change, or without a better score.
        done: Why it ended; empty while it goes on.
        memory: What else the optimizer carries from round to round.
        history: The score after each round.
    """

    parameters: list[float]
    bias: float
    best_parameters: list[float]
    best_bias: float
    best_score: float
    random: dict[str, Any]
    epoch: int = 0
    stalls: int = 0
    done: str = ""
    memory: dict[str, Any] = field(default_factory=dict)
    history: list[float] = field(default_factory=list)

    def generator(self) -> np.random.Generator:
        """The generator as it was left."""
        bits = np.random.PCG64()
        bits.state = self.random  # type: ignore[assignment]
        return np.random.Generator(bits)

    def keep(self, generator: np.random.Generator) -> None:
        """Leaves the generator for the next round."""
        self.random = dict(generator.bit_generator.state)

    def to_document(self) -> dict[str, Any]:
        """The state as JSON knows it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> RunState:
        """The state that `to_document` described; raises `TypeError` for anything else."""
        return cls(**document)


def initial(parameters: list[float], seed: np.random.SeedSequence) -> RunState:
    """A start point, before anything was asked."""
    bits = np.random.PCG64(seed)
    return RunState(
        parameters=list(parameters),
        bias=0.0,
        best_parameters=list(parameters),
        best_bias=0.0,
        best_score=float("inf"),
        random=dict(bits.state),
    )
