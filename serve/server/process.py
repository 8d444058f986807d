"""A server process: load, listen, answer, drain.

A model is loaded and answered with the event loop on the main thread. A script has the main thread
for itself, and the loop runs on a second one: health answers while the script computes, and a
signal reaches the loop through a wakeup descriptor even while the script is deep in C code.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import uvloop

from scoring import bundle as bundles
from scoring.accepting import Acceptor, close_all, inherited
from scoring.errors import UsageError
from scoring.workercontract import Contract
from serve.server.app import App, Before
from serve.server.assembly import before, model_app
from serve.server.asyncjobs.gate import AsyncJobsGate
from serve.server.hub import Hub
from serve.server.jobs import Jobs
from serve.server.models.folder import MANIFEST
from serve.server.protocol import Connection
from serve.server.settings import ServerSettings

if TYPE_CHECKING:
    import ssl
    from pathlib import Path
    from types import FrameType

    from scoring.bundle import Bundle

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LEAVE_S = 1.0
# Requests in flight hold some hundred objects, which the collector would look at again and again.
_COLLECTIONS = 10_000, 20, 50
# The signals that a script's server has taken in this process.
_taken: set[signal.Signals] = set()
# Of each thread that forks: its signal mask from before.
_held = threading.local()

OnReady = Callable[[str], None]
OnLeave = Callable[[], None]


class ServerProcess:
    """One server in this process. `load` it, then `run` it; both on the main thread.

    Args:
        root: Of an unpacked package.
        settings: The server's.
        contract: What a supervisor handed over.
        on_ready: Gets the URL when requests are answered (with a gate: when they could be).
        on_leave: Called where the process ends without returning from `run`, because a script
            computes on past the end of the drain.
    """

    def __init__(
        self,
        root: Path,
        settings: ServerSettings,
        contract: Contract | None = None,
        on_ready: OnReady = lambda _url: None,
        on_leave: OnLeave = lambda: None,
    ) -> None:
        self._root = root
        self._settings = settings
        self._contract = contract or Contract()
        self._on_ready = on_ready
        self._on_leave = on_leave
        self._listeners, self._spares = _open(settings, self._contract)
        self._loop = uvloop.new_event_loop()
        self._jobs = Jobs(self._loop.call_soon_threadsafe, settings.max_pending)
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._script = False
        self._app: App
        self._later: AsyncJobsGate
        self._tls: ssl.SSLContext | None = None
        self._failure: BaseException | None = None
        # A script that computes on past the limit of the drain keeps the main thread.
        self._leave = threading.Timer(_LEAVE_S, _leave, [self._on_leave])
        self._leave.daemon = True

    @property
    def url(self) -> str:
        """Where it answers."""
        name = self._listeners[0].getsockname()
        if not isinstance(name, tuple):
            return f"unix:{name}"
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{'https' if self._tls else 'http'}://{host}:{name[1]}"

    def load(self) -> None:
        """Loads the models or the script.

        Raises:
            ScoringError: It does not load; the error says why.
        """
        if self._settings.tls_cert or self._settings.tls_client_ca:
            from serve.server.access import tls  # noqa: PLC0415 - most servers have none

            self._tls = tls.context(self._settings)
        several = (self._root / MANIFEST).is_file()
        bundle = None if several else bundles.read(self._root)
        if bundle is not None and bundle.runtime == "script":
            self._app = self._load_script(bundle)
        else:
            self._app = self._load_models()
        self._later = self._open_jobs(bundle.name if bundle is not None else "models")
        # What is loaded stays: the collector need not look at it for every request.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECTIONS)

    def _load_script(self, bundle: Bundle) -> App:
        from scoring.azureml import timing  # noqa: PLC0415 - only for scripts
        from scoring.azureml.entry import EntryScript  # noqa: PLC0415 - only for scripts
        from scoring.azureml.settings import ScriptSettings  # noqa: PLC0415
        from scoring.runtimes.privacy import keep_private  # noqa: PLC0415
        from serve.server.script import ScriptService  # noqa: PLC0415

        self._script = True
        keep_private()  # scripts load models by themselves
        self._jobs.take_turns(self._loop, timing.rest)
        settings = ScriptSettings.for_package(
            self._root,
            bundle,
            strict=self._settings.azureml_compat == "strict",
            scoring_timeout_ms=self._settings.scoring_timeout_ms or None,
        )
        entry = EntryScript.load(settings)
        if entry.loop is None:
            timing.keep()
        service = ScriptService(entry, self._jobs, self._settings.script_concurrency)
        passes = self._before()
        if passes.guard is not None:
            passes.guard.default_model = bundle.name
        app = App(
            self._jobs,
            self._settings,
            passes,
            fallback=service.fallback,
            bodies_as_sent=service.bodies_as_sent,
        )
        app.add(service)
        return app

    def _load_models(self) -> App:
        from serve.server.models.source import source_of  # noqa: PLC0415

        source = source_of(self._root, self._jobs, self._settings, self._loop.call_soon)
        post = self._loop.call_soon_threadsafe
        app = model_app(source, self._jobs, self._settings, self._before(), post)
        self._jobs.start_threads(self._settings.threads)
        return app

    def _open_jobs(self, name: str) -> AsyncJobsGate:
        post, dispatch = self._loop.call_soon_threadsafe, self._app.dispatch
        gate = AsyncJobsGate(
            self._settings,
            name,
            self._jobs,
            post,
            dispatch,
            concurrency=self._settings.job_concurrency,
        )
        self._app.later = gate
        self._app.add(gate)
        return gate

    def _before(self) -> Before:
        post = self._loop.call_soon_threadsafe
        return before(self._settings, post, self._contract.worker_slot)

    def run(self) -> int:
        """Answers until a signal or the end of the lifeline, drains, and returns 0."""
        from serve.server.heap import keep_freed_memory  # noqa: PLC0415 - loads ctypes

        keep_freed_memory()
        try:
            if self._script:
                self._run_beside_script()
            else:
                self._run_on_main_thread()
        finally:
            self._jobs.stop()
            self._loop.close()
        if self._failure is not None:
            raise self._failure
        return 0

    def stop(self) -> None:
        """Begins the drain; called again, ends it at once. For the loop's thread."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    def close(self) -> None:
        """Gives the socket back, where `load` failed."""
        close_all([*self._listeners, *self._spares.values()])
        self._loop.close()

    def _run_on_main_thread(self) -> None:
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self.stop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            for number in _SIGNALS:
                self._loop.remove_signal_handler(number)

    def _run_beside_script(self) -> None:
        with _wakeup_socket() as wakeup:
            self._loop.add_reader(wakeup.fileno(), self._wake, wakeup)
            thread = threading.Thread(target=self._run_loop, name="http")
            thread.start()
            self._jobs.work()
            thread.join()
            if not _threads_left_behind():
                self._leave.cancel()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._failure = error
        self._jobs.stop()
        self._leave.start()

    def _wake(self, wakeup: socket.socket) -> None:
        for number in wakeup.recv(4096):
            if number in _SIGNALS:
                self.stop()

    async def _serve(self) -> None:
        app = self._app
        hub = Hub(self._settings, app, self._jobs)
        if self._tls is not None:
            from serve.server.access.tls import Reloader  # noqa: PLC0415 - most servers have none

            hub.ticks.append(Reloader(self._tls, self._settings).check)
        hub.start(self._loop)
        self._watch(self._contract.lifeline_fd, self.stop)
        acceptor = Acceptor(
            partial(self._accept, hub), partial(self._take, hub), self._listeners, self._spares
        )
        url = self.url
        try:
            if await self._pass_gate(url):
                await acceptor.open()
                if self._contract.cover_fd is not None:
                    acceptor.follow(self._contract.cover_fd)
                if self._contract.gate_fd is None:
                    self._on_ready(url)
                self._later.start()
                await self._stopping.wait()
                begun = self._loop.time()
                app.ready = False
                hub.draining = True
                await acceptor.leave()
                jobs_ended = asyncio.ensure_future(self._later.finish())
                await self._drain(hub)
                left_s = self._settings.drain_timeout_s - (self._loop.time() - begun)
                await _within(max(left_s, 0), _first(jobs_ended, self._hurrying.wait()))
        finally:
            self._later.close()
            acceptor.close()
            close_all(self._listeners)
            hub.stop()
            await asyncio.sleep(0)
            if app.telemetry is not None:
                app.telemetry.close()

    async def _accept(self, hub: Hub, listener: socket.socket) -> asyncio.Server:
        server: asyncio.Server = await self._loop.create_server(
            lambda: Connection(hub),
            sock=listener,
            backlog=self._settings.backlog,
            ssl=self._tls,
        )
        return server

    async def _take(self, hub: Hub, client: socket.socket) -> None:
        client.setblocking(False)
        with contextlib.suppress(OSError):  # it has gone, or speaks no TLS
            await self._loop.connect_accepted_socket(lambda: Connection(hub), client, ssl=self._tls)

    async def _pass_gate(self, url: str) -> bool:
        """Waits until the worker may accept; False: it is to go before that."""
        if self._contract.gate_fd is None:
            return True
        self._on_ready(url)
        opened = asyncio.Event()
        self._watch(self._contract.gate_fd, opened.set)
        await _first(opened.wait(), self._stopping.wait())
        return opened.is_set()

    async def _drain(self, hub: Hub) -> None:
        """Answers what has begun.

        Idle connections stay open for a grace: their next request, which may be on its way, is
        answered, and told to be the last one.
        """
        hub.draining = True
        patient = self._settings.drain_timeout_s
        grace = min(self._settings.drain_idle_s, patient)
        emptied = hub.emptied.wait
        if not await _within(grace, _first(emptied(), self._hurrying.wait())):
            hub.end_idle()
            await _within(patient - grace, _first(emptied(), self._hurrying.wait()))
        if hub.connections:
            logger.warning("%d connections were not drained in time", hub.connections)

    def _watch(self, descriptor: int | None, ended: Callable[[], None]) -> None:
        """Calls back once at the end of a pipe."""
        if descriptor is None:
            return

        def look(descriptor: int = descriptor) -> None:
            with contextlib.suppress(BlockingIOError):
                if not os.read(descriptor, 4096):
                    self._loop.remove_reader(descriptor)
                    ended()

        self._loop.add_reader(descriptor, look)


