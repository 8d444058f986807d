"""The process behind a local deployment: it owns the socket, runs the revisions, tells the truth.

It is started by `serve.targets.local.daemon` and answers over the control socket. There is one for
each deployment, and it lives for as long as the deployment runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import FieldpostError, TargetError
from serve.server.unavailable import Unavailable
from serve.targets.base import DeployResult, Status, WorkerStatus
from serve.targets.local import processes
from serve.targets.local.launch import Launch, error_document
from serve.targets.local.revisions import Revisions, describe
from serve.targets.local.state import SavedState, write_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from serve.targets.local.logs import LogWriter
    from serve.targets.local.records import Records

METRICS_FOLDER = "metrics"
"""In the run folder: the counters of all workers, for as long as the deployment runs."""

IDLE_S = 15.0
"""How long a supervisor without a revision waits for a request."""


class Supervisor:
    """Runs the revisions of one deployment.

    Args:
        folder: The run folder.
        records: Where the switch to a revision is recorded.
        log: Takes the workers' output.
    """

    def __init__(self, folder: Path, records: Records, log: LogWriter) -> None:
        self.ended = asyncio.Event()
        self._folder = folder
        self._records = records
        self._log = log
        self._metrics = folder / METRICS_FOLDER
        self._revisions = Revisions(
            log, self._on_change, seed=str(folder), metrics=str(self._metrics)
        )
        self._turn = asyncio.Lock()
        self._stopping = False
        self._launching: asyncio.Task[Any] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._last_error: dict[str, Any] = {}
        self._last_detail = ""
        self._unavailable: list[Unavailable] = []
        self._me = processes.identify(os.getpid())
        self._boot = processes.boot_id()

    async def run(self) -> None:
        """Lives until it is stopped, by request or by SIGTERM, or has nothing to do."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        loop.call_later(IDLE_S, self._end_if_idle)
        self._save()
        self._forget_metrics()  # those of a supervisor that was killed
        try:
            await self.ended.wait()
        finally:
            await self._revisions.abort_all()
            self._forget_metrics()

    async def launch(self, launch: Launch, progress: Callable[[str], None]) -> DeployResult:
        """Makes a revision answer in place of the present one; one such request at a time.

        Raises:
            FieldpostError: It did not become ready, or its switch could not be recorded; the one
                before goes on answering.
        """
        if self._turn.locked():
            progress("waiting for another deployment of the same name")
        async with self._turn:
            self._launching = asyncio.current_task()
            try:
                return await self._launch(launch, progress)
            except asyncio.CancelledError:
                await self._note_failure(launch, TargetError("The deployment was stopped."))
                raise
            except Exception as error:
                await self._note_failure(launch, error)
                raise
            finally:
                self._launching = None
                if self._revisions.current is None:
                    asyncio.get_running_loop().call_later(0.2, self._end_if_idle)

    def status(self) -> Status:
        """What runs now."""
        current = self._revisions.current
        workers = [worker for each in self._revisions.all() for worker in each.workers()]
        if current is None:
            return self._status_without_answer(workers)
        info = current.info()
        last = {"last_error": self._last_error or None, "detail": self._last_detail}
        details: dict[str, Any] = last | describe(info)
        if current.has_failed:
            again = f"'fieldpost deployment start {self._folder.name}' starts its workers anew."
            details["note"] = f"{details.get('note', '')} {again}".lstrip()
        return Status(
            state="stopped" if info.state == "draining" else info.state,
            revision=current.number,
            url=current.url,
            workers=tuple(workers),
            restarts=info.restarts,
            uptime_s=round(time.monotonic() - current.since, 3),
            **details,
        )

    async def stop(self) -> None:
        """Drains everything and ends."""
        self._stopping = True
        if self._launching is not None:
            self._launching.cancel()
        async with self._turn:
            self._close_unavailable()
            await self._revisions.drain_all()
        self._save(ended="stopped")
        self.ended.set()

    async def _launch(self, launch: Launch, progress: Callable[[str], None]) -> DeployResult:
        self._require_sense(launch)
        current = self._revisions.current
        if current is not None and current.number == launch.revision and not current.has_failed:
            return DeployResult(current.number, current.url, 0.0)
        began = time.monotonic()
        progress(f"starting {launch.workers} worker{'s' * (launch.workers > 1)}")
        warming = asyncio.ensure_future(asyncio.to_thread(self._records.warm_up))
        try:
            coming = await self._revisions.prepare(launch)
        finally:
            await asyncio.wait([warming])
        ready_s = round(time.monotonic() - began, 3)
        try:
            await asyncio.to_thread(self._record_switch, launch, coming.url)
        except BaseException:
            await self._revisions.discard()
            raise
        self._close_unavailable()
        self._revisions.switch()
        self._launching = None  # from here on a stop waits until the one before has drained
        self._last_error, self._last_detail = {}, ""
        self._on_change()
        self._log.write(f"r{launch.revision}/supervisor", f"answers at {coming.url}")
        if self._revisions.leaving:
            progress("the new revision answers; the one before ends what it has begun")
        await self._revisions.drain_leaving()
        return DeployResult(launch.revision, coming.url, ready_s)

    def _record_switch(self, launch: Launch, url: str) -> None:
        if launch.activate:
            self._records.activate(launch.revision, url)
        else:
            self._records.start()

    def _require_sense(self, launch: Launch) -> None:
        current = self._revisions.current
        if self._stopping:
            raise TargetError(
                "The deployment is being stopped.", hint="Run the command again in a moment."
            )
        if current is not None and launch.revision < current.number:
            raise TargetError(
                f"Revision {launch.revision} is out of date: revision {current.number} answers.",
                hint="Deploy again, or roll back to the revision that you want.",
            )

    async def _note_failure(self, launch: Launch, error: Exception) -> None:
        self._last_error = error_document(error)
        self._last_detail = error.detail if isinstance(error, FieldpostError) else ""
        message = str(self._last_error["message"])
        self._log.write(f"r{launch.revision}/supervisor", f"did not become active: {message}")
        if not launch.activate:
            return
        try:
            await asyncio.to_thread(self._records.fail, launch.revision, message, self._last_detail)
        except Exception as failure:  # noqa: BLE001 - the command tells the user what matters
            self._log.write("supervisor", f"the failure could not be recorded: {failure}")

    def _status_without_answer(self, workers: list[WorkerStatus]) -> Status:
        coming = self._revisions.coming
        starting = coming is not None and not self._stopping
        return Status(
            state="starting" if starting else "stopped",
            revision=coming.number if coming else None,
            workers=tuple(workers),
            last_error=self._last_error or None,
            detail=self._last_detail,
            note=str(self._last_error.get("message", "")),
        )

    def _on_sigterm(self) -> None:
        self._ending = asyncio.ensure_future(self.stop())

    def _on_change(self) -> None:
        self._save()
        current = self._revisions.current
        info = current.info() if current else None
        if current is None or info is None:
            return
        hopeless = info.state == "failed" and not any(worker.answers for worker in info.workers)
        if hopeless and not self._unavailable:
            reason = info.last_failure.message if info.last_failure else ""
            sockets = current.listener.listeners.sockets
            self._unavailable = [Unavailable(each, reason) for each in sockets]
        elif not hopeless:
            self._close_unavailable()

    def _close_unavailable(self) -> None:
        for each in self._unavailable:
            each.end()
        self._unavailable = []

    def _end_if_idle(self) -> None:
        if self._revisions.current is None and not self._turn.locked() and not self._stopping:
            self._save(ended=str(self._last_error.get("message", "")) or "nothing was deployed")
            self.ended.set()

    def _forget_metrics(self) -> None:
        shutil.rmtree(self._metrics, ignore_errors=True)

    def _save(self, ended: str = "") -> None:
        """Leaves a trace for the next supervisor. A full disk must not stop scoring."""
        current = self._revisions.current
        pids = [pid for revision in self._revisions.all() for pid in revision.pids()]
        state = SavedState(
            boot=self._boot,
            supervisor=self._me,
            workers=tuple(processes.identify(pid) for pid in pids),
            revision=current.number if current else None,
            url=current.url if current else "",
            ended=ended,
        )
        with contextlib.suppress(OSError):
            write_state(self._folder, state)


async def handle(
    supervisor: Supervisor, request: dict[str, Any], tell: Callable[[str], None]
) -> Any:
    """Carries out one request of the control socket; the answer as plain values.

    Raises:
        FieldpostError: It cannot be done.
    """
    match request.get("op"):
        case "launch":
            launch = msgspec.convert(request["launch"], Launch)
            return msgspec.to_builtins(await supervisor.launch(launch, tell))
        case "status":
            return msgspec.to_builtins(supervisor.status())
        case "stop":
            await supervisor.stop()
            return {}
    raise TargetError(f"Unknown request {request.get('op')!r}.")
