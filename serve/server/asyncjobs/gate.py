"""The door to asynchronous jobs: all that a server imports of them until one is asked for."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.errors import FieldpostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serve.server.app import Handler, Shape, Table
    from serve.server.asyncjobs.service import AsyncJobs
    from serve.server.exchange import Exchange
    from serve.server.hub import Fast
    from serve.server.jobs import Jobs
    from serve.server.settings import ServerSettings

logger = logging.getLogger(__name__)

_INFERENCE = re.compile(
    r"/(score|invocations|predictions"
    r"|v1/models/[^/]+:predict|v2/models/[^/]+(/versions/[^/]+)?/infer)"
)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


class AsyncJobsGate:
    """Opens the jobs of a server when they are first asked for, or at the start if there are any.

    It is a service as `serve.server.app` has it, with the paths `/jobs` and below.

    Args:
        settings: The server's.
        name: Of the deployment or package: whose jobs these are, unless a setting says.
        jobs: The queue of the live requests.
        post: Runs a callable on the event loop's thread (`loop.call_soon_threadsafe`).
        dispatch: Answers an exchange by its route.
        concurrency: How many jobs run at once in this worker.
    """

    def __init__(
        self,
        settings: ServerSettings,
        name: str,
        jobs: Jobs,
        post: Callable[..., object],
        dispatch: Callable[[Exchange], None],
        *,
        concurrency: int = 1,
    ) -> None:
        self._settings = settings
        self._folder = folder_of(settings.jobs_dir, name)
        self._jobs = jobs
        self._post = post
        self._dispatch = dispatch
        self._concurrency = concurrency
        self._opened: AsyncJobs | None = None
        self.fast: Mapping[bytes, Fast] = {}
        self.routes: Table = {"/jobs": {"GET": self._list}}
        self.prefixes: Mapping[str, Handler] = {"/jobs/": self._job}
        self.shapes: Mapping[str, Shape] = {}

    def start(self) -> None:
        """Goes on with the jobs that are there; on the event loop's thread."""
        try:
            if self._folder.is_dir():
                self._open()
        except (FieldpostError, OSError) as error:
            # Live requests are answered all the same; those for jobs say what is wrong.
            logger.error("The asynchronous jobs cannot be opened: %s", error)  # noqa: TRY400

    def wants(self, exchange: Exchange) -> bool:
        """Whether a request is one for `handle_post`: its sender prefers to be answered later."""
        header = exchange.header(b"prefer")
        if not header or exchange.method != "POST" or not _INFERENCE.fullmatch(exchange.path):
            return False
        from serve.server.asyncjobs import prefer  # noqa: PLC0415 - few ask for it

        return prefer.parse(header).respond_async

    def handle_post(self, exchange: Exchange) -> None:
        """Keeps a request for later, and answers 202.

        Raises:
            OverloadedError: Too many wait to be kept.
        """
        self._open().handle_post(exchange)

    async def finish(self) -> None:
        """Begins no more jobs; returns when none runs."""
        if self._opened is not None:
            await self._opened.finish()

    def close(self) -> None:
        """Puts what still runs back into the queue."""
        if self._opened is not None:
            self._opened.close()

    def _open(self) -> AsyncJobs:
        if self._opened is None:
            from serve.server.asyncjobs.service import AsyncJobs  # noqa: PLC0415 - see above
            from serve.server.asyncjobs.store import Limits  # noqa: PLC0415

            self._opened = AsyncJobs(
                self._folder,
                Limits(ttl_s=self._settings.job_ttl_s),
                self._jobs,
                self._post,
                self._dispatch,
                concurrency=self._concurrency,
            )
        return self._opened

    def _list(self, exchange: Exchange) -> None:
        self._open().list(exchange)

    def _job(self, exchange: Exchange) -> None:
        self._open().job(exchange)


def folder_of(jobs_dir: str, name: str) -> Path:
    """Where the jobs of a deployment are.

    Args:
        jobs_dir: A folder, or empty for one of the user's state.
        name: Of the deployment or package.
    """
    if jobs_dir:
        return Path(jobs_dir)
    state = os.environ.get("XDG_STATE_HOME", "")
    home = Path(state) if state.startswith("/") else _home() / ".local/state"
    return home / "fieldpost/jobs" / (_UNSAFE.sub("_", name).lstrip(".") or "unnamed")


def _home() -> Path:
    """The user's; of one without a name, as containers have them, the root folder."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")
