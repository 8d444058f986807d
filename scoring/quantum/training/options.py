"""How a circuit is trained: the options of the Q# library with its defaults, and our own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from scoring.errors import TrainingDataError
from scoring.quantum.gradients import Method

OPTIMIZERS = ("library", "adam", "lbfgs")
BIASES = ("auto", "library", "best", "trained")
_WHOLE = {"minibatch_size": 1, "n_measurements": 1, "scoring_period": 1, "spsa_directions": 1}
_WHOLE |= {"max_epochs": 0, "max_stalls": 0}
"""Options that count something, and the least that they may be."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a circuit is trained.

    The first eight are those of the Q# library, with its names (in this language's spelling) and
    its defaults.

    Attributes:
        learning_rate: By what the gradient is multiplied.
        tolerance: The share of misses below which training ends; how closely a bias is searched.
        minibatch_size: Samples in one step.
        n_measurements: For each probability, with gradients that are measured.
        max_epochs: Rounds over all samples at most.
        max_stalls: Epochs without any change before the library's loop gives up.
        stochastic_rescale_factor: By what it moves stalled parameters.
        scoring_period: Steps between two looks at whether they helped.
        optimizer: `library` (its own loop), `adam` or `lbfgs` (cross-entropy).
        gradient: One of `gradients.METHODS`.
        bias: `library` (golden section), `best` (fewest misses of all), `trained` (as the optimizer
            left it), or `auto`: `library` for the library's loop, else `trained`.
        spsa_step: How far the gradient `spsa` moves the angles.
        spsa_directions: Over how many directions it averages.
        patience: Epochs without a better score before Adam and L-BFGS end early; None for never.
    """

    learning_rate: float = 0.1
    tolerance: float = 0.005
    minibatch_size: int = 15
    n_measurements: int = 10_000
    max_epochs: int = 16
    max_stalls: int = 8
    stochastic_rescale_factor: float = 0.01
    scoring_period: int = 1
    optimizer: str = "library"
    gradient: str = "adjoint"
    bias: str = "auto"
    spsa_step: float = 0.1
    spsa_directions: int = 4
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rate", "tolerance", "spsa_step"):
            value = getattr(self, name)
            _check(name, _is_number(value) and value > 0, value, "a finite number over 0")
        factor = self.stochastic_rescale_factor
        good = _is_number(factor) and factor >= 0
        _check("stochastic_rescale_factor", good, factor, "a finite number, 0 or more")
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            _check(name, _is_whole(value, least), value, f"a whole number, {least} or more")
        good = self.patience is None or _is_whole(self.patience, 1)
        _check("patience", good, self.patience, "a whole number, 1 or more, or None")
        _check("optimizer", self.optimizer in OPTIMIZERS, self.optimizer, _one_of(OPTIMIZERS))
        _check("bias", self.bias in BIASES, self.bias, _one_of(BIASES))
        self.method()

    def method(self) -> Method:
        """How gradients are found."""
        return Method(self.gradient, self.n_measurements, self.spsa_step, self.spsa_directions)

    @property
    def released(self) -> bool:
        """Whether the library's defects are repeated: no Z, no bias kept, schedules ignored."""
        return self.gradient == "qsharp_released"

    @property
    def bias_rule(self) -> str:
        """What `auto` stands for."""
        if self.bias != "auto":
            return self.bias
        return "library" if self.optimizer == "library" else "trained"


def from_qsharp(options: Mapping[str, Any]) -> TrainingOptions:
    """Options by their Q# names: `{"LearningRate": 0.4, "MinibatchSize": 2}`.

    Raises:
        TrainingDataError: A name is none of the library's.
    """
    known = {field.name for field in fields(TrainingOptions)}
    given: dict[str, Any] = {}
    for name, value in options.items():
        if name == "VerboseMessage":
            continue
        ours = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        if ours not in known or name[:1].islower():
            raise TrainingDataError(f"{name!r} is no training option of the Q# library.")
        given[ours] = value
    return TrainingOptions(**given)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and value >= least


def _one_of(names: tuple[str, ...]) -> str:
    return f"one of {', '.join(names)}"


def _check(name: str, good: bool, value: object, needed: str) -> None:
    if not good:
        raise TrainingDataError(f"{name} is {value!r}; it has to be {needed}.", where=name)
