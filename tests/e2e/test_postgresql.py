"""A team's registry: PostgreSQL, its blobs in a folder that all share, and its bad days."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from scoring.errors import WorkspaceError
from serve.registry import Registry
from tests.postgres import PASSWORD, PostgreSQL

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model")
    return path


def test_two_machines_see_one_registry(
    postgresql: PostgreSQL, source: Path, tmp_path: Path
) -> None:
    url = postgresql.url(tmp_path / "blobs")
    with Registry(url) as one, Registry(url) as other:
        assert one.models.register("iris", source, prepared={}).version == 1
        assert other.models.register("iris", source, prepared={}).version == 2
        assert one.models.list() == other.models.list()
        other.models.download("iris:1", tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").read_bytes() == b"model"


def test_the_blob_folder_may_come_from_the_environment(
    postgresql: PostgreSQL, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDPOST_WORKSPACE", postgresql.url(tmp_path).partition("?")[0])
    monkeypatch.setenv("FIELDPOST_BLOBS", str(tmp_path / "blobs"))
    with Registry() as registry:
        registry.models.register("iris", source, prepared={})
    assert len(list((tmp_path / "blobs" / "blobs" / "sha256").iterdir())) == 1


def test_a_restart_of_the_server_is_waited_for(
    postgresql: PostgreSQL, source: Path, tmp_path: Path
) -> None:
    with Registry(postgresql.url(tmp_path / "blobs"), retry_s=30) as registry:
        registry.models.register("iris", source, prepared={})
        postgresql.stop()
        again = threading.Timer(0.7, postgresql.start)
        again.start()
        try:
            assert registry.models.register("iris", source, prepared={}).version == 2
        finally:
            again.join()
            postgresql.wait_until_ready()
        assert len(registry.models.list()) == 2


def test_connections_that_the_server_has_dropped_are_replaced(
    postgresql: PostgreSQL, source: Path, tmp_path: Path
) -> None:
    with Registry(postgresql.url(tmp_path / "blobs")) as registry:
        registry.models.list()
        postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        assert registry.models.register("iris", source, prepared={}).version == 1


HOLD_THE_WRITERS_LOCK = """
import sys, time
from serve.registry.database import Database
from serve.registry.location import resolve
with Database(resolve(sys.argv[1])) as database, database.write() as connection:
    connection.execute(
        "INSERT INTO fieldpost_counters (kind, name, last) VALUES ('model', 'iris', 41)"
    )
    print("holding", flush=True)
    time.sleep(60)
"""


def test_a_writer_that_is_killed_holds_nobody_up(
    postgresql: PostgreSQL, source: Path, tmp_path: Path
) -> None:
    url = postgresql.url(tmp_path / "blobs")
    Registry(url).close()
    command = [sys.executable, "-c", HOLD_THE_WRITERS_LOCK, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        process.send_signal(signal.SIGKILL)
    with Registry(url) as registry:
        assert registry.models.register("iris", source, prepared={}).version == 1


def test_a_server_that_is_down_is_named_without_its_password(
    postgresql: PostgreSQL, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = postgresql.url(tmp_path / "blobs")
    Registry(url).close()
    postgresql.stop()
    try:
        with pytest.raises(WorkspaceError) as caught:
            Registry(url, retry_s=0.2)
    finally:
        postgresql.start()
        postgresql.wait_until_ready()
    assert str(postgresql.port) in caught.value.message
    assert "***" in caught.value.message
    assert PASSWORD not in caught.value.message
    assert "server runs" in caught.value.hint
    assert PASSWORD not in "".join(capfd.readouterr())


def test_a_role_without_rights_is_told_so(postgresql: PostgreSQL, tmp_path: Path) -> None:
    postgresql.execute("DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    url = f"postgresql://guest:guest@127.0.0.1:{postgresql.port}/postgres?blobs={tmp_path}/b"
    with pytest.raises(WorkspaceError, match="permission denied") as caught:
        Registry(url)
    assert "Grant" in caught.value.hint