async def _first(*waits: object) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _within(seconds: float, wait: object) -> bool:
    """Whether something ended in time."""
    try:
        async with asyncio.timeout(seconds):
            await wait  # type: ignore[misc]
    except TimeoutError:
        return False
    return True


def _open(
    settings: ServerSettings, contract: Contract
) -> tuple[list[socket.socket], dict[int, socket.socket]]:
    """The supervisor's listening sockets (own and spare), or one that is bound, and listens later.

    Until the model is loaded, a probe is refused and not kept waiting.
    """
    if contract.listen_fd:
        return inherited(contract)
    return [_bind(settings.host, settings.port)], {}


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            # As text it would load the tables of international names.
            host.encode() if host.isascii() else host,
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"The host {host!r} cannot be listened on: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"Port {port} on {host} cannot be opened: {error.strerror}.",
            hint="End the process that listens there, or choose another port with --port.",
        ) from error
    return listener


@contextlib.contextmanager
def _wakeup_socket() -> Iterator[socket.socket]:
    """A socket that gets the number of every signal, whatever the main thread is doing."""
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, _ignore) for number in _SIGNALS}
        _taken.update(handlers)
        try:
            yield reading
        finally:
            _taken.clear()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """The wakeup descriptor tells the event loop; a handler is needed for that to happen."""


