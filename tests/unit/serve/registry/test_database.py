from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from scoring.errors import StorageFullError, WorkspaceError
from serve.registry import Registry
from serve.registry.database import Database
from serve.registry.faults import UnreachableError, is_passing, translate
from serve.registry.location import resolve
from serve.registry.records import ModelVersion
from tests.postgres import ENCODED_PASSWORD, PASSWORD, PostgreSQL

if TYPE_CHECKING:
    from pathlib import Path

Register = Callable[..., ModelVersion]

INSERT = "INSERT INTO fieldpost_counters (kind, name, last) VALUES ('x', 'y', 1)"


def test_sqlite_is_set_up_to_survive(tmp_path: Path) -> None:
    Registry(tmp_path).close()
    modes = {}
    with Database(resolve(tmp_path)) as database, database.read() as connection:
        for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout"):
            (row,) = connection.execute(f"PRAGMA {name}")
            (modes[name],) = row.values()
    assert modes == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 30000,
    }


def test_a_block_that_fails_changes_nothing(registry: Registry, place: str) -> None:
    def write(database: Database) -> None:
        with database.write() as connection:
            connection.execute(INSERT)
            raise KeyError

    with Database(resolve(place)) as database:
        with pytest.raises(KeyError):
            write(database)
        with database.read() as connection:
            assert connection.execute("SELECT * FROM fieldpost_counters") == []


def test_readers_go_on_while_one_writes(registry: Registry, place: str) -> None:
    with Database(resolve(place)) as database, database.write() as connection:
        connection.execute(INSERT)
        assert registry.models.list() == ()


def test_a_read_sees_one_moment(registry: Registry, register: Register, place: str) -> None:
    with Database(resolve(place)) as database, database.read() as connection:
        count = "SELECT COUNT(*) AS count FROM fieldpost_model_versions"
        assert connection.execute(count) == [{"count": 0}]
        register()
        assert connection.execute(count) == [{"count": 0}]


def test_threads_share_one_registry(registry: Registry, register: Register, tmp_path: Path) -> None:
    source = tmp_path / "m"
    source.write_bytes(b"m")
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(
            lambda _: registry.models.register("iris", source, prepared={}).version, range(16)
        )
        assert sorted(found) == list(range(1, 17))


def test_a_child_process_uses_connections_of_its_own(
    registry: Registry, register: Register
) -> None:
    register()
    child = os.fork()
    if child == 0:
        found = 0
        try:
            found = registry.models.get("iris").version
        finally:
            os._exit(0 if found == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert register().version == 2


def test_threads_open_one_new_workspace_at_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def open_it(_: int) -> int:
        barrier.wait()
        with Registry(tmp_path / "new") as registry:
            return len(registry.models.list())

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(open_it, range(8))) == [0] * 8


def test_a_new_file_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "fieldpost.db", isolation_level=None) as other:
        other.execute("PRAGMA user_version=1")  # a file, not yet with a write-ahead log
        other.execute("BEGIN IMMEDIATE")
        opened: list[int] = []

        def open_it() -> None:
            with Registry(tmp_path) as registry:
                opened.append(len(registry.models.list()))

        thread = threading.Thread(target=open_it)
        thread.start()
        thread.join(0.2)
        assert opened == []
        other.execute("COMMIT")
        thread.join(10)
    other.close()
    assert opened == [0]


@pytest.mark.parametrize(
    "content", [b"this is no database, " * 50, b"SQLite format 3\0" + b"\7" * 5000]
)
def test_a_damaged_database_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fieldpost.db").write_bytes(content)
    with pytest.raises(WorkspaceError, match="damaged") as caught:
        Registry(tmp_path)
    assert "backup" in caught.value.hint


def test_a_database_cut_off_says_so(tmp_path: Path) -> None:
    with Registry(tmp_path / "w") as registry:
        source = tmp_path / "m"
        source.write_bytes(b"m")
        for _ in range(20):
            registry.models.register("m", source, prepared={"x": "y" * 2000})
    path = tmp_path / "w" / "fieldpost.db"
    os.truncate(path, path.stat().st_size // 3)

    def read() -> None:
        with Registry(tmp_path / "w") as registry:
            registry.models.list()
            registry.packages.list()

    with pytest.raises(WorkspaceError, match="damaged"):
        read()


def test_places_that_cannot_be_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "ws" / "fieldpost.db").mkdir(parents=True)
    for place, said in ((tmp_path / "file", "file"), (tmp_path / "ws", "cannot be opened")):
        with pytest.raises(WorkspaceError, match=said):
            Registry(place)


