"""One shard: read, asked, written, and marked as done when all of it is in its place."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from scoring.batch import blocks, writers
from scoring.batch.chunks import Chunk
from scoring.batch.decoding import Decoder, rows_of
from scoring.batch.models import Model
from scoring.batch.reading import read_chunks
from scoring.batch.records import Done, Plan, Source
from scoring.batch.results import Result, arrow_types, result_kinds
from scoring.batch.scripts import body_of
from scoring.batch.signature import refit
from scoring.batch.stores import store_of
from scoring.errors import FieldpostError, InputError, ScoringFailedError

if TYPE_CHECKING:
    from scoring.batch.writers import Writer

Tick = Callable[[int], object]
"""Takes the number of rows that were scored since the last call."""

_Piece = tuple[list[int], list[Any]]


class Scorer:
    """Scores the shards of a plan, one at a time.

    Args:
        plan: Of the run.
        model: That answers.
        result: Where the parts go.
    """

    def __init__(self, plan: Plan, model: Model, result: Result) -> None:
        self._plan, self._model, self._result = plan, model, result
        self._store, _ = store_of(plan.options.input)
        self._kinds = result_kinds(plan)
        self._arrow = arrow_types(plan)

    def run(self, shard: int, tick: Tick = lambda _rows: None) -> Done:
        """Scores one shard; done again, it writes the same.

        Args:
            shard: Its number.
            tick: Told of progress.

        Raises:
            InputError: A row is not taken, and rows are not to be left out; says which.
            ScoringFailedError: The model failed.
            WorkspaceError: The result cannot be written.
        """
        begun = time.monotonic()
        plan, store = self._plan, self._result.store
        with self._result.scratch() as folder:
            done = self._write(shard, folder, tick)
            store.take(folder / "part", self._result.part(plan, shard))
            if done.rejected:
                store.take(folder / "rejects", self._result.rejected(plan, shard))
        done = msgspec.structs.replace(done, seconds=round(time.monotonic() - begun, 3))
        self._result.mark(plan, done)
        return done

    def _write(self, number: int, folder: Path, tick: Tick) -> Done:
        plan = self._plan
        shard = plan.shards[number]
        source = plan.sources[shard.source]
        asked = _Asked(plan, self._model, source)
        wanted = (*plan.inputs, *(kept.name for kept in plan.kept))
        rows = written = 0
        with (
            contextlib.closing(
                writers.writer(plan.format, folder / "part", self._kinds, self._arrow)
            ) as part,
            (folder / "rejects").open("wb") as rejects,
            read_chunks(self._store, source, shard, plan.options, wanted) as chunks,
        ):
            for chunk in chunks:
                written += self._chunk(chunk, asked, part)
                rows += len(chunk)
                for line in asked.rejects(chunk):
                    rejects.write(writers.dumps(line) + b"\n")
                tick(len(chunk))
        return Done(shard=number, rows=rows, written=written, rejected=asked.rejected)

    def _chunk(self, chunk: Chunk, asked: _Asked, part: Writer) -> int:
        """Asks and writes one chunk; how many rows of the result it makes."""
        pieces = asked.pieces(chunk)
        size = len(chunk)
        if len(pieces) == 1 and len(pieces[0][0]) == size:
            kept = [chunk.kept(each.name) for each in self._plan.kept]
            part.write([*kept, *pieces[0][1]])
            return size
        indices = list(range(size))
        if self._plan.options.on_error == "skip":
            indices = sorted(index for piece, _ in pieces for index in piece)
            chunk = chunk.select(indices)
        columns = [
            _gathered([(piece, columns[place]) for piece, columns in pieces], indices, size)
            for place in range(len(self._plan.answers))
        ]
        part.write([*(chunk.kept(each.name) for each in self._plan.kept), *columns])
        return len(indices)


def _gathered(
    parts: Sequence[tuple[list[int], Any]], wanted: Sequence[int], size: int
) -> list[Any]:
    """A column whose rows were answered in several pieces, or not at all."""
    whole: list[Any] = [None] * size
    for indices, column in parts:
        for index, value in zip(indices, blocks.values_of(column), strict=True):
            whole[index] = value
    return [whole[index] for index in wanted]


class _Asked:
    """Asks the model for chunks of one file, and finds the rows that it does not take.

    Args:
        plan: Of the run.
        model: That answers.
        source: The file.
    """

    def __init__(self, plan: Plan, model: Model, source: Source) -> None:
        self._plan, self._model, self._source = plan, model, source
        self._fitted = refit(model.schema, plan.mode, plan.inputs)
        self._decoder = None if model.schema is None else Decoder(model.schema, self._fitted)
        self._faults: dict[int, FieldpostError] = {}
        self.rejected = 0

    def pieces(self, chunk: Chunk) -> list[_Piece]:
        """Indices of rows, and the columns of their answers, in order.

        Raises:
            InputError: A row is not taken, and rows are not to be left out.
        """
        self._faults = dict(chunk.broken)
        good = [number for number in range(len(chunk)) if number not in chunk.broken]
        if len(good) < len(chunk):
            self._fail_at_first(chunk)
        part = chunk if len(good) == len(chunk) else chunk.select(good)
        found = self._answered(part, good) if good else []
        self._fail_at_first(chunk)
        self.rejected += len(self._faults)
        return found

    def rejects(self, chunk: Chunk) -> list[dict[str, Any]]:
        """The rows of the last chunk that were not taken, and why."""
        unit = "row" if self._source.format == "parquet" else "line"
        return [
            {
                "file": self._source.path,
                unit: chunk.places[number],
                **({"column": error.where} if error.where else {}),
                "code": error.code,
                "reason": error.message,
            }
            for number, error in sorted(self._faults.items())
        ]

    def _answered(self, part: Chunk, numbers: list[int]) -> list[_Piece]:
        if self._decoder is None:
            return self._try(numbers, lambda indices: self._ask(part, indices))
        inputs, broken = self._decoder.decode(part)
        left = [number for n, number in enumerate(numbers) if n not in broken]
        self._faults |= {numbers[n]: error for n, error in broken.items()}
        if not left:
            return []

        def predict(indices: list[int]) -> list[Any]:
            some = inputs if len(indices) == len(left) else rows_of(inputs, indices)
            outputs = self._model.predict(some)
            return blocks.answer_columns(outputs, self._plan.answers, len(indices))

        return self._try(left, predict)

    def _try(self, numbers: list[int], ask: Callable[[list[int]], list[Any]]) -> list[_Piece]:
        """Asks for all rows at once; where that fails, for halves of them, and so on."""
        found: list[_Piece] = []
        waiting = [list(range(len(numbers)))]
        while waiting:
            indices = waiting.pop()
            try:
                found.append(([numbers[index] for index in indices], ask(indices)))
            except (InputError, ScoringFailedError) as error:
                if error.retryable:
                    raise
                if len(indices) == 1:
                    self._faults[numbers[indices[0]]] = error
                    if self._plan.options.on_error == "fail":
                        break
                else:
                    middle = len(indices) // 2
                    waiting += [indices[middle:], indices[:middle]]
        return found

    def _ask(self, part: Chunk, indices: list[int]) -> list[Any]:
        rows = part if len(indices) == len(part) else part.select(indices)
        body = body_of(rows, self._fitted.columns, self._plan.options)
        try:
            answer = orjson.loads(self._model.ask(body))
        except orjson.JSONDecodeError as error:
            raise ScoringFailedError(f"The script's answer is no JSON: {error}.") from None
        columns = blocks.script_columns(answer, len(rows))
        known = {each.output for each in self._plan.answers}
        if unknown := [name for name in columns if name not in known]:
            raise ScoringFailedError(
                f"The script answered {', '.join(unknown) or 'plain values'}, which its answer "
                "to the first rows did not have.",
                hint="Let run() answer each row with the same keys.",
            )
        blank: list[Any] = [None] * len(rows)
        return [columns.get(each.output, blank) for each in self._plan.answers]

    def _fail_at_first(self, chunk: Chunk) -> None:
        if not self._faults or self._plan.options.on_error != "fail":
            return
        number = min(self._faults)
        error = self._faults[number]
        unit = "row" if self._source.format == "parquet" else "line"
        raise type(error)(
            f"{self._source.path}, {unit} {chunk.places[number]}: {error.message}",
            hint=error.hint or "Give --on-error skip (or null) to go on without such rows.",
            where=f"{self._source.path}:{chunk.places[number]}",
            detail=error.detail,
        )
