"""Response heads and request targets."""

from __future__ import annotations

import logging

import pytest

from serve.server import wire


def test_dates_are_written_as_http_has_them() -> None:
    assert wire.http_date(784_111_777) == b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert wire.http_date(1_709_164_800) == b"Thu, 29 Feb 2024 00:00:00 GMT"


def test_a_head_holds_what_the_route_and_the_server_say() -> None:
    head = wire.head(404, [("X-A", "b")], date=b"D", length=3, connection=b"close")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 404 Not Found",
        b"server: fieldpost",
        b"date: D",
        b"X-A: b",
        b"content-length: 3",
        b"connection: close",
        b"",
        b"",
    ]


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_have_no_length(status: int) -> None:
    head = wire.head(status, [], date=b"D", length=3, chunked=True)
    assert b"content-length" not in head
    assert b"transfer-encoding" not in head


@pytest.mark.parametrize("status", [0, 99, 100, 199, 600, -1])
def test_a_status_that_http_does_not_know_is_an_error_of_the_server(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert wire.head(status, [], date=b"D").startswith(b"HTTP/1.1 500 ")
    assert str(status) in caplog.text


def test_an_unregistered_status_is_passed_on() -> None:
    assert wire.head(299, [], date=b"D").startswith(b"HTTP/1.1 299 \r\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nSet-Cookie: b"),
        ("X", "a\nb"),
        ("X", "a\x00"),
        ("X\r\nY", "a"),
        ("X Y", "a"),
        ("", "a"),
        ("X", "snowman \u2603"),
    ],
)
def test_headers_that_would_break_out_are_dropped(
    name: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        head = wire.head(200, [(name, value), ("Y", "kept")], date=b"D", length=0)
    assert head.count(b"\r\n") == 6
    assert b"Y: kept" in head
    assert "Dropped" in caplog.text


@pytest.mark.parametrize(
    "name", ["Content-Length", "Transfer-Encoding", "Connection", "Date", "Server"]
)
def test_headers_of_the_server_are_not_the_routes_to_set(name: str) -> None:
    head = wire.head(200, [(name, "mine")], date=b"D", length=5)
    assert b"mine" not in head


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/score", "/score", ""),
        (b"/score?a=1&b=%20", "/score", "a=1&b=%20"),
        (b"/a%2Fb%20c", "/a/b c", ""),
        (b"/a%zz%4", "/a%zz%4", ""),
        (b"/%C3%A9", "/é", ""),
        (b"/%FF", "/\ufffd", ""),
        (b"/%00", "/\x00", ""),
        (b"http://host/x?y", "/x", "y"),
        (b"http://host", "/", ""),
        (b"/x?u=http://y", "/x", "u=http://y"),
        (b"/x#frag?no", "/x", ""),
        (b"*", "*", ""),
    ],
)
def test_targets_are_split_and_decoded(target: bytes, path: str, query: str) -> None:
    assert wire.split_target(target) == (path, query)


def test_a_chunk_has_its_size_in_hexadecimal() -> None:
    assert wire.chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
