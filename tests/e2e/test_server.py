"""Workers as processes: the supervisor's contract, drains that lose nothing, slow scripts."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from scoring.bundle import Bundle, ScriptSpec, encode
from scoring.schema import ModelSchema, TensorSpec
from tests.support.server import until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = [[5.1, 3.5, 1.4, 0.2]]


@pytest.fixture(scope="session")
def iris_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package's root with a compiled classifier."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    rows, labels = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    model = LogisticRegression(max_iter=500).fit(rows, labels)
    graph = to_onnx(model, rows[:1], options={"zipmap": False})
    root = tmp_path_factory.mktemp("iris")
    (root / "model/compiled").mkdir(parents=True)
    (root / "model/compiled/model.onnx").write_bytes(graph.SerializeToString())
    schema = ModelSchema(
        (TensorSpec("X", "float32", (None, 4)),),
        (
            TensorSpec("label", "int64", (None,)),
            TensorSpec("probabilities", "float32", (None, 3)),
        ),
        example={"data": ROW},
    )
    bundle = Bundle("iris", "onnx", model_path="compiled/model.onnx", schema=schema)
    (root / "model/bundle.json").write_bytes(encode(bundle))
    return root


def script_root(folder: Path, code: str) -> Path:
    """A package's root with a scoring script."""
    (folder / "code").mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "code/score.py").write_text(textwrap.dedent(code), "utf-8")
    bundle = Bundle("script", "script", script=ScriptSpec("score.py"))
    (folder / "model/bundle.json").write_bytes(encode(bundle))
    return folder


class Worker:
    """A worker process, and the supervisor's ends of its pipes."""

    def __init__(
        self, root: Path, listener: socket.socket | None = None, *, gate: bool = False, **env: str
    ) -> None:
        pipes = {"STATUS": os.pipe(), "LIFELINE": os.pipe()}
        if gate:
            pipes["GATE"] = os.pipe()
        given = {name: end[name == "STATUS"] for name, end in pipes.items()}
        self.ends = {name: end[name != "STATUS"] for name, end in pipes.items()}
        if listener is not None:
            given["LISTEN"] = listener.fileno()
        contract = {f"FIELDPOST_{name}_FD": str(fd) for name, fd in given.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serve.server.worker", str(root)],
            env={**os.environ, "FIELDPOST_SERVER_PORT": "0", **contract, **env},
            pass_fds=list(given.values()),
            stderr=subprocess.PIPE,
        )
        for name in pipes:
            os.close(given[name])
        self.report: dict[str, Any] = {}

    def __enter__(self) -> Worker:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        for name in tuple(self.ends):
            self.end(name)

    def end(self, name: str) -> None:
        """Closes the supervisor's end of a pipe."""
        descriptor = self.ends.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def told(self) -> dict[str, Any]:
        """What the worker writes on its status pipe."""
        text = b""
        while not text.endswith(b"\n"):
            part = os.read(self.ends["STATUS"], 65_536)
            if not part:
                break
            text += part
        self.report = json.loads(text) if text else {}
        return self.report

    @property
    def url(self) -> str:
        return str(self.report["url"])

    def leave(self, timeout_s: float = 20) -> int:
        """Waits for its end."""
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def ready(root: Path, listener: socket.socket | None = None, **env: Any) -> Iterator[Worker]:
    with Worker(root, listener, **env) as worker:
        assert worker.told()["state"] == "ready", worker.report
        yield worker


def score(url: str) -> Any:
    return httpx.post(f"{url}/score", json={"data": ROW}, timeout=10).json()


def test_a_worker_answers_and_drains_at_sigterm(iris_root: Path) -> None:
    with ready(iris_root) as worker:
        assert score(worker.url)["predictions"] == [0]
        assert worker.report["pid"] == worker.process.pid
        worker.process.send_signal(signal.SIGTERM)
        assert worker.leave() == 0


def test_a_worker_goes_when_its_supervisor_has_gone(iris_root: Path) -> None:
    with ready(iris_root) as worker:
        worker.end("LIFELINE")
        assert worker.leave() == 0


