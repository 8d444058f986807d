"""A scoring script in a worker process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from scoring.bundle import Bundle, ScriptSpec, encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class ScriptWorker:
    """A worker; `start` it, `kill` it, `start` it again."""

    def __init__(self, root: Path, env: dict[str, str]) -> None:
        self._root = root
        self._env = env
        self.process: subprocess.Popen[bytes]
        self.url = ""
        self.log = root.parent / f"{root.name}.log"

    def start(self) -> None:
        """Returns when it answers."""
        reading, writing = os.pipe()
        try:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "serve.server.worker", str(self._root)],
                    env={
                        **os.environ,
                        "FIELDPOST_SERVER_PORT": "0",
                        "FIELDPOST_STATUS_FD": str(writing),
                        **self._env,
                    },
                    pass_fds=[writing],
                    stderr=log,
                    stdout=log,
                )
            os.close(writing)
            writing = -1
            with os.fdopen(reading, "rb", closefd=False) as status:
                line = status.readline()
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)
        report: dict[str, Any] = json.loads(line) if line else {}
        assert report.get("state") == "ready", report or self.log.read_text()
        self.url = str(report["url"])

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def leave(self, timeout_s: float = 20) -> int:
        """Its exit status after SIGTERM."""
        self.process.terminate()
        return self.process.wait(timeout_s)


def script_root(folder: Path, code: str) -> Path:
    """A package's root with a scoring script."""
    (folder / "code").mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "code/score.py").write_text(textwrap.dedent(code), "utf-8")
    bundle = Bundle("script", "script", script=ScriptSpec("score.py"))
    (folder / "model/bundle.json").write_bytes(encode(bundle))
    return folder


@contextlib.contextmanager
def serving(folder: Path, code: str, **env: str) -> Iterator[ScriptWorker]:
    """A worker that answers with a script."""
    given = {"FIELDPOST_SERVER_DRAIN_IDLE_S": "0.1", **env}
    worker = ScriptWorker(script_root(folder / "root", code), given)
    worker.start()
    try:
        yield worker
    finally:
        worker.kill()
