"""`fieldpost quantum train --checkpoint`, broken off in every way: it ends as if it were not."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytestmark = pytest.mark.timeout(300)

COMMAND = [str(Path(sys.executable).with_name("fieldpost")), "quantum", "train"]
INTERRUPTED = 130


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of three classes, for which training takes some seconds."""
    import numpy as np
    from sklearn.datasets import load_wine

    rows, labels = load_wine(return_X_y=True)
    path = tmp_path_factory.mktemp("data") / "wine.csv"
    table = np.column_stack([rows[:, :7], labels])
    np.savetxt(path, table, "%.5f", ",", header="a,b,c,d,e,f,g,class", comments="")
    return path


def options(out: Path, checkpoint: Path | None = None) -> list[str]:
    kept = ["--checkpoint", str(checkpoint)] if checkpoint else []
    plain = ["--encoding", "standard constant:1", "--epochs", "6", "--starts", "2", "--seed", "5"]
    return [*plain, *kept, "--out", str(out)]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The circuit of a training that nobody has broken off."""
    out = tmp_path_factory.mktemp("whole") / "wine.circuit.json"
    done = subprocess.run([*COMMAND, str(data), *options(out)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


def changed(path: Path, before: bytes, seconds: float = 60) -> bytes:
    """Waits until a checkpoint is another than it was; what it is then."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and (found := path.read_bytes()) != before:
            return found
        time.sleep(0.005)
    raise AssertionError("there was no other checkpoint")


def test_killed_again_and_again(data: Path, whole: bytes, tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "wine.circuit.json", tmp_path / "half.json"
    seen = b""
    for _ in range(2):
        running = subprocess.Popen(
            [*COMMAND, str(data), *options(out, checkpoint)], stderr=subprocess.DEVNULL
        )
        seen = changed(checkpoint, seen)
        running.kill()
        assert running.wait(30) == -signal.SIGKILL
        assert not out.exists()
        json.loads(checkpoint.read_bytes())  # whole, whenever the kill came
        seen = checkpoint.read_bytes()
    done = subprocess.run(
        [*COMMAND, str(data), *options(out, checkpoint)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"Going on from {checkpoint}." in done.stderr.decode()
    assert out.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name]


class Terminal:
    """A command in a terminal of its own: what it prints, and keys."""

    def __init__(self, arguments: list[str]) -> None:
        self.pid, self._screen = pty.fork()
        if not self.pid:  # the child, with the terminal as its own
            os.execv(arguments[0], arguments)
        self.text = ""

    def press(self, key: bytes) -> None:
        os.write(self._screen, key)

    def read(self, seconds: float) -> bool:
        """Takes what is printed; whether the command still has the terminal."""
        if select.select([self._screen], [], [], seconds)[0]:
            try:
                data = os.read(self._screen, 65536)
            except OSError:
                return False
            self.text += data.decode(errors="replace")
        return True

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        deadline = time.monotonic() + 60
        while self.read(1):
            assert time.monotonic() < deadline, self.text
        os.close(self._screen)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_interrupted_in_a_terminal(data: Path, whole: bytes, tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "wine.circuit.json", tmp_path / "half.json"
    command = [*COMMAND, str(data), *options(out, checkpoint)]
    seen = b""
    for _ in range(2):
        terminal = Terminal(command)
        deadline = time.monotonic() + 60
        while not checkpoint.exists() or checkpoint.read_bytes() == seen:
            assert terminal.read(0.005), terminal.text
            assert time.monotonic() < deadline
        terminal.press(b"\x03")  # Ctrl-C
        assert terminal.wait() == INTERRUPTED, terminal.text
        plain = " ".join(terminal.text.split())
        assert "run the same command again to go on" in plain
        assert "Interrupted." in plain
        assert "Traceback" not in terminal.text
        assert "training" in terminal.text  # the bar
        assert not out.exists()
        seen = checkpoint.read_bytes()
    terminal = Terminal(command)
    assert terminal.wait() == 0, terminal.text
    assert "Going on from" in terminal.text
    assert out.read_bytes() == whole
    assert not checkpoint.exists()


def test_without_a_checkpoint_an_interrupt_says_what_would_have_helped(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "wine.circuit.json"
    terminal = Terminal([*COMMAND, str(data), *options(out), "--epochs", "100000"])
    deadline = time.monotonic() + 60
    while "training" not in terminal.text:
        assert terminal.read(0.05), terminal.text
        assert time.monotonic() < deadline
    terminal.press(b"\x03")
    assert terminal.wait() == INTERRUPTED
    assert "with --checkpoint FILE" in " ".join(terminal.text.split())
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_could_not_be_written_is_refused_before_training(
    data: Path, tmp_path: Path
) -> None:
    out, nowhere = tmp_path / "wine.circuit.json", tmp_path / "none" / "half.json"
    done = subprocess.run(
        [*COMMAND, str(data), *options(out, nowhere)], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "choose another --checkpoint" in done.stderr.decode()


def test_the_checkpoint_of_another_training_is_not_gone_on_from(data: Path, tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "wine.circuit.json", tmp_path / "half.json"
    running = subprocess.Popen(
        [*COMMAND, str(data), *options(out, checkpoint)], stderr=subprocess.DEVNULL
    )
    changed(checkpoint, b"")
    running.kill()
    running.wait(30)
    kept = checkpoint.read_bytes()
    done = subprocess.run(
        [*COMMAND, str(data), *options(out, checkpoint), "--seed", "6"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "belongs to a training with other samples, options or seed" in done.stderr.decode()
    assert checkpoint.read_bytes() == kept