def test_a_worker_with_a_gate_accepts_when_it_opens(iris_root: Path) -> None:
    with listening() as listener, Worker(iris_root, listener, gate=True) as worker:
        assert worker.told()["state"] == "ready"
        client = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=0.3)
        client.request("GET", "/health/live")
        with pytest.raises(TimeoutError):
            client.getresponse()
        client.close()
        worker.end("GATE")
        assert score(worker.url)["predictions"] == [0]


def test_a_worker_before_its_gate_still_goes_at_sigterm(iris_root: Path) -> None:
    with listening() as listener, Worker(iris_root, listener, gate=True) as worker:
        assert worker.told()["state"] == "ready"
        worker.process.send_signal(signal.SIGTERM)
        assert worker.leave() == 0


def test_a_model_that_does_not_load_is_status_3_with_the_reason(
    iris_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "model/compiled").mkdir(parents=True)
    (tmp_path / "model/bundle.json").write_bytes((iris_root / "model/bundle.json").read_bytes())
    (tmp_path / "model/compiled/model.onnx").write_bytes(b"not a model")
    with Worker(tmp_path) as worker:
        report = worker.told()
        assert (report["state"], report["error"]["code"]) == ("failed", "corrupt_model")
        assert worker.leave() == 3


def test_an_empty_root_is_status_3(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        assert worker.told()["error"]["code"] == "file_not_found"
        assert worker.leave() == 3


def test_a_wrong_setting_is_reported(iris_root: Path) -> None:
    with Worker(iris_root, FIELDPOST_SERVER_MAX_BODDY="1") as worker:
        report = worker.told()
        assert report["error"]["where"] == "FIELDPOST_SERVER_MAX_BODDY"
        assert worker.leave() == 3


def test_a_worker_without_a_supervisor_starts_the_others(iris_root: Path) -> None:
    with ready(iris_root, FIELDPOST_SERVER_WORKERS="2", FIELDPOST_SERVER_ACCESS_LOG="-") as worker:
        assert score(worker.url)["predictions"] == [0]
        worker.process.terminate()
        assert worker.leave() == 0
        assert worker.process.stderr is not None
        lines = worker.process.stderr.read().decode().splitlines()
    for name in ("w0", "w1"):
        assert any(line.startswith(f"{name}: ") and "Ready: " in line for line in lines)
    (asked,) = (json.loads(line) for line in lines if line.startswith("{"))
    assert (asked["path"], asked["status"]) == ("/score", 200)
    assert asked["source"] in {"w0", "w1"}


def test_a_pool_whose_model_does_not_load_is_status_3(tmp_path: Path) -> None:
    with Worker(tmp_path, FIELDPOST_SERVER_WORKERS="2") as worker:
        assert worker.told()["error"]["code"] == "file_not_found"
        assert worker.leave() == 3


def test_a_taken_port_is_reported(iris_root: Path) -> None:
    with listening() as listener:
        port = str(listener.getsockname()[1])
        with Worker(iris_root, FIELDPOST_SERVER_PORT=port) as worker:
            assert port in worker.told()["error"]["message"]
            assert worker.leave() == 3


def test_a_client_that_never_leaves_does_not_hold_up_a_drain(iris_root: Path) -> None:
    with ready(iris_root, FIELDPOST_SERVER_DRAIN_IDLE_S="0.2") as worker:
        host, port = worker.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as idle:
            idle.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert idle.recv(100).startswith(b"HTTP/1.1 200")
            worker.process.send_signal(signal.SIGTERM)
            assert worker.leave() == 0


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        yield listener


class Clients:
    """Threads that score over kept connections until they are told to stop."""

    def __init__(self, port: int, count: int) -> None:
        self.port = port
        self.answered = [0] * count
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(count)]

    def __enter__(self) -> Clients:  # noqa: PYI034
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self) -> bool:
        """Whether every one has been answered again since the last call."""
        return min(self.answered) > 20

    def _run(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        body = json.dumps({"data": ROW})
        pause = 0.002 * number
        while not self._stop.wait(pause):
            try:
                connection.request("POST", "/score", body)
                answer = connection.getresponse()
                predictions = json.loads(answer.read())["predictions"]
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            if (answer.status, predictions) != (200, [0]):
                self.failures.append(f"{answer.status} {predictions}")
            self.answered[number] += 1
        connection.close()


def test_nothing_is_lost_while_workers_take_turns_on_one_socket(iris_root: Path) -> None:
    """Kept connections, with no pause and with some, through three generations of workers."""
    with listening() as listener, contextlib.ExitStack() as stack:
        worker = stack.enter_context(ready(iris_root, listener))
        with Clients(listener.getsockname()[1], 6) as clients:
            for _ in range(3):
                clients.answered = [0] * 6
                until(clients.more)
                following = stack.enter_context(ready(iris_root, listener))
                worker.process.send_signal(signal.SIGTERM)
                assert worker.leave() == 0
                worker = following
            clients.answered = [0] * 6
            until(clients.more)
        assert clients.failures == []


# Scripts

SLOW = """
    import time, signal, threading, json

    def init():
        assert threading.current_thread() is threading.main_thread()

    def run(data):
        asked = json.loads(data)
        if asked.get("seconds"):
            time.sleep(asked["seconds"])
        if asked.get("burn"):
            end = time.monotonic() + asked["burn"]
            while time.monotonic() < end:
                pass
        if asked.get("alarm"):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError()))
            try:
                time.sleep(10)
            except TimeoutError:
                return "alarmed"
        return threading.current_thread() is threading.main_thread()
"""


@pytest.fixture(scope="module")
def slow_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    root = script_root(tmp_path_factory.mktemp("slow") / "root", SLOW)
    with ready(root) as worker:
        yield worker


@pytest.mark.parametrize("work", ["seconds", "burn"])
def test_health_answers_at_once_while_a_script_computes(slow_worker: Worker, work: str) -> None:
    url = slow_worker.url
    with httpx.Client(timeout=20) as client, httpx.Client(timeout=20) as probe:
        answers: list[Any] = []
        thread = threading.Thread(
            target=lambda: answers.append(client.post(f"{url}/score", json={work: 1.5}).json())
        )
        probe.get(f"{url}/health/live")
        thread.start()
        times = []
        while thread.is_alive():
            for path in ("/health/live", "/health/ready", "/v2/health/ready", "/"):
                start = time.perf_counter()
                assert probe.get(url + path).status_code == 200
                times.append(time.perf_counter() - start)
        assert answers == [True]
    assert len(times) > 20
    assert sorted(times)[len(times) // 2] < 0.1


def test_alarms_reach_a_script(slow_worker: Worker) -> None:
    answer = httpx.post(f"{slow_worker.url}/score", json={"alarm": True}, timeout=10)
    assert answer.json() == "alarmed"


def test_the_azure_routes_are_the_scripts(slow_worker: Worker) -> None:
    with httpx.Client(base_url=slow_worker.url) as client:
        assert client.get("/").text == "Healthy"
        assert "x-ms-request-id" in client.get("/").headers
        assert client.get("/swagger.json").json()["swagger"] == "2.0"
        assert client.get("/openapi.json").json()["openapi"].startswith("3.")
        missing = client.get("/nothing")
        assert (missing.status_code, list(missing.json())) == (404, ["message"])
        assert client.options("/score").status_code == 200
        assert client.get("/health/ready").json() == {"ready": True}


def test_a_script_that_computes_is_let_finish_by_a_drain(tmp_path: Path) -> None:
    with ready(script_root(tmp_path / "root", SLOW)) as worker:
        answers: list[Any] = []
        thread = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{worker.url}/score", json={"burn": 1}, timeout=10).json()
            )
        )
        thread.start()
        until(lambda: busy(worker))
        worker.process.send_signal(signal.SIGTERM)
        thread.join()
        assert answers == [True]
        assert worker.leave() == 0


