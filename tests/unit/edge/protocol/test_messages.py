"""Messages: there and back, and whatever else may come."""

from __future__ import annotations

import json
import os
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.protocol import messages as m
from scoring.errors import MalformedPayloadError, PayloadTooLargeError

DIGEST = "sha256:" + "a" * 64


def _as_text(value: object) -> bytes:
    return json.dumps(value).encode()


DESIRED = m.Desired(
    site="berlin",
    device="cam-1",
    generation=7,
    issued_at=1.5,
    modules={"iris": m.Module(package=DIGEST, release=3, port=5001, settings={"env.A": "b"})},
    sources=(m.Source(url="https://registry.example/v2/iris", kind="registry"),),
    window=m.Window(begins=60, ends=120, days=(5, 6)),
)
EXAMPLES: list[m.Message] = [
    DESIRED,
    m.Reported(
        device="cam-1",
        boot=2,
        seq=1,
        generation=7,
        at=2.0,
        modules={"iris": m.ModuleState(phase="soaking", wanted=DIGEST, healthy=True)},
        facts={"platform": "linux/arm64", "memory_mib": 512, "gpu": False},
        refused=m.Failure(code="x", message="y"),
    ),
    m.Status(device="cam-1", online=True, boot=2),
    m.Telemetry(
        device="cam-1",
        epoch="e",
        records=(m.Record(seq=0, at=1.0, kind="metric", data={"n": 1}),),
        dropped={"debug": 4},
    ),
    m.Ack(device="cam-1", epoch="e", ranges=((0, 4), (6, 6))),
    m.Command(
        site="berlin",
        device="cam-1",
        id="1",
        key="k",
        deadline=9.0,
        verb="logs",
        arguments={"n": 5},
    ),
    m.CommandResult(device="cam-1", id="1", part=1, parts=2, output="text"),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_there_and_back(message: m.Message) -> None:
    assert m.decode(m.encode(message), type(message)) == message
    assert m.decode(m.encode_compressed(message), type(message)) == message


def test_the_same_message_has_the_same_bytes() -> None:
    again = m.decode(m.encode(DESIRED), m.Desired)
    assert m.encode(again) == m.encode(DESIRED)


def test_what_a_newer_sender_adds_is_passed_over() -> None:
    document = json.loads(m.encode(DESIRED)) | {"new": [1]}
    assert m.decode(json.dumps(document).encode(), m.Desired) == DESIRED


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"generation": 0},
        {"generation": "7"},
        {"device": "../etc"},
        {"site": "a/b"},
        {"modules": {"iris": {"package": "sha256:123"}}},
        {"modules": {"A B": {"package": DIGEST}}},
        {"modules": {"iris": {"package": DIGEST, "port": 70000}}},
        {"modules": {"iris": {"package": DIGEST, "run": "shell"}}},
        {"window": {"begins": 1440, "ends": 0}},
        {"rate": -1},
    ],
)
def test_wrong_messages_are_refused(change: dict[str, Any]) -> None:
    document = json.loads(m.encode(DESIRED)) | change
    with pytest.raises(MalformedPayloadError):
        m.decode(json.dumps(document).encode(), m.Desired)


def test_ranges_go_upwards() -> None:
    with pytest.raises(MalformedPayloadError):
        m.decode(b'{"device":"d","epoch":"e","ranges":[[4,3]]}', m.Ack)


def test_large_messages_are_refused_on_both_sides() -> None:
    long = m.CommandResult(device="d", id="1", output="x" * m.MOST_BYTES)
    with pytest.raises(PayloadTooLargeError):
        m.encode(long)
    assert m.decode(m.encode_compressed(long), m.CommandResult) == long
    with pytest.raises(PayloadTooLargeError):
        m.decode(b"{" + b" " * m.MOST_BYTES, m.Status)


def test_a_bomb_is_not_unpacked() -> None:
    with pytest.raises(PayloadTooLargeError):
        m.decode(zlib.compress(b" " * (m.MOST_UNPACKED + 1)), m.Telemetry)


@pytest.mark.parametrize("cut", [1, 5, -1])
def test_cut_and_padded_compressed_messages_are_refused(cut: int) -> None:
    packed = zlib.compress(m.encode(DESIRED))
    with pytest.raises(MalformedPayloadError):
        m.decode(packed[:cut], m.Desired)
    with pytest.raises(MalformedPayloadError):
        m.decode(packed + b"x", m.Desired)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    for message in EXAMPLES:
        try:
            m.decode(data, type(message))
        except (MalformedPayloadError, PayloadTooLargeError):
            continue


def test_deep_nesting_is_refused() -> None:
    deep = b'{"device":"d","id":"1","output":' + b"[" * 30000 + os.urandom(0)
    with pytest.raises(MalformedPayloadError):
        m.decode(deep, m.CommandResult)
    record = b'{"device":"d","epoch":"e","records":[{"seq":0,"at":0,"kind":"k","data":{"a":%b}}]}'
    with pytest.raises(MalformedPayloadError):
        m.decode(record % (b"[" * 5000 + b"]" * 5000), m.Telemetry)