def test_a_writer_that_never_ends_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.registry.sqlite.BUSY_TIMEOUT_S", 0.05)
    source = tmp_path / "m"
    source.write_bytes(b"m")
    with Registry(tmp_path / "w") as registry:
        other = sqlite3.connect(tmp_path / "w" / "fieldpost.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(WorkspaceError, match="locked for too long"):
            registry.models.register("m", source, prepared={})
        other.close()
        assert registry.blobs.digests() == []


def sqlite_error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("name", "expected", "said"),
    [
        ("SQLITE_FULL", StorageFullError, "No space"),
        ("SQLITE_IOERR_WRITE", WorkspaceError, "disk failed"),
        ("SQLITE_READONLY_DBMOVED", WorkspaceError, "cannot be written"),
        ("SQLITE_CORRUPT_INDEX", WorkspaceError, "damaged"),
        ("SQLITE_CANTOPEN", WorkspaceError, "cannot be opened"),
        ("SQLITE_BUSY_SNAPSHOT", WorkspaceError, "locked"),
        ("SQLITE_MISUSE", WorkspaceError, "it failed"),
    ],
)
def test_what_errors_of_sqlite_mean(
    tmp_path: Path, name: str, expected: type[WorkspaceError], said: str
) -> None:
    found = translate(sqlite_error(name), resolve(tmp_path))
    assert type(found) is expected
    assert said in found.message


def test_an_io_error_on_a_full_disk_is_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        f_bavail = 0

    monkeypatch.setattr(os, "statvfs", lambda folder: Full)
    found = translate(sqlite_error("SQLITE_IOERR_SHMSIZE"), resolve(tmp_path))
    assert isinstance(found, StorageFullError)


class PostgreSQLError(Exception):
    def __init__(self, text: str, sqlstate: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (PostgreSQLError("connection failed: Connection refused"), True),
        (PostgreSQLError("FATAL: the database system is starting up", "57P03"), True),
        (PostgreSQLError("FATAL: the database system is starting up"), True),
        (PostgreSQLError("server closed the connection unexpectedly"), True),
        (PostgreSQLError("FATAL: password authentication failed"), False),
        (PostgreSQLError("x", "42501"), False),
        (sqlite_error("SQLITE_BUSY"), False),
    ],
)
def test_what_passes_by_itself(error: Exception, passing: bool) -> None:
    assert is_passing(error) is passing


def test_errors_of_postgresql_hold_no_password() -> None:
    location = resolve("postgresql://u:top%40secret@h/d?blobs=/b")
    for text in ("bad top@secret", "Connection refused for top%40secret"):
        found = translate(PostgreSQLError(text), location)
        assert "secret" not in found.message
    full = translate(PostgreSQLError("full", "53100"), location)
    assert isinstance(full, StorageFullError)
    assert "secret" not in full.message


def forbidden(text: str) -> bool:
    return PASSWORD in text or ENCODED_PASSWORD in text or "s3cr3t" in text


def test_a_server_that_refuses_says_what_to_do(postgresql: PostgreSQL, tmp_path: Path) -> None:
    good = postgresql.url(tmp_path / "blobs")
    for bad, said in (
        (good.replace("/postgres?", "/missing?"), "createdb"),
        (good.replace(ENCODED_PASSWORD, "s3cr3t-wrong"), "password"),
        (good.replace("127.0.0.1", "no-such-host.invalid"), "host name"),
    ):
        with pytest.raises(WorkspaceError) as caught:
            Registry(bad, retry_s=0)
        assert said in caught.value.hint
        assert not forbidden(caught.value.message)
        cause: BaseException | None = caught.value
        while cause is not None:
            assert not forbidden(str(cause))
            cause = cause.__cause__


def test_an_unreachable_server_is_tried_again_and_named(tmp_path: Path) -> None:
    url = f"postgresql://u:s3cr3t@127.0.0.1:1/d?blobs={tmp_path / 'b'}"
    with pytest.raises(UnreachableError, match="does not answer") as caught:
        Registry(url, retry_s=0.3)
    assert caught.value.retryable
    assert not forbidden(caught.value.message)


def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    """As another user where this one may do anything."""
    folder = tmp_path / "ro"
    folder.mkdir()
    folder.chmod(0o555)
    for above in folder.parents:  # pytest's folders are private
        if above.stat().st_mode & 0o1 == 0:
            above.chmod(above.stat().st_mode | 0o111)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            Registry(folder / "ws")
        except WorkspaceError as error:
            code = 0 if "permission" in error.message.lower() and error.hint else 3
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
