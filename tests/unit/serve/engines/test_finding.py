"""What is said where no engine is to be had; an engine that answers with what the test wants."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import TargetError, UnreachableError
from serve.engines import places
from serve.engines.finding import find_engine
from serve.engines.places import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = {"ApiVersion": "1.43", "Version": "24.0.7", "Os": "linux", "Arch": "amd64"}


@contextmanager
def engine(documents: dict[str, Any]) -> Iterator[str]:
    """A socket on which these documents are answered, by the path's end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = next((v for k, v in documents.items() if self.path.endswith(k)), None)
            body = found if isinstance(found, bytes) else json.dumps(found or {}).encode()
            self.send_response(200 if found is not None else 500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return ""

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = f"{folder}/e.sock"
        with ThreadingUnixStreamServer(path, Handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield path
            server.shutdown()
            thread.join()


def test_an_engine_is_asked_what_it_is() -> None:
    components = [{"Name": "Podman Engine"}]
    podman = {**VERSION, "Components": components}
    with (
        engine({"/version": podman}) as path,
        find_engine("docker", f"unix://{path}", {}) as found,
    ):
        assert (found.kind, found.version, found.platform) == (
            "podman",
            "24.0.7",
            "linux/amd64",
        )
        assert found.is_local
        assert path in repr(found)
    with engine({"/version": VERSION}) as path, find_engine(None, path, {}) as found:
        assert found.kind == "docker"


def test_an_engine_that_is_too_old() -> None:
    with (
        engine({"/version": {**VERSION, "ApiVersion": "1.39"}}) as path,
        pytest.raises(TargetError, match=r"too old: its API has version 1\.39") as error,
    ):
        find_engine("docker", path, {})
    assert "Upgrade" in error.value.hint


@pytest.mark.parametrize("answer", [b"<html>", b"", b"[]", b'{"nothing": 1}'])
def test_something_else_listens_there(answer: bytes) -> None:
    with engine({"/version": answer}) as path, pytest.raises(TargetError, match="The engine at"):
        find_engine("docker", path, {})


def test_no_socket_at_all(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    with pytest.raises(
        UnreachableError, match=r"no\.sock \(DOCKER_HOST\): there is no such"
    ) as error:
        find_engine("docker", None, environ)
    assert "systemctl start docker" in error.value.hint


def test_a_socket_where_nobody_listens(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(f"{folder}/x.sock")
        with pytest.raises(UnreachableError, match="does not answer: Connection refused"):
            find_engine("podman", f"{folder}/x.sock", {})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_socket_that_is_not_for_this_user() -> None:
    with engine({"/version": VERSION}) as path:
        Path(path).parent.chmod(0o755)
        Path(path).chmod(0o600)
        os.seteuid(65532)
        try:
            with pytest.raises(TargetError, match="may not use the Docker engine") as error:
                find_engine("docker", path, {})
        finally:
            os.seteuid(0)
    assert "group docker" in error.value.hint


def test_all_customary_places_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = [Place(f"unix:///nowhere/{n}.sock", f"/nowhere/{n}.sock", sure=False) for n in "ab"]
    monkeypatch.setattr(places, "places", lambda _kind, _environ: looked)
    with pytest.raises(UnreachableError, match=r"Looked at /nowhere/a\.sock, /nowhere/b\.sock"):
        find_engine("docker", None, {})


def test_the_second_kind_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with engine({"/version": VERSION}) as path:
        found = {
            "docker": [Place("unix:///nowhere/d.sock", "/nowhere/d.sock", sure=False)],
            "podman": [Place(f"unix://{path}", path, sure=False)],
        }
        monkeypatch.setattr(places, "places", lambda kind, _environ: found[kind])
        with find_engine(None, None, {}) as there:
            assert there.host == f"unix://{path}"


def test_a_machine_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        host = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnreachableError, match="does not answer"):
            find_engine("docker", host, {})
