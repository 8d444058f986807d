"""Puts a server's protocols together: all of them on one port, each for all models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.server.app import App

if TYPE_CHECKING:
    from serve.server.jobs import Jobs
    from serve.server.models.repository import Repository
    from serve.server.settings import ServerSettings


def model_app(repository: Repository, jobs: Jobs, settings: ServerSettings) -> App:
    """The routes of a server of models with schemas."""
    from serve.server.score import ScoreService  # noqa: PLC0415 - scripts need no numpy

    app = App([ScoreService(repository)], jobs, settings.max_body_bytes)
    app.repository = repository
    repository.watch(app.refresh)
    return app
