"""Random mixes of requests: what each is answered beside others is what it is answered alone."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.bundle import Bundle
from scoring.errors import WrongTypeError
from scoring.schema import ModelSchema, TensorSpec
from serve.server.jobs import Jobs
from serve.server.models.call import Call
from serve.server.models.served import ServedModel
from serve.server.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scoring.runtimes.base import Arrays

SCHEMA = ModelSchema(
    inputs=(TensorSpec("x", "float32", (None, None)), TensorSpec("name", "string", (None, 1))),
    outputs=(
        TensorSpec("total", "float32", (None,)),
        TensorSpec("shout", "string", (None, 1)),
        TensorSpec("each", "map", (None,)),
    ),
)


class Model:
    """Rows are independent; a negative number fails the whole run, as a real model's refusal."""

    schema = SCHEMA
    thread_safe = True

    def __init__(self) -> None:
        self.rows: list[int] = []

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        x, names = inputs["x"], inputs["name"]
        self.rows.append(len(x))
        if (x < 0).any():
            raise WrongTypeError("a negative number")
        return {
            "total": x.sum(axis=1, dtype=np.float32),
            "shout": np.array([[name.upper()] for name in names[:, 0]], dtype=object),
            "each": [{"n": float(row.sum())} for row in x],
        }


class Ask(Call):
    """One request, with a parameter of its own that it gets back."""

    def __init__(self, number: int, x: Any, names: list[str], bad: bool) -> None:
        super().__init__(size=10, begun=0.0)
        self.number = number
        self.x = x
        self.names = names
        self.bad = bad
        self.settled: list[Any] = []

    def decode(self) -> Arrays:
        if self.bad:
            raise WrongTypeError("does not decode")
        names = np.array(self.names, dtype=object).reshape(-1, 1)
        return {"x": np.array(self.x, dtype=np.float32), "name": names}

    def encode(self, outputs: Mapping[str, Any]) -> Any:
        if "refuse" in self.names:
            raise WrongTypeError("does not encode")
        total, shout, each = outputs.values()
        return self.number, total.tolist(), shout.tolist(), list(each)

    def settle(self, result: Any, error: BaseException | None) -> None:
        self.settled.append(result if error is None else type(error))


class Turns:
    """An event loop's queue, run by hand; the model's threads are this one."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def soon(self, call: Callable[..., object], *args: Any) -> None:
        self.waiting.append((call, args))

    def run(self) -> None:
        while self.waiting:
            call, args = self.waiting.popleft()
            call(*args)


class Here(Jobs):
    """Runs what is submitted when the loop comes to it."""

    def __init__(self, turns: Turns) -> None:
        super().__init__(turns.soon, 1000)
        self.turns = turns

    def submit(self, call: Any, done: Any, **_: Any) -> Any:
        self.turns.soon(lambda: done(call(), None))


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    rows = draw(st.integers(1, 5))
    columns = draw(st.integers(1, 3))
    numbers = st.integers(-1, 1000) if draw(st.booleans()) else st.integers(0, 1000)
    x = draw(
        st.lists(
            st.lists(numbers, min_size=columns, max_size=columns), min_size=rows, max_size=rows
        )
    )
    names = draw(st.lists(st.sampled_from(["a", "bc", "refuse"]), min_size=rows, max_size=rows))
    return Ask(draw(st.integers()), x, names, draw(st.sampled_from([False, False, False, True])))


def serve(model: Model, limit: int, *, inline: bool) -> tuple[ServedModel, Turns]:
    turns = Turns()
    given = ServerSettings(max_batch_rows=limit, inline_ms=1e9 if inline else 0, threads=1)
    bundle = Bundle(name="m", model_version=1, runtime="onnx", format="onnx")
    made = ServedModel(model, bundle, Here(turns), given, turns.soon, inline=inline)
    if inline:  # what a warm-up with an example would note
        made._cost.note(1e-6)
    return made, turns


def answers(given: list[Ask], limit: int, *, inline: bool) -> tuple[list[Any], Model]:
    model = Model()
    made, turns = serve(model, limit, inline=inline)
    again = [Ask(ask.number, ask.x, ask.names, ask.bad) for ask in given]
    for ask in again:
        made.submit(ask)
    turns.run()
    assert made.pending == 0
    assert all(len(ask.settled) == 1 for ask in again)
    return [ask.settled[0] for ask in again], model


@settings(max_examples=150, deadline=None)
@given(st.lists(asks(), min_size=1, max_size=12), st.integers(2, 9), st.booleans())
def test_answers_are_those_of_each_request_alone(
    given: list[Ask], limit: int, inline: bool
) -> None:
    alone = [answers([ask], 1, inline=inline)[0][0] for ask in given]
    together, model = answers(given, limit, inline=inline)
    assert together == alone
    assert all(rows <= limit for rows in model.rows)


def test_requests_of_one_turn_share_one_run() -> None:
    given = [Ask(n, [[n]], ["a"], bad=False) for n in range(5)]
    together, model = answers(given, 16, inline=True)
    assert [answer[:2] for answer in together] == [(n, [float(n)]) for n in range(5)]
    assert model.rows == [5]


def test_requests_that_wait_for_a_thread_share_one_run() -> None:
    given = [Ask(n, [[n, n]], ["a"], bad=False) for n in range(5)]
    _, model = answers(given, 16, inline=False)
    assert model.rows == [5]


def test_one_that_fails_alone_takes_nobody_along() -> None:
    given = [Ask(1, [[1]], ["a"], False), Ask(2, [[-1]], ["a"], False), Ask(3, [[3]], ["a"], False)]
    together, _ = answers(given, 16, inline=True)
    assert together[1] is WrongTypeError
    assert [together[0][1], together[2][1]] == [[1.0], [3.0]]
