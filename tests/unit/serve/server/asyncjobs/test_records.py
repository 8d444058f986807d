from __future__ import annotations

import time

from serve.server.asyncjobs import records
from serve.server.asyncjobs.records import Record


def test_names_sort_by_time_and_tell_it() -> None:
    now = time.time()
    ids = [records.new_id(now + number) for number in range(5)]
    assert ids == sorted(ids)
    assert all(map(records.is_id, ids))
    assert abs(records.created_at(ids[0]) - now) < 0.002


def test_what_is_no_name_is_told_before_any_path() -> None:
    for text in ("", "..", "a" * 31, "A" * 32, "../" + "a" * 29, "a" * 32 + "\n"):
        assert not records.is_id(text)


def test_credentials_are_not_kept() -> None:
    given = [
        (b"authorization", b"Bearer secret"),
        (b"x-api-key", b"secret"),
        (b"cookie", b"secret"),
        (b"prefer", b"respond-async"),
        (b"content-type", b"application/json"),
        (b"x-name", "Grüße".encode("latin-1")),
    ]
    assert records.kept_headers(given) == [
        ("content-type", "application/json"),
        ("x-name", "Grüße"),
    ]


def test_digests_know_where_a_part_ends() -> None:
    assert records.digest(b"ab", b"c") != records.digest(b"a", b"bc")


def test_what_the_owner_is_told_has_no_query() -> None:
    record = Record(
        id=records.new_id(1e9), status="running", created=1e9, target="/score?key=secret"
    )
    told = record.document()
    assert told["target"] == "/score"
    assert told["created"] == "2001-09-09T01:46:40.000Z"
    assert (told["finished"], told["attempts"]) == (None, 0)
    assert "progress" not in told