def busy(worker: Worker) -> bool:
    """Whether the worker has used processor time in the last moments."""

    def used() -> int:
        text = Path(f"/proc/{worker.process.pid}/stat").read_text("utf-8")
        return int(text.rsplit(")", 1)[1].split()[11])

    before = used()
    time.sleep(0.1)
    return used() - before > 5


def test_a_script_that_computes_too_long_is_cut_off_by_a_drain(tmp_path: Path) -> None:
    root = script_root(tmp_path / "root", SLOW)
    with (
        ready(root, FIELDPOST_SERVER_DRAIN_TIMEOUT_S="0.5") as worker,
        socket.create_connection(address(worker)) as client,
    ):
        body = b'{"burn": 60}'
        client.sendall(
            b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        until(lambda: busy(worker))
        worker.process.send_signal(signal.SIGTERM)
        assert worker.leave(10) == 0
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""


def address(worker: Worker) -> tuple[str, int]:
    host, port = worker.url.removeprefix("http://").rsplit(":", 1)
    return host, int(port)


STREAM = """
    from azureml.contrib.services.aml_response import AMLResponse
    closed = []

    def init():
        pass

    def run(data):
        if data == "closed":
            return len(closed)
        return AMLResponse(numbers(), 200)

    def numbers():
        try:
            for number in range(1_000_000):
                yield f"{number}\\n".encode() * 1000
        finally:
            closed.append(1)
"""


def test_a_streamed_answer_ends_with_its_client(tmp_path: Path) -> None:
    pytest.importorskip("flask")
    with ready(script_root(tmp_path / "root", STREAM)) as worker:
        with httpx.stream("POST", f"{worker.url}/score", content="go", timeout=10) as answer:
            assert answer.status_code == 200
            assert answer.headers["transfer-encoding"] == "chunked"
            assert next(answer.iter_bytes()).startswith(b"0\n")
        until(lambda: httpx.post(f"{worker.url}/score", content="closed").json() == 1)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def init():\n    raise ValueError('no model')\ndef run(data):\n    pass", "no model"),
        ("import not_there_at_all", "not_there_at_all"),
        ("def run(data):\n    pass", "init"),
        ("import sys\nsys.exit(5)", "5"),
        ("def init(:\n", "score.py"),
    ],
)
def test_a_script_that_does_not_load_is_status_3_with_its_traceback(
    tmp_path: Path, code: str, words: str
) -> None:
    with Worker(script_root(tmp_path / "root", code)) as worker:
        report = worker.told()
        assert (report["state"], report["error"]["code"]) == ("failed", "entry_script")
        assert words in report["error"]["message"] + report["detail"]
        assert worker.leave() == 3


