"""One model: who is let in, who shares a run, and what is done at its end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scoring.bundle import Bundle
from scoring.errors import DeadlineExceededError, ModelNotReadyError, OverloadedError
from scoring.schema import ModelSchema, TensorSpec
from serve.server.jobs import Jobs
from serve.server.models.call import Call
from serve.server.models.served import ServedModel
from serve.server.settings import ServerSettings
from tests.support.server import Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scoring.runtimes.base import Arrays


class Ask(Call):
    def __init__(self, *rows: list[float], deadline: float = float("inf"), size: int = 1) -> None:
        super().__init__(size, time.perf_counter(), deadline)
        self.given = rows
        self.settled: list[Any] = []

    def decode(self) -> Arrays:
        return {"x": np.array(self.given, dtype=np.float32)}

    def encode(self, outputs: Mapping[str, Any]) -> Any:
        return outputs["total"].tolist()

    def settle(self, result: Any, error: BaseException | None) -> None:
        self.settled.append(error if error is not None else result)


class Loop:
    """Turns of an event loop, one at a time."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def soon(self, call: Callable[..., object], *args: Any) -> None:
        self.waiting.append(lambda: call(*args))

    def turn(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()


def serve(
    model: Any = None, *, loop: Loop, inline: bool = True, **given: Any
) -> tuple[ServedModel, Jobs]:
    values = ServerSettings(**{"inline_ms": 1e9 if inline else 0, **given})
    jobs = Jobs(loop.soon, 100)
    bundle = Bundle(name="sums", model_version=3, runtime="onnx", format="onnx")
    made = ServedModel(model or Sums(), bundle, jobs, values, loop.soon, inline=inline)
    made.warm_up()
    return made, jobs


def work(jobs: Jobs, loop: Loop) -> None:
    """Does on this thread what is queued, and lets the loop hear of it."""
    jobs.stop()
    jobs.work()
    loop.turn()


def test_calls_of_one_turn_share_a_run_and_keep_their_parts() -> None:
    loop, model = Loop(), Sums()
    served, _ = serve(model, loop=loop)
    before = model.calls
    first, second = Ask([1, 2, 3], [4, 5, 6]), Ask([7, 8, 9])
    for ask in (first, second):
        served.submit(ask)
    assert not first.settled
    loop.turn()
    assert (first.settled, second.settled) == ([[6.0, 15.0]], [[24.0]])
    assert model.calls == before + 1
    assert served.stats.inference_count == 3
    assert served.stats.execution_count == 1
    assert served.stats.success.count == 2
    assert served.stats.batches[3].infer.count == 1


def test_a_cancelled_call_is_not_computed() -> None:
    for inline in (True, False):
        loop, model = Loop(), Sums()
        served, jobs = serve(model, loop=loop, inline=inline)
        before = model.calls
        ask = Ask([1, 2, 3])
        served.submit(ask)
        ask.cancel()
        loop.turn()
        work(jobs, loop)
        assert model.calls == before
        assert not ask.settled
        assert served.pending == 0


def test_a_deadline_that_passes_in_the_queue_is_told_and_not_computed() -> None:
    loop, model = Loop(), Sums()
    served, jobs = serve(model, loop=loop, inline=False)
    before = model.calls
    ask = Ask([1, 2, 3], deadline=time.monotonic() + 0.01)

    async def submit() -> None:
        served.submit(ask)

    asyncio.run(submit())  # ends before the deadline: it is the thread that sees it pass
    time.sleep(0.02)
    work(jobs, loop)
    assert isinstance(ask.settled[0], DeadlineExceededError)
    assert model.calls == before
    assert served.pending == 0
    with pytest.raises(DeadlineExceededError):
        served.submit(Ask([1, 2, 3], deadline=time.monotonic() - 1))


def test_a_deadline_is_told_when_it_passes_though_nobody_takes_up_the_call() -> None:
    loop, model = Loop(), Sums()
    served, jobs = serve(model, loop=loop, inline=False)
    before = model.calls
    now = time.monotonic()
    asks = [Ask([1, 2, 3], deadline=now + after) for after in (60, 0.04, 0.02, float("inf"))]

    async def submit() -> None:
        for ask in asks:
            served.submit(ask)
        while not asks[1].settled:  # noqa: ASYNC110 - calls settle without awaiting
            await asyncio.sleep(0.001)

    asyncio.run(submit())
    assert [bool(ask.settled) for ask in asks] == [False, True, True, False]
    assert isinstance(asks[2].settled[0], DeadlineExceededError)
    assert served.pending == 2
    assert served.stats.fail.count == 2
    work(jobs, loop)
    assert [ask.settled for ask in (asks[0], asks[3])] == [[[6.0]], [[6.0]]]
    assert model.calls == before + 1
    assert served.pending == 0


def test_a_full_queue_refuses_at_once() -> None:
    loop = Loop()
    served, jobs = serve(loop=loop, inline=False, max_pending=2)
    asks = [Ask([1, 2, 3]), Ask([4, 5, 6])]
    for ask in asks:
        served.submit(ask)
    with pytest.raises(OverloadedError, match="2 requests"):
        served.submit(Ask([7, 8, 9]))
    work(jobs, loop)
    assert [ask.settled for ask in asks] == [[[6.0]], [[15.0]]]


def test_a_model_that_ends_finishes_what_it_has_begun() -> None:
    loop, closed = Loop(), []
    served, _ = serve(loop=loop)
    ask = Ask([1, 2, 3])
    served.submit(ask)
    served.close(lambda: closed.append(True))
    with pytest.raises(ModelNotReadyError):
        served.submit(Ask([1, 2, 3]))
    assert not closed
    loop.turn()
    assert ask.settled == [[6.0]]
    assert closed == [True]


class Softmax(Sums):
    """Its rows depend on each other, and nothing in its schema says so."""

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        outputs = super().predict(inputs)
        return {**outputs, "total": outputs["total"] / outputs["total"].sum()}


class Least(Sums):
    """Answers one number for the whole batch."""

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        outputs = super().predict(inputs)
        return {**outputs, "total": outputs["total"].min(keepdims=True)}


@pytest.mark.parametrize("model", [Softmax(), Least()], ids=["softmax", "least"])
def test_models_whose_rows_depend_on_each_other_are_not_batched(model: Sums) -> None:
    loop = Loop()
    served, _ = serve(model, loop=loop)
    assert not served.batches


def test_a_model_without_a_free_batch_is_not_batched() -> None:
    class Fixed(Sums):
        schema = ModelSchema(
            inputs=(TensorSpec("x", "float32", (1, 3)),),
            outputs=(TensorSpec("total", "float32", (1,)),),
        )

    loop, model = Loop(), Fixed()
    served, _ = serve(model, loop=loop)
    asks = [Ask([1, 2, 3]), Ask([4, 5, 6])]
    served._cost.note(1e-6)
    for ask in asks:
        served.submit(ask)
    loop.turn()
    assert [ask.settled for ask in asks] == [[[6.0]], [[15.0]]]
    assert model.calls == 2


def test_a_model_that_turns_out_uneven_is_answered_one_by_one() -> None:
    class Sometimes(Sums):
        schema = ModelSchema(
            inputs=Sums.schema.inputs, outputs=Sums.schema.outputs, features=("a", "b", "c")
        )

        def predict(self, inputs: Arrays) -> dict[str, Any]:
            outputs = super().predict(inputs)
            return {name: value[:1] for name, value in outputs.items()}

    loop = Loop()
    served, _ = serve(Sometimes(), loop=loop)
    assert served.batches
    served._cost.note(1e-6)
    asks = [Ask([1, 2, 3]), Ask([4, 5, 6])]
    for ask in asks:
        served.submit(ask)
    loop.turn()
    assert [ask.settled for ask in asks] == [[[6.0]], [[15.0]]]
    assert not served.batches


def test_one_large_request_is_answered_in_several_runs() -> None:
    loop, model = Loop(), Sums()
    served, _ = serve(model, loop=loop, max_batch_rows=4)
    before = model.calls
    ask = Ask(*[[float(n), 0, 0] for n in range(10)])
    served.submit(ask)
    loop.turn()
    assert ask.settled == [[float(n) for n in range(10)]]
    assert model.calls == before + 3


def test_large_bodies_are_decoded_on_a_thread() -> None:
    loop = Loop()
    served, jobs = serve(loop=loop)
    ask = Ask([1, 2, 3], size=1 << 21)
    served.submit(ask)
    loop.turn()
    assert not ask.settled
    work(jobs, loop)
    assert ask.settled == [[6.0]]


def test_models_get_aligned_arrays_whatever_a_body_held_before_them() -> None:
    seen: list[bool] = []

    class Strict(Sums):
        def predict(self, inputs: Arrays) -> dict[str, Any]:
            seen.append(bool(inputs["x"].flags.aligned))
            return super().predict(inputs)

    class Cut(Ask):
        def decode(self) -> Arrays:
            raw = b"!" + np.array(self.given, dtype=np.float32).tobytes()
            return {"x": np.frombuffer(raw, np.uint8)[1:].view(np.float32).reshape(-1, 3)}

    loop = Loop()
    served, _ = serve(Strict(), loop=loop)
    seen.clear()
    for number in (1, 2):
        asks = [Cut([1, 2, 3]) for _ in range(number)]
        for ask in asks:
            served.submit(ask)
        loop.turn()
        assert [ask.settled for ask in asks] == [[[6.0]]] * number
    assert seen == [True, True]
