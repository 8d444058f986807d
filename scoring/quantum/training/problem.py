"""What is learned from: encoded samples, their classes, and the structure that shall tell them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.errors import TrainingDataError
from scoring.quantum import simulate
from scoring.quantum.circuit import Circuit
from scoring.quantum.gradients import Gradients
from scoring.quantum.training import bias
from scoring.quantum.training.options import TrainingOptions

Places = NDArray[np.intp]
"""Which samples, in order."""

_LEAST = 1e-3
"""Below this probability the logarithm is continued as a straight line: a bias may take one beyond
zero, and a steeper wall there would be all that an optimizer sees."""


def require_gates(circuit: Circuit) -> None:
    """Raises `TrainingDataError` where there is no gate whose angle could be learned."""
    if not circuit.gates:
        raise TrainingDataError(
            "The structure has no gates: there is nothing to learn.",
            hint='Give one, such as "local-x cyclic-z".',
            where="structure",
        )


@dataclass
class Problem:
    """Samples, classes and a structure.

    Attributes:
        circuit: Its gates, measured qubits and classes; its parameters do not matter.
        states: Encoded samples, of the shape (samples, 2**qubits).
        labels: The class of each, as a place among the circuit's classes.
        options: How it is trained.
        training: The samples that are learned from; all by default.
        validation: The samples on which the bias is fitted and start points are compared; all by
            default.
    """

    circuit: Circuit
    states: NDArray[np.float64]
    labels: NDArray[np.intp]
    options: TrainingOptions
    training: Places = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    validation: Places = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    def __post_init__(self) -> None:
        samples = len(self.labels)
        if not samples:
            raise TrainingDataError("There are no samples to learn from.")
        for name in ("training", "validation"):
            places = getattr(self, name)
            if (self.options.released and name == "training") or not len(places):
                setattr(self, name, np.arange(samples))
        require_gates(self.circuit)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made anew where it is needed: it holds large buffers."""
        return {key: value for key, value in self.__dict__.items() if key != "gradients"}

    @cached_property
    def gradients(self) -> Gradients:
        """The gradients of the structure."""
        return Gradients(self.circuit, self.options.method())

    def outcomes(
        self, parameters: Sequence[float], random: np.random.Generator, places: Places | None = None
    ) -> NDArray[np.float64]:
        """Outcome probabilities of all samples, or of some."""
        states = self.states if places is None else self.states[places]
        return self.gradients.outcomes(parameters, states, random)

    def predict(self, outcomes: NDArray[np.float64], offset: float) -> NDArray[np.intp]:
        """The class of each sample."""
        if self.circuit.is_binary:
            return bias.predict(outcomes[:, 1], offset)
        found: NDArray[np.intp] = outcomes[:, : len(self.circuit.classes)].argmax(axis=1)
        return found

    def misses(self, outcomes: NDArray[np.float64], offset: float, labels: Places) -> int:
        """How many samples are given another class than their own."""
        return int(np.count_nonzero(self.predict(outcomes, offset) != labels))

    def fit_bias(self, outcomes: NDArray[np.float64], labels: Places, offset: float) -> float:
        """The bias by the rule of the options; `offset` where the optimizer trains it."""
        rule = self.options.bias_rule
        if not self.circuit.is_binary:
            return 0.0
        if rule == "trained":
            return offset
        return bias.fit(outcomes[:, 1], labels, rule, self.options.tolerance)

    def loss(self, outcomes: NDArray[np.float64], offset: float, labels: Places) -> float:
        """The mean cross-entropy."""
        return float(self.losses(outcomes, offset, labels).mean())

    def losses(
        self, outcomes: NDArray[np.float64], offset: float, labels: Places
    ) -> NDArray[np.float64]:
        """The cross-entropy of each sample."""
        shares = self._shares(outcomes, offset)
        return -_logarithm(shares[np.arange(len(labels)), labels])[0]

    def slopes(
        self, outcomes: NDArray[np.float64], offset: float, labels: Places
    ) -> NDArray[np.float64]:
        """The derivatives of each sample's cross-entropy by its outcome probabilities.

        With one measured qubit the second column is also the derivative by the bias.
        """
        rows = np.arange(len(labels))
        _, slope = _logarithm(self._shares(outcomes, offset)[rows, labels])
        result = np.zeros_like(outcomes)
        if self.circuit.is_binary:
            result[:, 1] = np.where(labels == 1, -slope, slope)
            return result
        classes = len(self.circuit.classes)
        sums = np.maximum(outcomes[:, :classes].sum(axis=1), _LEAST)
        chosen = outcomes[rows, labels]
        result[:, :classes] = (slope * chosen / sums**2)[:, None]
        result[rows, labels] -= slope / sums
        return result

    def _shares(self, outcomes: NDArray[np.float64], offset: float) -> NDArray[np.float64]:
        if self.circuit.is_binary:
            second = outcomes[:, 1] + offset
            return np.stack([1 - second, second], axis=1)
        return simulate.normalised(outcomes[:, : len(self.circuit.classes)])


def _logarithm(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The logarithm and its slope, continued as a straight line below `_LEAST`."""
    floor = np.maximum(values, _LEAST)
    return np.log(floor) + (values - floor) / floor, 1 / floor
