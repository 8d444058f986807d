from __future__ import annotations

import sqlite3

import pytest

from serve.registry import statements


@pytest.mark.parametrize(
    ("written", "translated"),
    [
        ("SELECT 1", "SELECT 1"),
        ("a = :a AND b=:b_2", "a = %(a)s AND b=%(b_2)s"),
        ("VALUES (:a, :a)", "VALUES (%(a)s, %(a)s)"),
        ("a = ':a' AND b = ':it''s :b'", "a = ':a' AND b = ':it''s :b'"),
        ('":a" = :a AND "x"":b" = 1', '":a" = %(a)s AND "x"":b" = 1'),
        ("SELECT :a -- not :b, 100 %\nFROM x", "SELECT %(a)s -- not :b, 100 %%\nFROM x"),
        ("a::text = :a::text", "a::text = %(a)s::text"),
        ("a % 2 = :a", "a %% 2 = %(a)s"),
        ("a LIKE '%:a%'", "a LIKE '%%:a%%'"),
        ("x = 10:5 AND y[1:2]", "x = 10:5 AND y[1:2]"),
    ],
)
def test_parameters_are_translated_and_nothing_else(written: str, translated: str) -> None:
    assert statements.for_psycopg(written) == translated


def test_an_insert_names_each_column_and_its_parameter() -> None:
    statement = statements.insert("t", {"a": 1, "b": 2})
    assert statement == "INSERT INTO t (a, b) VALUES (:a, :b)"
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE t (a, b)")
        database.execute(statement, {"a": 1, "b": "x'); DROP TABLE t; --"})
        assert database.execute("SELECT * FROM t").fetchall() == [(1, "x'); DROP TABLE t; --")]
    database.close()


def test_parts_of_statements() -> None:
    assert statements.assignments(["a", "b"]) == "a = :a, b = :b"
    assert statements.where([]) == ""
    assert statements.where(["a = :a"]) == " WHERE a = :a"
    assert statements.where(["a = :a", "b = 1"]) == " WHERE a = :a AND b = 1"
