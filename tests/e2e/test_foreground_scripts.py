"""Scripts in real processes: `fieldpost serve score.py`, and the worker of a package."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from scoring.bundle import Bundle, ScriptSpec, encode
from serve.roots import ServeOptions, open_root
from tests.support.server import until

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDPOST = Path(sys.executable).with_name("fieldpost")
READY_S = 30


class Served:
    """A server in the foreground, and the temp folder that it alone uses."""

    def __init__(self, folder: Path, code: str, *options: str, **env: str) -> None:
        self.script = folder / "app/score.py"
        self.temp = folder / "tmp"
        self.log = folder / "log"
        self._ready = folder / "ready"
        self.script.parent.mkdir(exist_ok=True)
        self.temp.mkdir(exist_ok=True)
        self._ready.unlink(missing_ok=True)
        self.script.write_text(textwrap.dedent(code))
        command = [FIELDPOST, "serve", self.script, "--port", "0", "--ready-file", self._ready]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*map(str, command), *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.temp), **env},
            )

    def wait(self) -> None:
        """Waits until it answers."""
        until(lambda: self._ready.exists() or self.process.poll() is not None, READY_S)
        assert self._ready.exists(), self.log.read_text()

    @property
    def url(self) -> str:
        return self._ready.read_text().strip()

    def score(self, document: Any = None, **more: Any) -> Any:
        return httpx.post(f"{self.url}/score", json=document, timeout=20, **more).json()

    def leave(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status after a signal."""
        self.process.send_signal(number)
        return self.process.wait(15)

    def left(self) -> list[str]:
        """What is in its temp folder."""
        return sorted(path.name for path in self.temp.iterdir())


@contextlib.contextmanager
def served(folder: Path, code: str, *options: str, **env: str) -> Iterator[Served]:
    server = Served(folder, code, *options, **env)
    try:
        server.wait()
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_requests_leave_nothing_for_the_collector(tmp_path: Path) -> None:
    code = """
        import gc
        import json

        def init():
            gc.disable()

        def run(data):
            return gc.collect() if json.loads(data) else None
    """
    with served(tmp_path, code) as server, httpx.Client() as client:
        client.post(f"{server.url}/score", json=True)
        for _ in range(100):
            assert client.post(f"{server.url}/score", json=False).status_code == 200
        assert client.post(f"{server.url}/score", json=True).json() < 100


def test_a_scripts_own_processes_do_not_end_the_server(tmp_path: Path) -> None:
    """`multiprocessing` ends the workers of a pool by SIGTERM, which they inherited from us."""
    code = """
        import multiprocessing, os, signal
        def init(): pass
        def run(raw):
            pid = os.fork()
            if pid == 0:
                signal.pause()
                os._exit(1)
            os.kill(pid, signal.SIGTERM)
            ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with multiprocessing.get_context("fork").Pool(2) as pool:
                return [ended, pool.map(abs, [-1, -2])]
        """
    with served(tmp_path, code) as server:
        for _ in range(3):
            assert server.score(1) == [-signal.SIGTERM, [1, 2]]
        assert server.leave() == 0


def test_processes_that_init_forks_end_by_sigterm_without_a_word(tmp_path: Path) -> None:
    code = """
        import multiprocessing
        def init():
            global answer
            with multiprocessing.get_context("fork").Pool(2) as pool:
                answer = pool.map(abs, [-1, -2])
        def run(raw): return answer
        """
    with served(tmp_path, code) as server:
        assert server.score(1) == [1, 2]
        assert "Traceback" not in server.log.read_text()
        assert server.leave() == 0


def test_threads_that_a_script_leaves_do_not_keep_the_server(tmp_path: Path) -> None:
    code = """
        import threading
        def init():
            threading.Thread(target=threading.Event().wait).start()
        def run(raw): return 1
        """
    with served(tmp_path, code, FIELDPOST_SERVER_DRAIN_IDLE_S="0") as server:
        assert server.score() == 1
        assert server.leave() == 0
        assert server.left() == []


def test_a_script_that_computes_past_the_drain_leaves_nothing_behind(tmp_path: Path) -> None:
    code = """
        import pathlib, time
        def init(): pass
        def run(raw):
            pathlib.Path(__file__).with_name("busy").touch()
            time.sleep(60)
        """
    with served(tmp_path, code, FIELDPOST_SERVER_DRAIN_TIMEOUT_S="0.2") as server:
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{server.url}/score", timeout=1)
        until(lambda: server.script.with_name("busy").exists())
        assert server.leave() == 0
        assert server.left() == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_load_that_hangs(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    code = """
        import pathlib, time
        def init():
            pathlib.Path(__file__).with_name("busy").touch()
            try:
                time.sleep(60)
            except Exception:
                pass
        def run(raw): return 1
        """
    server = Served(tmp_path, code)
    try:
        until(lambda: server.script.with_name("busy").exists(), READY_S)
        assert server.leave(number) == status
        assert server.left() == []
    finally:
        server.process.kill()
        server.process.wait()


def test_what_a_killed_server_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = "import os\ndef init(): pass\ndef run(raw): os._exit(9)"
    with served(tmp_path, code) as first:
        with pytest.raises(httpx.HTTPError):
            first.score(1)
        assert first.process.wait(10) == 9
        abandoned = first.left()
    with (
        served(tmp_path, "def init(): pass\ndef run(raw): return 1") as running,
        served(tmp_path, "def init(): pass\ndef run(raw): return 2") as other,
    ):
        roots = running.left()
        assert len(roots) == 2, "one is in use beside the new one"
        assert not set(roots) & set(abandoned)
        assert running.leave() == other.leave() == 0
        assert running.left() == []


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    "code",
    [
        "def init(: pass",
        "import no_such_module_here",
        "def init(): raise SystemExit(0)\ndef run(raw): pass",
        "def init(): pass",
    ],
)
def test_a_script_that_does_not_load_is_status_3(code: str, workers: str, tmp_path: Path) -> None:
    server = Served(tmp_path, code, "--workers", workers)
    assert server.process.wait(READY_S) == 3
    text = server.log.read_text()
    assert "Error: " in text
    assert str(server.script) in text, "the user's own path, and not that of a link to it"
    assert server.left() == []


