"""A live server of some models with the protocols that a test names."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.schema import ModelSchema, TensorSpec
from serve.server.app import App, Before, Service
from serve.server.jobs import Jobs
from serve.server.models.repository import Repository
from serve.server.models.served import ServedModel
from serve.server.settings import ServerSettings
from tests.support.server import LiveServer, Models, served

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scoring.runtimes.base import Arrays


class Classifier:
    """Tells whether the first of two columns is the larger one."""

    schema = ModelSchema(
        inputs=(TensorSpec("x", "float32", (None, 2)),),
        outputs=(
            TensorSpec("label", "string", (None,)),
            TensorSpec("probabilities", "float32", (None, 2)),
        ),
        features=("left", "right"),
        classes=("left", "right"),
        example={"data": [[1.0, 2.0]]},
    )
    thread_safe = True

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        left = inputs["x"][:, 0] > inputs["x"][:, 1]
        labels = np.where(left, "left", "right").astype(object)
        chances = np.stack([left, ~left], axis=1).astype(np.float32)
        return {"label": labels, "probabilities": chances}


class Columns:
    """Takes columns of every kind, and answers with what it saw of each row."""

    schema = ModelSchema(
        inputs=(
            TensorSpec("name", "string", (None, 1)),
            TensorSpec("note", "string", (None, 1), missing=True),
            TensorSpec("count", "int64", (None, 1)),
            TensorSpec("size", "float64", (None, 1), missing=True),
            TensorSpec("known", "bool", (None, 1)),
        ),
        outputs=(TensorSpec("seen", "string", (None,)),),
        layout="table",
    )
    thread_safe = True

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        rows = zip(*(inputs[spec.name][:, 0] for spec in self.schema.inputs), strict=True)
        return {"seen": np.array(["|".join(map(str, row)) for row in rows], dtype=object)}


def serve_protocols(
    models: Mapping[str, Any],
    services: Callable[[Repository], list[Service]],
    *,
    inline: bool = True,
    **given: Any,
) -> LiveServer:
    """A server of predictors by name, with some protocols."""

    def make(jobs: Jobs, settings: ServerSettings, loop: asyncio.AbstractEventLoop) -> App:
        soon, post = loop.call_soon, loop.call_soon_threadsafe

        def opener(name: str) -> Callable[[], list[ServedModel]]:
            return lambda: [served(models[name], jobs, settings, soon, name=name, inline=inline)]

        source = Models(**{name: opener(name) for name in models})
        repository = Repository(source, post)
        for name in models:
            repository.put(name, source.open(name, {}))
        app = App(jobs, settings, Before())
        app.add(*services(repository))
        app.repository = repository
        repository.watch(app.refresh)
        return app

    return LiveServer(make, **{"inline_ms": 1e6, **given})