def _give_signals_back() -> None:
    """Undoes `_wakeup_socket` in a process that a script has forked.

    With our handlers its signals would do nothing to it and end this server instead: the wakeup
    descriptor is shared. `multiprocessing` ends the workers of a pool by SIGTERM.
    """
    if _taken:
        signal.set_wakeup_fd(-1)
    for number in tuple(_taken):
        if signal.getsignal(number) is _ignore:  # else the script's own, which it keeps
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
    _taken.clear()
    _let_through()


def _hold_back() -> None:
    """Keeps signals from a process that has a handler of ours and is not this one any more.

    Python forgets what reaches a new process before it is ready, and so would SIGTERM be lost.
    """
    if callable(signal.getsignal(signal.SIGTERM)):
        _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _let_through() -> None:
    mask = _held.__dict__.pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


os.register_at_fork(
    before=_hold_back, after_in_parent=_let_through, after_in_child=_give_signals_back
)


def _threads_left_behind() -> bool:
    """Whether a script has threads for which the interpreter would wait, maybe for ever."""
    main = threading.main_thread()
    return any(thread is not main and not thread.daemon for thread in threading.enumerate())


def _leave(on_leave: OnLeave) -> None:
    logger.warning("The script was still computing at the end of the drain, or has threads left")
    with contextlib.suppress(Exception):
        on_leave()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)
