"""Lines of streams, and closing beside threads."""

from __future__ import annotations

import pytest

from serve.targets.kubernetes.streams import Door, text_lines


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([], []),
        ([b"a\nb"], ["a", "b"]),
        ([b"a", b"b\nc\n", b"\n"], ["ab", "c", ""]),
        ([b"10%\r20%\rdone\n"], ["10%\r20%\rdone"]),
        (["a\u2028b\x0cc\x85d\n".encode()], ["a\u2028b\x0cc\x85d"]),
        ([b"windows\r\n"], ["windows"]),
        ([b"gr\xc3", b"\xbcn\n\xff\n"], ["grün", "\ufffd"]),
    ],
)
def test_nothing_but_a_line_feed_ends_a_line(pieces: list[bytes], lines: list[str]) -> None:
    assert list(text_lines(pieces)) == lines


def test_what_is_on_its_way_is_closed_when_it_is_there() -> None:
    closed: list[bool] = []
    door = Door(lambda: closed.append(True))
    with door.inside():
        with door.inside():
            door.close()
        assert not closed
        with pytest.raises(RuntimeError, match="closed"), door.inside():
            raise AssertionError
    assert closed == [True]


def test_where_nothing_is_on_its_way_it_is_closed_at_once() -> None:
    closed: list[bool] = []
    door = Door(lambda: closed.append(True))
    with door.inside():
        assert not closed
    door.close()
    assert closed