# In the foreground

FOREGROUND = """
import sys
from pathlib import Path
from serve.server import foreground
settings = foreground.settings(port=0, workers=int(sys.argv[2]), drain_idle_s=0)

def tell(url):  # the contract of scripts turns print into a log
    sys.stdout.write(url + "\\n")
    sys.stdout.flush()

sys.exit(foreground.run(Path(sys.argv[1]), settings, on_ready=tell))
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_foreground_tells_its_url_and_goes_at_a_signal(
    iris_root: Path, workers: int, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", FOREGROUND, str(iris_root), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert score(url)["predictions"] == [0]
            process.send_signal(number)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_the_foreground_serves_a_script(tmp_path: Path) -> None:
    root = script_root(tmp_path / "root", SLOW)
    command = [sys.executable, "-c", FOREGROUND, str(root), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            # The script's log goes to the same place.
            url = next(line for line in process.stdout if line.startswith("http")).strip()
            assert httpx.post(f"{url}/score", json={}).json() is True
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_a_worker_imports_only_what_it_needs(iris_root: Path) -> None:
    code = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from serve.server.process import ServerProcess\n"
        "from serve.server.settings import ServerSettings\n"
        "import serve.server.worker, serve.server.foreground\n"
        "p = ServerProcess(Path(sys.argv[1]), ServerSettings(port=0)); p.load(); p.close()\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(iris_root)], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(shown.stdout))
    heavy = {"pandas", "sklearn", "sqlalchemy", "rich", "click", "httpx", "flask", "onnx", "yaml"}
    light = {"http.client", "http.server", "tenacity", "unittest", "sqlite3"}
    assert not loaded & (heavy | light)