def test_paths_are_the_users_own(tmp_path: Path) -> None:
    code = """
        import os, pathlib
        def init(): pass
        def run(raw):
            beside = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "data.txt"))
            return [__file__, os.environ["AZUREML_MODEL_DIR"], open(beside).read()]
        """
    (tmp_path / "data.txt").write_text("found")
    (tmp_path / "weights").mkdir()
    with served(tmp_path, code, "--model-dir", str(tmp_path / "weights")) as server:
        assert server.score(1) == [str(server.script), str(tmp_path / "weights"), "found"]


def test_a_raw_script_gets_a_compressed_body_as_it_was_sent(tmp_path: Path) -> None:
    raw = """
        import gzip, json
        from azureml.contrib.services.aml_request import rawhttp
        def init(): pass
        @rawhttp
        def run(request):
            return [request.headers["Content-Encoding"],
                    json.loads(gzip.decompress(request.get_data()))]
        """
    text = "import json\ndef init(): pass\ndef run(raw): return json.loads(raw)"
    body = gzip.compress(json.dumps({"a": 1}).encode())
    headers = {"Content-Encoding": "gzip"}
    with served(tmp_path, raw) as server:
        assert server.score(content=body, headers=headers) == ["gzip", {"a": 1}]
    with served(tmp_path, text) as server:
        assert server.score(content=body, headers=headers) == {"a": 1}
    with served(tmp_path, text, "--azureml-compat", "strict") as server:
        answer = httpx.post(f"{server.url}/score", content=body, headers=headers)
        assert answer.status_code == 400
        assert "cannot be decoded as UTF-8" in answer.json()["message"]


def test_the_answer_to_head_has_the_length_of_gets(tmp_path: Path) -> None:
    with served(tmp_path, "def init(): pass\ndef run(raw): return 1") as server:
        for path in ("/", "/swagger.json"):
            head, get = (httpx.request(m, server.url + path) for m in ("HEAD", "GET"))
            assert head.headers["content-length"] == get.headers["content-length"]
            assert head.content == b""


def test_a_root_in_use_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = tmp_path / "score.py"
    script.touch()
    begun = time.monotonic()
    with (
        open_root(str(script), ServeOptions()) as first,
        open_root(str(script), ServeOptions()) as second,
    ):
        assert first.is_dir()
        assert second.is_dir()
    assert time.monotonic() - begun < 10, "a lock is never waited for"
    assert list(tmp_path.iterdir()) == [script]


def test_the_script_of_a_package_runs_in_its_own_folder(tmp_path: Path) -> None:
    """Scripts open the files that were packed with them by relative paths."""
    (tmp_path / "code/lists").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    (tmp_path / "code/lists/labels.txt").write_text("a b")
    # The names of modules that the server imports are the user's to use, too.
    (tmp_path / "code/uvloop.py").write_text("raise RuntimeError('the wrong one')")
    (tmp_path / "code/score.py").write_text(
        "def init():\n    global labels\n    labels = open('lists/labels.txt').read().split()\n"
        "def run(raw): return labels\n"
    )
    bundle = Bundle("labels", "script", script=ScriptSpec("score.py"))
    (tmp_path / "model/bundle.json").write_bytes(encode(bundle))
    with subprocess.Popen(
        [sys.executable, "-m", "serve.server.worker", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "FIELDPOST_SERVER_PORT": "0", "FIELDPOST_SERVER_DRAIN_IDLE_S": "0"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            ready = next(line for line in process.stderr if "Ready: " in line)
            url = ready.rpartition("Ready: ")[2].strip()
            assert httpx.post(f"{url}/score", json=1).json() == ["a", "b"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
        finally:
            process.kill()


def test_requests_to_run_count_as_inference_and_others_do_not(tmp_path: Path) -> None:
    code = """
        def init(): pass
        def run(raw):
            return 1 / int(raw)
        """
    with served(tmp_path, code) as one:
        assert httpx.post(f"{one.url}/score", content=b"1").status_code == 200
        assert httpx.post(f"{one.url}/score?x=1", content=b"1").status_code == 200
        assert httpx.post(f"{one.url}/score", content=b"0").status_code == 500
        assert httpx.get(f"{one.url}/swagger.json").status_code == 200
        page = httpx.get(f"{one.url}/metrics").text
    name = 'fieldpost_requests_total{model="",version="",protocol="score",code='
    assert f'{name}"200"}} 2' in page
    assert f'{name}"500"}} 1' in page
