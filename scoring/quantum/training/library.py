"""The training loop of the Q# library, with its gradient mended.

Each epoch takes the samples that the present angles get wrong, in their order and in minibatches.
For each it steps along the gradient and keeps the step only where the best angles ever miss more.
An epoch that changes nothing is a stall: the next one takes smaller minibatches and longer steps,
and later moves the angles a little by chance.

What the library got wrong, and is right here (the gradient `qsharp_released` repeats it all): its
gradient was zero, it forgot the bias that it had fitted with a step, and it ignored the training
schedule and the scoring period.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scoring.quantum.training.problem import Places, Problem
from scoring.quantum.training.state import RunState

_LEAST_STEP = 1e-7
_EQUAL = 1e-12
_HEATING = 1.25


def epoch(problem: Problem, state: RunState) -> None:
    """Advances a start point by one epoch; `state.done` says when it has ended."""
    random = state.generator()
    if not state.epoch:
        _begin(problem, state, random)
    if state.epoch >= problem.options.max_epochs:
        state.done = "max_epochs"
    else:
        _epoch(problem, state, random)
    state.keep(random)


def _begin(problem: Problem, state: RunState, random: np.random.Generator) -> None:
    """Scores the start point, which is the best one so far."""
    outcomes = problem.outcomes(state.parameters, random)
    state.bias = problem.fit_bias(outcomes, problem.labels, state.bias)
    state.best_bias = state.bias
    state.best_score = float(problem.misses(outcomes, state.bias, problem.labels))
    state.memory["start_misses"] = int(state.best_score)
    _cool(problem, state)


def _cool(problem: Problem, state: RunState) -> None:
    state.stalls = 0
    state.memory["rate"] = problem.options.learning_rate
    state.memory["batch"] = problem.options.minibatch_size


def _epoch(problem: Problem, state: RunState, random: np.random.Generator) -> None:
    parameters, bias, best = _attempt(problem, state, random)
    state.epoch += 1
    if best < state.best_score:
        state.best_score = float(best)
        state.best_parameters, state.best_bias = list(parameters), bias
        if best / len(problem.labels) < problem.options.tolerance:
            state.done = "tolerance"
        _cool(problem, state)
    state.history.append(state.best_score)
    if not state.done:
        _move_on(problem, state, parameters, bias, random)


def _move_on(
    problem: Problem,
    state: RunState,
    parameters: list[float],
    bias: float,
    random: np.random.Generator,
) -> None:
    same = np.abs(np.subtract(parameters, state.parameters)).max(initial=0.0) <= _EQUAL
    if not same or abs(bias - state.bias) > _EQUAL:
        _cool(problem, state)
        state.parameters, state.bias = parameters, bias
        return
    state.stalls += 1
    if state.stalls > problem.options.max_stalls:
        state.done = "stalls"
        return
    state.memory["batch"] = state.stalls
    state.memory["rate"] *= _HEATING
    if state.stalls > problem.options.max_stalls // 2:
        factor = problem.options.stochastic_rescale_factor
        signs = random.choice((-1.0, 1.0), size=len(parameters) + 1)
        state.parameters = (np.asarray(parameters) * (1 + factor * signs[:-1])).tolist()
        state.bias = bias * (1 + factor * float(signs[-1]))


def _attempt(
    problem: Problem, state: RunState, random: np.random.Generator
) -> tuple[list[float], float, int]:
    """Tries to learn from the misses; the angles and bias to go on with, and the fewest misses."""
    options = problem.options
    best = (list(state.parameters), state.bias, int(state.best_score))
    trial = best[0]
    period = 1 if options.released else options.scoring_period
    batches = list(_minibatches(problem, state, random))
    for count, (places, predicted) in enumerate(batches, 1):
        step = _step(problem, trial, places, predicted, state.memory["rate"], random)
        if float(step @ step) <= _LEAST_STEP:
            continue
        trial = (np.asarray(trial) + step).tolist()
        if count % period and count < len(batches):
            continue
        found = _score(problem, trial, best[1], random)
        if found[1] < best[2]:
            best = (trial, best[1] if options.released else found[0], found[1])
        trial = best[0]
    return best


def _minibatches(
    problem: Problem, state: RunState, random: np.random.Generator
) -> Iterator[tuple[Places, NDArray[np.intp]]]:
    """The samples that are wrong now, and what they are taken for, a few at a time."""
    places = problem.training
    outcomes = problem.outcomes(state.parameters, random, places)
    predicted = problem.predict(outcomes, state.bias)
    wrong = np.flatnonzero(predicted != problem.labels[places])
    size = int(state.memory["batch"])
    for start in range(0, len(wrong), size):
        chosen = wrong[start : start + size]
        yield places[chosen], predicted[chosen]


def _step(
    problem: Problem,
    parameters: list[float],
    places: Places,
    predicted: NDArray[np.intp],
    rate: float,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Towards what the samples are, away from what they are taken for: a sum, not a mean."""
    rows = np.arange(len(places))
    labels = problem.labels[places]

    def weigh(outcomes: NDArray[np.float64], where: slice) -> NDArray[np.float64]:
        weights = np.zeros_like(outcomes)
        inner = rows[: len(outcomes)]
        weights[inner, labels[where]] += 1.0
        weights[inner, predicted[where]] -= 1.0
        return weights

    states = problem.states[places]
    _, gradient = problem.gradients.gradient(parameters, states, weigh, random)
    return rate * gradient


def _score(
    problem: Problem, parameters: list[float], bias: float, random: np.random.Generator
) -> tuple[float, int]:
    """The bias that fits the angles, and the misses with it."""
    outcomes = problem.outcomes(parameters, random)
    fitted = problem.fit_bias(outcomes, problem.labels, bias)
    return fitted, problem.misses(outcomes, fitted, problem.labels)
