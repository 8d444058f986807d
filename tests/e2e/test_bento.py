"""Packages as Bentos, run by `bentoml serve`; models of BentoML, registered by the command."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scoring.errors import AlreadyExistsError, UsageError
from serve import Workspace
from tests.support.doubling import doubling_workspace
from tests.support.local import eventually, free_port

pytest.importorskip("bentoml")
pytestmark = pytest.mark.timeout(300)
BIN = Path(sys.executable).parent
V2 = b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.1, 7]}]}'
REQUESTS = (
    ("POST", "/score", b'{"data": [[1, 2], [0.1, -3e4]]}'),
    ("POST", "/score", b'{"data": [[1]]}'),
    ("POST", "/score", b'{"data": [["a", "b"]]}'),
    ("POST", "/score", b"{"),
    ("POST", "/score", b""),
    ("GET", "/swagger.json", b""),
    ("GET", "/v2/models/twice", b""),
    ("POST", "/v2/models/twice/infer", V2),
    ("POST", "/nowhere?a=%20b", b"{}"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the package of a model that doubles."""
    folder = tmp_path_factory.mktemp("bento")
    doubling_workspace(folder)
    return folder


def environment(folder: Path, **more: str) -> dict[str, str]:
    own = {"FIELDPOST_WORKSPACE": str(folder / "workspace"), "BENTOML_DO_NOT_TRACK": "1"}
    return {**os.environ, **own, "BENTOML_HOME": str(folder / "home"), **more}


def fieldpost(folder: Path, *arguments: str, expect: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [BIN / "fieldpost", *arguments, "--json"],
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, f"{done.stdout}\n{done.stderr}"
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@contextlib.contextmanager
def running(folder: Path, command: list[str | Path], port: int, ready: str) -> Iterator[None]:
    log = folder / f"{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment(folder),
            stdout=output,
            stderr=output,
        )
    try:
        eventually(lambda: status(port, "GET", ready) == 200, timeout_s=90)
        yield
    finally:
        process.terminate()
        assert process.wait(timeout=60) in {0, -15}, log.read_text()[-2000:]


def ask(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, response.read(), headers


def status(port: int, method: str, path: str) -> int:
    try:
        return ask(port, method, path)[0]
    except OSError:
        return 0


def answers(port: int) -> list[Any]:
    found = []
    for request in REQUESTS:
        code, body, headers = ask(port, *request)
        found.append((code, body, headers.get("content-type"), headers.get("x-ms-server-version")))
    return found


def test_a_bento_answers_as_the_package_does(folder: Path) -> None:
    exported = fieldpost(folder, "package", "export", "twice", f"bento:{folder}/twice-bento")
    with free_port() as here, free_port() as there:
        """Free again below."""
    served = ["serve", "twice", "--port", str(here)]
    with running(folder, [BIN / "fieldpost", *served], here, "/v2/health/ready"):
        expected = answers(here)
    assert {code for code, *_ in expected} == {200, 400, 404}

    command = [BIN / "bentoml", "serve", exported["destination"], "--port", str(there)]
    with running(folder, command, there, "/readyz"):
        assert answers(there) == expected
        body = b'{"data": [[1, 2]]}'
        code, answer, _ = ask(there, "POST", "/predict", body)
        assert (code, json.loads(answer)) == (
            200,
            json.loads(ask(there, "POST", "/score", body)[1]),
        )
        assert ask(there, "POST", "/predict", b'{"data": [[1]]}')[0] == 400
        assert status(there, "GET", "/livez") == 200
    eventually(lambda: not left_behind(f"{folder}/twice-bento"))


def left_behind(of: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if of.encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
    return found


def test_bentos_go_to_files_and_to_the_store(folder: Path) -> None:
    archive = fieldpost(folder, "package", "export", "twice", f"bento:{folder}/twice.tar")
    with tarfile.open(archive["destination"]) as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
    assert {"bento.yaml", "src/service.py", "src/package/runtime/scoring/boot.py"} <= names
    stored = fieldpost(folder, "package", "export", "twice", "bentoml:")
    again = fieldpost(folder, "package", "export", "twice", "bentoml:")
    assert stored == again
    listed = subprocess.run(
        [BIN / "bentoml", "list", "-o", "json"],
        env=environment(folder),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [each["tag"] for each in json.loads(listed.stdout)] == [stored["tag"]]
    # Made of a package: what is in it is no model to be registered again.
    refused = fieldpost(folder, "model", "register", "again", stored["destination"], expect=2)
    assert "made of a package" in refused["error"]["message"]


def test_destinations_that_cannot_be(folder: Path) -> None:
    (folder / "taken.tar").touch()
    with Workspace(folder / "workspace") as opened:
        package = opened.packages.get("twice")
        with pytest.raises(UsageError, match="names no place"):
            opened.packages.export_bento(package, "bento:")
        with pytest.raises(AlreadyExistsError):
            opened.packages.export_bento(package, f"bento:{folder}/taken.tar")


def test_a_model_of_bentoml_is_registered_with_its_labels(folder: Path, tmp_path: Path) -> None:
    save = (
        "import bentoml, onnx, sys; m = bentoml.onnx.save_model('twice', onnx.load(sys.argv[1]),"
        "labels={'team': 'green'}); print(bentoml.models.export_model(str(m.tag), sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", save, folder / "twice.onnx", tmp_path],
        env=environment(folder),
        capture_output=True,
        text=True,
        check=True,
    )
    exported = done.stdout.split()[-1]
    version = fieldpost(folder, "model", "register", "from-bentoml", exported, "--tag", "team=blue")
    assert version["format"] == "onnx"
    assert version["tags"]["team"] == "blue"
    assert version["tags"]["bentoml/module"] == "bentoml.onnx"
    stored = fieldpost(folder, "model", "register", "from-bentoml", "bentoml:twice")
    assert stored["tags"]["team"] == "green"
    assert stored["digest"] == version["digest"]
