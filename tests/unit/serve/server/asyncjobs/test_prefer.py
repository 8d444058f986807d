from __future__ import annotations

import pytest

from serve.server.asyncjobs.prefer import parse


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("respond-async", (True, 0)),
        ("Respond-Async", (True, 0)),
        ("respond-async, wait=10", (True, 10)),
        ('wait="5", respond-async', (True, 5)),
        ("respond-async;foo=bar, wait=10; x", (True, 10)),
        ("respond-async, wait=99999", (True, 60)),
        ("respond-async, wait=-1, wait=3", (True, 0)),
        ("respond-async, wait=1e9", (True, 0)),
        ("respond-asynchronously", (False, 0)),
        ('note="a, respond-async"', (False, 0)),
        ("return=minimal", (False, 0)),
        (",,;=", (False, 0)),
        ("", (False, 0)),
    ],
)
def test_preferences(header: str, expected: tuple[bool, float]) -> None:
    assert parse(header) == expected
