"""Plain optimizers on the mean cross-entropy: Adam by minibatches, and L-BFGS from SciPy.

The bias is trained along with the angles, as one more number. What counts as better is the loss on
the validation samples.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.quantum.training.problem import Places, Problem
from scoring.quantum.training.state import RunState

_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8
LEG = 20
"""Iterations of L-BFGS between two checkpoints; its memory of the curvature begins anew."""


def adam_epoch(problem: Problem, state: RunState) -> None:
    """Advances a start point by one round over the training samples, in random minibatches."""
    random = state.generator()
    if not state.epoch:
        _score(problem, state, random)
    if state.epoch < problem.options.max_epochs:
        size = problem.options.minibatch_size
        order = random.permutation(problem.training)
        for start in range(0, len(order), size):
            _adam_step(problem, state, order[start : start + size], random)
        state.epoch += 1
        _score(problem, state, random)
    if state.epoch >= problem.options.max_epochs and not state.done:
        state.done = "max_epochs"
    state.keep(random)


def _adam_step(
    problem: Problem, state: RunState, places: Places, random: np.random.Generator
) -> None:
    at = np.array([*state.parameters, state.bias])
    gradient = slope(problem, at, places, random)[1]
    memory = state.memory
    memory["steps"] = memory.get("steps", 0) + 1
    first = _FIRST * np.asarray(memory.get("first", 0.0)) + (1 - _FIRST) * gradient
    second = _SECOND * np.asarray(memory.get("second", 0.0)) + (1 - _SECOND) * gradient**2
    memory["first"], memory["second"] = first.tolist(), second.tolist()
    mean = first / (1 - _FIRST ** memory["steps"])
    spread = np.sqrt(second / (1 - _SECOND ** memory["steps"]))
    at -= problem.options.learning_rate * mean / (spread + _TINY)
    _put(problem, state, at)


def lbfgs_leg(problem: Problem, state: RunState) -> None:
    """Advances a start point by up to `LEG` iterations over all training samples."""
    minimize: Any = import_module("scipy.optimize").minimize  # half a second
    random = state.generator()
    if not state.epoch:
        _score(problem, state, random)
    steps = min(LEG, problem.options.max_epochs - state.epoch)
    if steps > 0:
        found = minimize(
            lambda at: slope(problem, at, problem.training, random),
            np.array([*state.parameters, state.bias]),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps},
        )
        _put(problem, state, np.asarray(found.x, dtype=np.float64))
        state.epoch += max(1, int(found.nit))
        _score(problem, state, random)
        if int(found.nit) < steps and not state.done:
            state.done = "converged"
    if state.epoch >= problem.options.max_epochs and not state.done:
        state.done = "max_epochs"
    state.keep(random)


def slope(
    problem: Problem, at: NDArray[np.float64], places: Places, random: np.random.Generator
) -> tuple[float, NDArray[np.float64]]:
    """The mean cross-entropy of some samples, and its gradient by the angles and the bias."""
    *parameters, offset = at.tolist()
    labels = problem.labels[places]
    by_bias = np.zeros(len(labels))  # of each sample: portions are weighed in any order

    def weigh(outcomes: NDArray[np.float64], where: slice) -> NDArray[np.float64]:
        found = problem.slopes(outcomes, offset, labels[where]) / len(labels)
        by_bias[where] = found[:, 1]
        return found

    outcomes, gradient = problem.gradients.gradient(
        parameters, problem.states[places], weigh, random
    )
    last = float(by_bias.sum()) if problem.circuit.is_binary else 0.0
    return problem.loss(outcomes, offset, labels), np.append(gradient, last)


def _put(problem: Problem, state: RunState, at: NDArray[np.float64]) -> None:
    *state.parameters, last = at.tolist()
    state.bias = last if problem.circuit.is_binary else 0.0


def _score(problem: Problem, state: RunState, random: np.random.Generator) -> None:
    """Keeps the present angles where they are the best so far; ends what gets no better."""
    labels = problem.labels[problem.validation]
    outcomes = problem.outcomes(state.parameters, random, problem.validation)
    loss = problem.loss(outcomes, state.bias, labels)
    state.history.append(loss)
    if not state.epoch:
        state.memory["start_misses"] = problem.misses(outcomes, state.bias, labels)
    if loss < state.best_score:
        state.best_score, state.stalls = loss, 0
        state.best_parameters, state.best_bias = list(state.parameters), state.bias
        return
    state.stalls += 1
    patience = problem.options.patience
    if patience is not None and state.stalls >= patience:
        state.done = "patience"
