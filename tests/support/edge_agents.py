"""One real agent as a process of its own, which can be killed at steps of its choosing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edge.agent.config import Config
from edge.agent.journal import Journal
from tests.support.blob_source import Made
from tests.support.edge_site import ask

_STEPPING = """
import os, signal, sys
from edge.agent import journal
number, when = int(sys.argv.pop(1)), sys.argv.pop(1)
saves = 0
real = journal.Journal.save

def save(self, state):
    global saves
    if state is self.state:
        return
    saves += 1
    if when == "before" and saves == number:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, state)
    if when == "after" and saves == number:
        os.kill(os.getpid(), signal.SIGKILL)

journal.Journal.save = save
from edge.agent.main import main
sys.exit(main())
"""


class AgentProcess:
    """Starts the agent of a folder, again and again.

    Args:
        config: Of the device.
        wrap: What stands before the command: `faketime` and its like.
        env: Further variables.
        settings: Further lines of `agent.toml`.
    """

    def __init__(
        self,
        config: Config,
        *,
        wrap: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        settings: tuple[str, ...] = (),
    ) -> None:
        self.state = Path(config.state)
        self._wrap = wrap
        lines = [f'broker = "{config.broker}"', f'controller = "{config.controller}"']
        lines += ["keepalive_s = 5", "drain_s = 2", *settings]
        (self.state / "agent.toml").write_text("\n".join(lines))
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        cache = {"PYTHONPYCACHEPREFIX": str(self.state.parent / "pycache")}
        root = {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONFAULTHANDLER": "1"}
        self._env = {**kept, **cache, **root, **(env or {})}
        self.popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """As it is installed."""
        self._start("-m", "edge.agent.main")

    def start_to_die(self, save: int, when: str) -> None:
        """Kills itself `before` or `after` it saves its state for the given time."""
        self._start("-c", _STEPPING, str(save), when)

    def _start(self, *words: str) -> None:
        command = [*self._wrap, sys.executable, *words, "run", "--state", str(self.state)]
        with (self.state / "agent.log").open("ab") as log:
            self.popen = subprocess.Popen(command, stdout=log, stderr=log, env=self._env)

    @property
    def died(self) -> bool:
        """Whether it is gone, by a SIGKILL."""
        assert self.popen is not None
        code = self.popen.poll()
        assert code in {None, -signal.SIGKILL}, self.log
        return code is not None

    @property
    def log(self) -> str:
        return (self.state / "agent.log").read_text(errors="replace")

    def kill(self) -> None:
        assert self.popen is not None
        self.popen.kill()
        self.popen.wait(20)

    def end(self) -> None:
        """In peace."""
        if self.popen is not None and self.popen.poll() is None:
            self.popen.terminate()
            self.popen.wait(30)


@contextlib.contextmanager
def watching(port: int) -> Iterator[set[str]]:
    """Which versions a port answers with until the end of the block; what refuses is no answer."""
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.03):
            with contextlib.suppress(OSError, ValueError, IndexError):
                seen.add(ask(port).split()[0])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def answers(port: int, begins: str) -> bool:
    """Whether a port answers so."""
    with contextlib.suppress(OSError, ValueError):
        return ask(port).split()[0] == begins
    return False


def require_verified(state: Path, known: Sequence[Made]) -> None:
    """By its own journal the device never ran anything else, and took no step without a reason."""
    digests = {"", *(made.digest for made in known)}
    with Journal(state) as journal:
        assert journal.damage == ""
        for line in journal.history():
            assert {line.active, line.good, line.wanted} <= digests
            assert line.phase != "failed" or line.failure
