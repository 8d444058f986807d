"""A loaded model and the requests that wait for it (docs/adr/0040).

Calls that the event loop takes up in one turn share one run of a quick model; calls that wait for a
thread share the next run of a slow one. Nothing waits so that a batch may grow: one caller alone is
answered as if there were no batches.
"""

from __future__ import annotations

import logging
from collections import deque
from math import inf
from time import monotonic, perf_counter, thread_time
from typing import TYPE_CHECKING, Any

from scoring.errors import DeadlineExceededError, ModelNotReadyError, OverloadedError
from scoring.payload import Codec
from serve.server.cost import Cost
from serve.server.models import batches
from serve.server.models.deadlines import Deadlines
from serve.server.models.stats import ModelStats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scoring.bundle import Bundle
    from scoring.runtimes.base import Predictor
    from serve.server.jobs import Jobs
    from serve.server.models.batches import Outcome
    from serve.server.models.call import Call
    from serve.server.settings import ServerSettings
    from serve.server.telemetry.channel import Channel, ModelMeter
    from serve.server.telemetry.telemetry import Telemetry

logger = logging.getLogger(__name__)

_INLINE_BYTES = 1 << 20
_WARM_UPS = 3
_LONG_S = 0.05


class Run:
    """What one run of the model took, for the statistics."""

    __slots__ = ("calls", "infer_s", "input_s", "output_s", "rows")

    def __init__(self, rows: int, calls: int, times: tuple[float, float, float, float]) -> None:
        begun, ready, answered, done = times
        self.rows = rows
        self.calls = calls
        self.input_s = ready - begun
        self.infer_s = answered - ready
        self.output_s = done - answered


