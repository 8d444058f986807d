"""Puts a server together: its protocols, all on one port, and what stands before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.server.app import App, Before
from serve.server.telemetry.telemetry import SLOT_VARIABLE, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.server.access.guard import Gate
    from serve.server.app import Service
    from serve.server.jobs import Jobs
    from serve.server.models.repository import Repository, Source
    from serve.server.settings import ServerSettings


def before(settings: ServerSettings, post: Callable[..., object], slot: int = 0) -> Before:
    """What every request passes, whatever answers it.

    Args:
        settings: The server's.
        post: Runs a callable on the event loop's thread.
        slot: The place of this process among the workers of its server.

    Raises:
        UsageError: A setting is wrong, or a file that one names.
    """
    guard = None
    if settings.api_keys or settings.oidc_issuer or settings.rate_limit:
        from serve.server.access.guard import Guard  # noqa: PLC0415 - most servers are open

        guard = Guard.from_settings(settings, post)
    place = {SLOT_VARIABLE: str(slot)}
    return Before(guard, Telemetry.from_settings(settings, post, place))


def model_app(
    source: Source,
    jobs: Jobs,
    settings: ServerSettings,
    passes: Before,
    post: Callable[..., object],
) -> App:
    """The routes of a server of models with schemas; loads them all.

    Args:
        source: The models.
        jobs: The threads of the server.
        settings: The server's.
        passes: See `before`.
        post: Runs a callable on the event loop's thread.

    Raises:
        ModelFileError: A model does not load; the error says why.
    """
    from serve.server.models.repository import Repository  # noqa: PLC0415 - scripts need no numpy

    repository = Repository(source, post, passes.telemetry)
    repository.load_all()
    app = App(jobs, settings, passes)
    app.add(*_services(repository, jobs, settings, lambda: app.ready))
    app.repository = repository
    repository.watch(app.refresh)
    if passes.guard is not None:
        _tell_default(passes.guard, repository)
    return app


def _tell_default(guard: Gate, repository: Repository) -> None:
    """Keeps the guard informed for which model a path without a name asks."""

    def tell() -> None:
        guard.default_model = repository.default.name if repository.default else ""

    tell()
    repository.watch(tell)


def _services(
    repository: Repository, jobs: Jobs, settings: ServerSettings, ready: Callable[[], bool]
) -> list[Service]:
    from serve.server.mlflow import MlflowService  # noqa: PLC0415
    from serve.server.score import ScoreService  # noqa: PLC0415
    from serve.server.v1 import V1Service  # noqa: PLC0415
    from serve.server.v2.service import V2Service  # noqa: PLC0415

    return [
        ScoreService(repository),
        V2Service(repository, jobs, settings),
        V1Service(repository),
        MlflowService(repository, ready),
    ]
