"""Connections to PostgreSQL: kept, given back, replaced, and never too many."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from scoring.errors import WorkspaceError
from serve.registry import postgresql as module
from serve.registry.database import Database
from serve.registry.faults import UnreachableError
from serve.registry.location import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import PostgreSQL

BACKEND = "SELECT pg_backend_pid() AS pid"


@pytest.fixture
def database(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Database]:
    with Database(resolve(postgresql.url(tmp_path / "blobs"))) as opened:
        yield opened


def backend(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(BACKEND)[0]["pid"])


def test_a_connection_is_used_again(database: Database) -> None:
    assert backend(database) == backend(database)


def test_a_block_that_failed_gives_back_a_connection_without_its_transaction(
    database: Database,
) -> None:
    with pytest.raises(WorkspaceError, match="no_such_table"), database.write() as connection:
        connection.execute("SELECT * FROM no_such_table")
    with database.write() as connection:
        connection.execute("CREATE TABLE kept (x integer)")
    with database.read() as connection:
        assert "kept" in database.tables(connection)


def test_a_connection_that_the_server_drops_in_use_is_not_used_again(
    database: Database, postgresql: PostgreSQL
) -> None:
    def be_dropped() -> None:
        with database.read() as connection:
            pid = connection.execute(BACKEND)[0]["pid"]
            postgresql.execute(f"SELECT pg_terminate_backend({pid})")
            connection.execute("SELECT 1")

    with pytest.raises(UnreachableError):
        be_dropped()
    assert backend(database) > 0


def test_values_mean_the_same_on_the_way_there_and_back(database: Database) -> None:
    given = {"a": 1 << 40, "b": "'%s :x \u00e9\U0001f600", "c": None, "d": True, "e": "%"}
    with database.write() as connection:
        connection.execute("CREATE TABLE t (a bigint, b text, c text, d boolean, e text)")
        connection.execute("INSERT INTO t VALUES (:a, :b, :c, :d, :e)", **given)
        connection.execute_many("INSERT INTO t (a) VALUES (:a)", [{"a": 2}, {"a": 3}])
        connection.execute_many("INSERT INTO t (a) VALUES (:a)", [])
    with database.read() as connection:
        assert connection.execute("SELECT * FROM t WHERE e = '%'", unused=1) == [given]
        assert connection.execute("SELECT COUNT(*) AS n FROM t") == [{"n": 3}]


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(WorkspaceError, match="read-only"), database.read() as connection:
        connection.execute("CREATE TABLE t (a bigint)")


def test_writers_see_what_the_writer_before_them_committed(
    database: Database, postgresql: PostgreSQL
) -> None:
    """Also where the server's default would show them the moment before they waited."""
    postgresql.execute("ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'")
    try:
        with database.write() as connection:
            connection.execute("CREATE TABLE t (n bigint)")
            connection.execute("INSERT INTO t VALUES (0)")

        def count() -> None:
            for _ in range(10):
                with database.write() as connection:
                    (row,) = connection.execute("SELECT n FROM t")
                    connection.execute("UPDATE t SET n = :n", n=row["n"] + 1)

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with database.read() as connection:
            assert connection.execute("SELECT n FROM t") == [{"n": 40}]
    finally:
        postgresql.execute("ALTER DATABASE postgres RESET default_transaction_isolation")


def test_too_many_at_once_are_told_so(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POOL_TIMEOUT_S", 0.05)
    blocks = [database.read() for _ in range(module.MAX_CONNECTIONS)]
    for block in blocks:
        block.__enter__()
    try:
        with pytest.raises(UnreachableError, match="All 10 connections"):
            backend(database)
    finally:
        for block in blocks:
            block.__exit__(None, None, None)
    assert backend(database) > 0


def test_a_child_leaves_its_parents_connection_alone(database: Database) -> None:
    before = backend(database)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            own = backend(database)
            database.close()
            gc.collect()
            code = 0 if own != before else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert backend(database) == before


def test_a_missing_driver_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(WorkspaceError, match="needs psycopg") as caught:
        Database(resolve(f"postgresql://u:secret@h/d?blobs={tmp_path}"))
    assert "fieldpost[postgresql]" in caught.value.hint
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("rest", ["p@h/d?nonsense=1", "50%off@h/d"])
def test_an_url_that_the_driver_refuses_is_told(rest: str, tmp_path: Path) -> None:
    joint = "&" if "?" in rest else "?"
    location = resolve(f"postgresql://u:{rest}{joint}blobs={tmp_path}")
    with Database(location) as database, pytest.raises(WorkspaceError) as caught:
        backend(database)
    assert "Correct the URL" in caught.value.hint
    assert "50%off" not in caught.value.message


def test_settings_of_the_url_come_before_ours(postgresql: PostgreSQL, tmp_path: Path) -> None:
    url = postgresql.url(tmp_path / "b")
    for more, expected in (("", "30s"), ("&options=-c%20lock_timeout%3D7s", "7s")):
        with Database(resolve(url + more)) as database, database.read() as connection:
            assert connection.execute("SHOW lock_timeout") == [{"lock_timeout": expected}]
