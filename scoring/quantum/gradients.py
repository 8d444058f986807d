"""Gradients of a loss by a circuit's angles, in several ways.

All take the derivatives of the loss by outcome probabilities (`Weigh`, asked with the probabilities
at the present angles) and give Σ over samples. `adjoint` is exact and fast; `shift` is exact and
asks only for probabilities, as hardware can answer; `sampled` is the same from a number of
measurements; `spsa` asks for two probabilities whatever the number of angles, and is random;
`hadamard` and `qsharp_released` are what the Q# library measured, with its Z and without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scoring.errors import TrainingDataError
from scoring.quantum.adjoint import AdjointPlan, Weigh
from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.cone import light_cone
from scoring.quantum.noise import draw
from scoring.quantum.overlaps import hadamard_gradients

METHODS = ("adjoint", "shift", "sampled", "spsa", "hadamard", "qsharp_released")
MEASURED = frozenset({"sampled", "hadamard", "qsharp_released"})
"""The methods that see only what a number of measurements tells."""

Outcomes = Callable[[Sequence[float]], NDArray[np.float64]]
Found = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Outcome probabilities (samples, outcomes), and the gradient (parameters,)."""

_NEAR = (math.sqrt(2) + 1) / (4 * math.sqrt(2))
_FAR = (math.sqrt(2) - 1) / (4 * math.sqrt(2))


@dataclass(frozen=True)
class Method:
    """How gradients are found.

    Attributes:
        name: One of `METHODS`.
        measurements: For each probability, with the methods of `MEASURED`.
        spsa_step: How far `spsa` moves the angles, in radians.
        spsa_directions: Over how many random directions it averages.
    """

    name: str = "adjoint"
    measurements: int = 10_000
    spsa_step: float = 0.1
    spsa_directions: int = 4

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise TrainingDataError(
                f"There is no gradient {self.name!r}.", hint=f"Use one of {', '.join(METHODS)}."
            )

    @property
    def measures(self) -> bool:
        """Whether probabilities are known from measurements only."""
        return self.name in MEASURED


class Gradients:
    """The gradients of one circuit's structure, by one method.

    Args:
        circuit: Gates and measured qubits are used.
        method: How.
    """

    def __init__(self, circuit: Circuit, method: Method) -> None:
        if method.name in ("hadamard", "qsharp_released") and len(circuit.measured) > 1:
            raise TrainingDataError(
                f"The gradient {method.name!r} is for one measured qubit.",
                hint="Use another gradient, or one circuit for each class against the rest.",
            )
        self._circuit = circuit
        self._method = method
        self._plan = AdjointPlan(circuit)
        self._single = _unshared(circuit)
        self._shifts = AdjointPlan(self._single) if method.name in ("shift", "sampled") else None

    def outcomes(
        self,
        parameters: Sequence[float],
        states: NDArray[np.float64],
        random: np.random.Generator,
    ) -> NDArray[np.float64]:
        """Outcome probabilities as the method knows them: exact, or from measurements."""
        exact = self._plan.outcomes(parameters, states)
        return draw(exact, self._method.measurements, random) if self._method.measures else exact

    def gradient(
        self,
        parameters: Sequence[float],
        states: NDArray[np.float64],
        weigh: Weigh,
        random: np.random.Generator,
    ) -> Found:
        """The probabilities and the gradient of the loss at the given angles.

        Args:
            parameters: The angles.
            states: Encoded samples, of the shape (samples, 2**qubits).
            weigh: The derivatives of the loss by the outcome probabilities.
            random: Where measured values and directions come from.
        """
        if self._method.name == "adjoint":
            return self._plan.gradient(parameters, states, weigh)
        outcomes = self.outcomes(parameters, states, random)
        weights = np.asarray(weigh(outcomes, slice(0, len(states))), dtype=np.float64)
        if self._method.name == "spsa":
            return outcomes, self._spsa(parameters, states, weights, random)
        if self._shifts is not None:
            return outcomes, self._shift(parameters, states, weights, random)
        return outcomes, self._hadamard(parameters, states, weights, random)

    def _shift(
        self,
        parameters: Sequence[float],
        states: NDArray[np.float64],
        weights: NDArray[np.float64],
        random: np.random.Generator,
    ) -> NDArray[np.float64]:
        """Each gate's angle moved alone: so gates may share a parameter."""
        plan = self._shifts
        assert plan is not None
        angles = np.array([parameters[gate.parameter] for gate in self._circuit.gates])
        result = np.zeros(len(parameters))
        for place in light_cone(self._circuit.gates, self._circuit.measured):
            gate = self._circuit.gates[place]
            for shift, share in shifts(gate):
                moved = angles.copy()
                moved[place] += shift
                found = plan.outcomes(moved.tolist(), states)
                if self._method.measures:
                    found = draw(found, self._method.measurements, random)
                result[gate.parameter] += share * float(np.vdot(weights, found))
        return result

    def _spsa(
        self,
        parameters: Sequence[float],
        states: NDArray[np.float64],
        weights: NDArray[np.float64],
        random: np.random.Generator,
    ) -> NDArray[np.float64]:
        """All angles moved at once, each up or down by chance."""
        at, step = np.asarray(parameters), self._method.spsa_step
        result = np.zeros(len(at))
        for _ in range(self._method.spsa_directions):
            signs = random.choice((-1.0, 1.0), size=len(at))
            up = self._plan.outcomes((at + step * signs).tolist(), states)
            down = self._plan.outcomes((at - step * signs).tolist(), states)
            result += float(np.vdot(weights, up - down)) / (2 * step) * signs
        return result / self._method.spsa_directions

    def _hadamard(
        self,
        parameters: Sequence[float],
        states: NDArray[np.float64],
        weights: NDArray[np.float64],
        random: np.random.Generator,
    ) -> NDArray[np.float64]:
        doubled = hadamard_gradients(
            self._circuit.at(parameters),
            states,
            shots=self._method.measurements,
            random=random,
            released=self._method.name == "qsharp_released",
        )
        found: NDArray[np.float64] = (weights[:, 1] - weights[:, 0]) @ doubled / 2
        return found


def shifts(gate: Gate) -> Iterator[tuple[float, float]]:
    """By how much an angle is moved, and with what share the probabilities there count.

    An uncontrolled rotation has one frequency, a controlled one two (1 and ½), a controlled phase
    only ½.
    """
    if not gate.controls:
        yield from ((math.pi / 2, 0.5), (-math.pi / 2, -0.5))
    elif gate.axis == "I":
        yield from ((math.pi, 0.25), (-math.pi, -0.25))
    else:
        for sign in (1, -1):
            yield sign * math.pi / 2, sign * _NEAR
            yield sign * 3 * math.pi / 2, -sign * _FAR


def _unshared(circuit: Circuit) -> Circuit:
    """The circuit with a parameter for each gate."""
    gates = tuple(gate._replace(parameter=place) for place, gate in enumerate(circuit.gates))
    return replace(circuit, gates=gates, parameters=(0.0,) * len(gates))
