"""Batch runs in this process, with small models whose answers everyone can compute."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scoring.batch.planning import make_plan
from scoring.batch.records import Options, Plan, Summary
from scoring.batch.results import Result
from scoring.batch.shards import Scorer
from scoring.schema import ModelSchema
from tests.support.small_models import Classifier


class Answering:
    """A `scoring.batch.models.Model` of a small model; counts what it is asked."""

    def __init__(self, model: Any = None) -> None:
        self._model = model or Classifier()
        self.schema: ModelSchema | None = self._model.schema
        self.asked: list[int] = []

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(len(next(iter(inputs.values()))))
        answer: dict[str, Any] = self._model.predict(inputs)
        return answer

    def ask(self, body: bytes) -> bytes:
        raise AssertionError("a model is not asked as a script is")

    def close(self) -> None:
        pass


class Scripted:
    """A `Model` that is a script: a function of the parsed body."""

    schema = None

    def __init__(self, run: Callable[[Any], Any]) -> None:
        self._run = run
        self.bodies: list[Any] = []

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        raise AssertionError("a script is asked")

    def ask(self, body: bytes) -> bytes:
        self.bodies.append(json.loads(body))
        return json.dumps(self._run(self.bodies[-1])).encode()

    def close(self) -> None:
        pass


def run(model: Any, source: Path | str, output: Path | str, **options: Any) -> Summary:
    """A whole run, from its plan to its end."""
    chosen = Options(input=str(source), output=str(output), **options)
    plan = make_plan(chosen, model, "sha256:test")
    result = Result(chosen.output)
    result.claim(plan)
    scorer = Scorer(plan, model, result)
    for shard in range(len(plan.shards)):
        scorer.run(shard)
    return result.finish(plan)


def plan_of(model: Any, source: Path | str, output: Path | str = "out", **options: Any) -> Plan:
    """The plan of a run."""
    return make_plan(Options(input=str(source), output=str(output), **options), model, "x")


def rows_of(place: Path | str) -> list[dict[str, Any]]:
    """The rows of a result: of a file, or of all parts of a folder, in order."""
    path = Path(place)
    if path.is_dir():
        return [row for part in sorted(path.glob("part-*")) for row in rows_of(part)]
    if path.suffix == ".parquet":
        table: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return table
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    return [json.loads(line) for line in text.splitlines()]