class ServedModel:
    """One version of a model. Everything but `_take` runs on the event loop's thread.

    Args:
        predictor: The model.
        bundle: What the package says of it.
        jobs: The threads of the server.
        settings: The server's.
        soon: Runs a callable in the loop's next turn (`loop.call_soon`).
        inline: The model may run on the loop at all.

    Attributes:
        name: What requests call it.
        version: What requests call this version.
        origin: Where it was loaded from; empty where nobody asks.
        schema: What it takes and answers.
        codec: For JSON by its schema.
        runtime: Of `scoring.runtimes`.
        format: Of the model's file.
        batches: Several requests may share a run.
        max_batch_rows: The most rows of one run.
        stats: What it has done.
        pending: Calls that are not settled.
    """

    def __init__(
        self,
        predictor: Predictor,
        bundle: Bundle,
        jobs: Jobs,
        settings: ServerSettings,
        soon: Callable[..., object],
        *,
        inline: bool,
    ) -> None:
        self.name = bundle.name
        self.version = str(bundle.model_version or 1)
        self.origin = ""
        self.schema = predictor.schema
        self.codec = Codec(predictor.schema, max_depth=settings.max_depth)
        self.runtime = bundle.runtime
        self.format = bundle.format
        self.max_batch_rows = settings.max_batch_rows
        self.batches = settings.max_batch_rows > 1 and batches.has_free_batch(self.schema)
        self.stats = ModelStats()
        self.pending = 0
        self._telemetry: Telemetry | None = None
        self._meter: ModelMeter | None = None
        self._channels: dict[str, Channel] = {}
        self._predict: Callable[[Any], dict[str, Any]] = predictor.predict
        self._fixed = batches.has_fixed_rows(self.schema)
        self._soon = soon
        self._jobs = jobs
        self._limit = settings.max_pending
        self._takers = settings.threads if predictor.thread_safe else 1
        self._takes = 0
        self._cost = Cost(settings.inline_ms / 1000 if inline and predictor.thread_safe else 0)
        self._turn: list[Call] = []
        self._queue: deque[Call] = deque()
        self._deadlines = Deadlines(self._queue, self._tell_late)
        self._closed: Callable[[], None] | None = None

    def submit(self, call: Call) -> None:
        """Takes a call; it is settled in a later turn of the loop.

        Raises:
            OverloadedError: As many calls as allowed are waiting.
            DeadlineExceededError: The call's deadline has passed.
            ModelNotReadyError: The model is being unloaded.
        """
        channel = self._channels.get(call.protocol)
        call.channel = self._channel(call) if channel is None else channel
        if self.pending >= self._limit or self._closed is not None:
            self._refuse()
        if call.deadline != inf and call.deadline <= monotonic():
            raise _late()
        self.pending += 1
        if not self._cost.inline or call.size > _INLINE_BYTES:
            self._queue.append(call)
            self._start_take()
            if call.deadline != inf:
                self._deadlines.watch(call.deadline)
            return
        try:
            call.inputs = inputs = call.decode()
        except Exception as error:  # noqa: BLE001 - told or logged by the call
            self._soon(self._finish, [(call, None, error)], ())
            return
        call.rows = batches.rows_of(inputs)
        turn = self._turn
        if not turn:
            self._soon(self._flush)
        turn.append(call)

    def count(self, telemetry: Telemetry, load_s: float) -> None:
        """Lets a server's telemetry count from now on what this model does.

        Args:
            telemetry: The server's.
            load_s: How long loading has taken.
        """
        self._telemetry = telemetry
        self._channels.clear()
        self._meter = telemetry.model(
            self.name, self.version, runtime=self.runtime, form=self.format
        )
        self._predict = telemetry.watched(self.name, self.version, self._predict)
        self._meter.depth = lambda: self.pending
        self._meter.loaded(load_s)

    def close(self, closed: Callable[[], None]) -> None:
        """Takes no more calls; `closed` is called once the last one is settled."""
        self._closed = closed
        if self._meter is not None:
            self._meter.unloaded()
        if not self.pending:
            self._deadlines.stop()
            self._soon(closed)

    def warm_up(self) -> None:
        """Answers the example: the first request is not slow, and what it costs is known.

        Also looks whether rows are answered alike alone and beside others; else there are no
        batches. Call it before the model is asked for, on any thread.
        """
        example = self.schema.example
        if example is None:
            return
        import orjson  # noqa: PLC0415 - here only

        body = orjson.dumps(example)
        try:
            for _ in range(_WARM_UPS):
                start = perf_counter()
                inputs = self.codec.decode(body).inputs
                self._predict(inputs)
                seconds = perf_counter() - start
                if seconds > _LONG_S:
                    break
            if self.batches:
                rows = batches.rows_of(inputs)
                self.batches = batches.rows_are_independent(self._predict, inputs, rows)
        except Exception as error:  # noqa: BLE001 - requests will tell; a model may raise anything
            logger.warning("The model does not answer its own example: %s", error)
        else:
            self._cost.note(seconds)

    def _channel(self, call: Call) -> Channel | None:
        if self._telemetry is None:
            return None
        found = self._telemetry.channel(call.protocol, self.name, self.version, route=call.route)
        self._channels[call.protocol] = found
        return found

    def _refuse(self) -> None:
        if self._closed is not None:
            raise ModelNotReadyError(
                f"The model {self.name!r} is being unloaded.", hint="Ask for another version."
            )
        if self._telemetry is not None:
            self._telemetry.rejected(OverloadedError.code)
        raise OverloadedError(
            f"{self.pending} requests are waiting already.", hint="Try again in a moment."
        )

    # On the loop

    def _flush(self) -> None:
        """Answers what one turn of the loop has brought."""
        calls, self._turn = self._turn, []
        begun = perf_counter()
        outcomes, runs = self._answer([call for call in calls if not call.cancelled])
        self._cost.note(perf_counter() - begun)
        self.pending -= len(calls) - len(outcomes)
        self._finish(outcomes, runs)

    def _finish(self, outcomes: Sequence[Outcome], runs: Sequence[Run]) -> None:
        self.pending -= len(outcomes)
        self._count(outcomes, runs)
        for call, result, error in outcomes:
            if not call.cancelled:
                try:
                    call.settle(result, error)
                except Exception:
                    logger.exception("An answer could not be given")
            if error is not None:
                # Its frames hold the list that holds it: the bodies would wait for the collector.
                error.__traceback__ = None
        if self._closed is not None and not self.pending:
            self._deadlines.stop()
            self._closed()

    def _tell_late(self, calls: list[Call]) -> None:
        """Answers calls that nobody waits for any more, though a run may last for long yet."""
        self._finish([(call, None, _late()) for call in calls], ())

    def _count(self, outcomes: Sequence[Outcome], runs: Sequence[Run]) -> None:
        now = perf_counter()
        stats = self.stats
        failed = 0
        spent = failed_s = 0.0
        for call, _, error in outcomes:
            if error is None:
                spent += now - call.begun
            else:
                failed += 1
                failed_s += now - call.begun
        stats.success.add(spent, len(outcomes) - failed)
        if failed:
            stats.fail.add(failed_s, failed)
        for run in runs:
            stats.ran(run.rows, run.calls, run.input_s, run.infer_s, run.output_s)
            if self._meter is not None:
                self._meter.ran(run.calls, run.rows, run.infer_s)

    # On threads

    def _start_take(self) -> None:
        if self._takes < self._takers and self._queue:
            self._takes += 1
            self._jobs.submit(self._take, self._taken, unbounded=True)

    def _take(self) -> tuple[list[Outcome], list[Run], int, float]:
        """Takes up what waits, and answers it."""
        begun = thread_time()
        taken, outcomes, dropped = self._next_calls()
        small = all(call.size <= _INLINE_BYTES for call in taken)
        answered, runs = self._answer(taken)
        # By the clock a thread would wait for the loop between its steps.
        seconds = thread_time() - begun if taken and small else 0.0
        return outcomes + answered, runs, dropped, seconds

    def _next_calls(self) -> tuple[list[Call], list[Outcome], int]:
        """Calls for one run, decoded; those that have failed already; how many were cancelled."""
        taken: list[Call] = []
        failed: list[Outcome] = []
        rows = dropped = 0
        while rows < self.max_batch_rows and (call := self._pop()) is not None:
            if call.cancelled:
                dropped += 1
                continue
            try:
                if call.deadline <= monotonic():
                    raise _late()  # noqa: TRY301 - one place for everything that ends a call here
                call.inputs = call.decode()
            except BaseException as error:  # noqa: BLE001 - told or logged by the call
                failed.append((call, None, error))
                continue
            call.rows = batches.rows_of(call.inputs)
            taken.append(call)
            rows += call.rows
            if not self.batches:
                break
        return taken, failed, dropped

    def _pop(self) -> Call | None:
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def _taken(
        self,
        result: tuple[list[Outcome], list[Run], int, float] | None,
        error: BaseException | None,
    ) -> None:
        self._takes -= 1
        if result is None:
            logger.error("A run of %s was lost", self.name, exc_info=error)
            return
        outcomes, runs, dropped, seconds = result
        self.pending -= dropped
        if seconds:
            self._cost.note(seconds)
        self._start_take()
        self._finish(outcomes, runs)

    # Where the model runs

    def _answer(self, calls: list[Call]) -> tuple[list[Outcome], list[Run]]:
        """Answers decoded calls, in as few runs as the limit allows."""
        outcomes: list[Outcome] = []
        runs: list[Run] = []
        if len(calls) > 1 and self.batches:
            for group in batches.groups(calls, self.max_batch_rows, fixed=self._fixed):
                self._answer_group(group, outcomes, runs)
        else:
            for call in calls:
                self._answer_group([call], outcomes, runs)
        return outcomes, runs

    def _answer_group(self, group: list[Call], outcomes: list[Outcome], runs: list[Run]) -> None:
        begun = perf_counter()
        rows = group[0].rows if len(group) == 1 else sum(call.rows for call in group)
        try:
            inputs = batches.merged(group)
            ready = perf_counter()
            outputs = self._outputs(inputs, rows)
            answered = perf_counter()
            if len(group) > 1:
                batches.require_even(outputs, rows)
        except BaseException as error:  # noqa: BLE001 - a model may raise anything
            self._answer_apart(group, error, outcomes, runs)
            return
        end = 0
        for call in group:
            begin, end = end, end + call.rows
            try:
                own = outputs if len(group) == 1 else batches.part(outputs, begin, end)
                outcomes.append((call, call.encode(own), None))
            except Exception as error:  # noqa: BLE001 - told or logged by the call
                outcomes.append((call, None, error))
        times = begun, ready, answered, perf_counter()
        for call in group:
            call.times = times
        runs.append(Run(rows, len(group), times))

    def _outputs(self, inputs: Any, rows: int) -> dict[str, Any]:
        if rows <= self.max_batch_rows or not self.batches:
            return self._predict(inputs)
        try:
            return batches.predict_in_pieces(self._predict, inputs, rows, self.max_batch_rows)
        except batches.UnevenError:
            self._stop_batches()
            return self._predict(inputs)

    def _answer_apart(
        self, group: list[Call], error: BaseException, outcomes: list[Outcome], runs: list[Run]
    ) -> None:
        """A batch has failed: whose fault it is shows when each is answered alone."""
        if len(group) == 1:
            outcomes.append((group[0], None, error))
            return
        if isinstance(error, batches.UnevenError):
            self._stop_batches()
        for call in group:
            self._answer_group([call], outcomes, runs)

    def _stop_batches(self) -> None:
        self.batches = False
        logger.warning(
            "%s does not answer one entry for each row: requests share no runs any more", self.name
        )


def _late() -> DeadlineExceededError:
    return DeadlineExceededError(
        "The deadline passed before the model began.", hint="Allow more time, or send less at once."
    )
