"""Shots and noise: what a circuit answers on hardware, from the exact simulation.

Shots are drawn from exact probabilities with a seeded generator. Noise on gates needs density
matrices: `noisy_outcomes` keeps one for each row, so it is for small circuits.

Seeds that stand close together give independent numbers here; for several runs, let
`numpy.random.SeedSequence.spawn` make the seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoring.errors import CircuitError
from scoring.quantum import memory, simulate
from scoring.quantum.circuit import Circuit, Gate, Model, OneVersusRest
from scoring.quantum.cone import acts_on
from scoring.quantum.encoding import check_rows, encode

Seed = int | np.random.SeedSequence | np.random.Generator | None


@dataclass(frozen=True)
class Noise:
    """How much goes wrong.

    Attributes:
        depolarising: After each gate, every qubit that it acts on is replaced by a random one with
            this probability.
        readout: The probability that a measured qubit is read as the other value.
    """

    depolarising: float = 0.0
    readout: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("depolarising", self.depolarising), ("readout", self.readout)):
            if not 0.0 <= value <= 1.0:
                raise CircuitError(
                    f"The {name} noise is {value}.", hint="Give a probability from 0 to 1."
                )


def generator(seed: Seed) -> np.random.Generator:
    """The generator that a seed stands for: PCG64."""
    return seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)


def _is_whole(number: object) -> bool:
    return isinstance(number, int | np.integer)


def draw(outcomes: NDArray[np.float64], shots: int, seed: Seed) -> NDArray[np.float64]:
    """How often each outcome came up in `shots` measurements of each row, as a share.

    Args:
        outcomes: Exact probabilities, of the shape (rows, outcomes).
        shots: Measurements of each row, 1 or more.
        seed: Of the generator, or a generator.
    """
    if not _is_whole(shots) or shots < 1:
        raise CircuitError(
            f"{shots!r} measurements cannot be made.", hint="Give a whole number, 1 or more."
        )
    shares = np.clip(outcomes, 0.0, None)
    shares /= shares.sum(axis=1, keepdims=True)
    found: NDArray[np.float64] = generator(seed).multinomial(shots, shares) / shots
    return found


def sampled_probabilities(
    model: Model, rows: ArrayLike, shots: int, seed: Seed = None, noise: Noise | None = None
) -> NDArray[np.float64]:
    """Class probabilities as `shots` measurements of each row would tell them.

    Args:
        model: What is asked.
        rows: Raw features, of the shape (samples, features).
        shots: Measurements of each row (and circuit).
        seed: Of the generator, or a generator.
        noise: On gates and on reading; none by default.

    Returns:
        The shape (samples, classes).
    """
    random = generator(seed)
    if isinstance(model, OneVersusRest):
        ones = [
            sampled_probabilities(circuit, rows, shots, random, noise)[:, 1]
            for circuit in model.circuits
        ]
        return simulate.normalised(np.stack(ones, axis=1))
    exact = (
        simulate.outcome_probabilities(model, rows)
        if noise is None
        else noisy_outcomes(model, rows, noise)
    )
    return simulate.decide(model, draw(exact, shots, random))


def noisy_outcomes(circuit: Circuit, rows: ArrayLike, noise: Noise) -> NDArray[np.float64]:
    """The probabilities of all outcomes under noise.

    Args:
        circuit: Up to about ten qubits: a row takes 16·4**qubits bytes.
        rows: Raw features, of the shape (samples, features).
        noise: On gates and on reading.

    Returns:
        The shape (samples, 2**measured qubits).

    Raises:
        CircuitTooLargeError: A single density matrix would not fit into memory.
    """
    table = check_rows(rows, circuit.encoding.features)
    if noise.depolarising:
        result = _through_density(circuit, table, noise.depolarising)
    else:
        result = simulate.outcome_probabilities(circuit, table)
    return _misread(result, len(circuit.measured), noise.readout)


def _through_density(
    circuit: Circuit, table: NDArray[np.float64], depolarising: float
) -> NDArray[np.float64]:
    memory.check(8 << (2 * circuit.qubits + 4), f"Density matrices of {circuit.qubits} qubits")
    result = np.empty((len(table), 1 << len(circuit.measured)))
    for portion in simulate.portions(len(table), 2 * circuit.qubits):
        states = encode(circuit, table[portion])
        pairs = np.einsum("ri,rj->ijr", states, states)
        density = np.ascontiguousarray(pairs, dtype=np.complex128)
        for gate in circuit.gates:
            _rotate(density, circuit.qubits, gate, circuit.parameters[gate.parameter])
            for qubit in acts_on(gate):
                _depolarise(density, circuit.qubits, qubit, depolarising)
        diagonal = np.einsum("iir->ir", density).real
        result[portion] = simulate.measure(np.sqrt(np.clip(diagonal, 0, None)), circuit.measured)
    return result


def _rotate(density: NDArray[Any], qubits: int, gate: Gate, angle: float) -> None:
    """The density matrix between U and U†, in place: first its rows as states, then its columns."""
    size, _, count = density.shape
    flat = density.reshape(size, size * count)
    simulate.rotate(flat, qubits, gate, angle)
    turned = np.ascontiguousarray(density.transpose(1, 0, 2).conj())
    simulate.rotate(turned.reshape(size, size * count), qubits, gate, angle)
    np.copyto(density, turned.conj().transpose(1, 0, 2))


def _depolarise(density: NDArray[Any], qubits: int, qubit: int, probability: float) -> None:
    """With the probability, one qubit of the density matrix is replaced by a random one."""
    above, below = 1 << (qubits - qubit - 1), 1 << qubit
    view = density.reshape(above, 2, below, above, 2, below, density.shape[2])
    mixed = (view[:, 0, :, :, 0] + view[:, 1, :, :, 1]) * (probability / 2)
    view *= 1 - probability
    view[:, 0, :, :, 0] += mixed
    view[:, 1, :, :, 1] += mixed


def _misread(
    outcomes: NDArray[np.float64], measured: int, probability: float
) -> NDArray[np.float64]:
    """Each measured bit turned with the probability."""
    if not probability:
        return outcomes
    result = outcomes
    numbers = np.arange(1 << measured)
    for bit in range(measured):
        turned = result[:, numbers ^ (1 << bit)]
        result = (1 - probability) * result + probability * turned
    return result
