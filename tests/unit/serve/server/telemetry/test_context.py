"""W3C Trace Context."""

from __future__ import annotations

import pytest

from serve.server.telemetry import context
from serve.server.telemetry.context import Parent, Trace

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def parse(*headers: tuple[str, str]) -> Parent | None:
    return context.parse([(name.encode(), value.encode("latin-1")) for name, value in headers])


def test_a_context_is_taken_over() -> None:
    parent = parse(("host", "x"), ("traceparent", f"00-{ID}-{SPAN}-01"), ("tracestate", "a=1,b=2"))
    assert parent == Parent(int(ID, 16), int(SPAN, 16), sampled=True, state="a=1,b=2")


def test_states_of_several_headers_are_one() -> None:
    parent = parse(
        ("tracestate", "a=1"), ("traceparent", f"00-{ID}-{SPAN}-00"), ("tracestate", "b=2")
    )
    assert parent is not None
    assert not parent.sampled
    assert parent.state == "a=1,b=2"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"00-{ID}-{SPAN}",
        f"00-{ID}-{SPAN}-01-more",
        f"00-{ID}-{SPAN}-1",
        f"00-{ID.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"ff-{ID}-{SPAN}-01",
        f"00-{ID[:-1]}g-{SPAN}-01",
        f"01-{ID}-{SPAN}-01x",
        f"00-{ID}-{SPAN}-01\n",
    ],
)  # fmt: skip
def test_a_broken_context_is_none(value: str) -> None:
    assert parse(("traceparent", value)) is None
    assert context.trace_id(value.encode()) == ""


def test_a_later_version_may_say_more() -> None:
    parent = parse(("traceparent", f"cc-{ID}-{SPAN}-03-what-comes"))
    assert parent is not None
    assert parent.sampled


def test_two_contexts_are_none() -> None:
    header = ("traceparent", f"00-{ID}-{SPAN}-01")
    assert parse(header, header) is None


@pytest.mark.parametrize("state", ["x=" + "y" * 511, "ü=1"])
def test_a_state_that_cannot_be_sent_on_is_left_out(state: str) -> None:
    parent = parse(("traceparent", f"00-{ID}-{SPAN}-01"), ("tracestate", state))
    assert parent is not None
    assert parent.state == ""


def test_a_trace_goes_on_or_begins() -> None:
    parent = Parent(int(ID, 16), int(SPAN, 16), sampled=True)
    trace = Trace.begin(parent, sampled=True)
    assert trace.trace_id == parent.trace_id
    assert trace.span_id not in {0, parent.span_id}
    assert trace.traceparent == f"00-{ID}-{trace.span_id:016x}-01"
    new = Trace.begin(None, sampled=False)
    assert new.trace_id not in {0, parent.trace_id}
    assert new.traceparent.endswith("-00")
    assert context.trace_id(new.traceparent.encode()) == f"{new.trace_id:032x}"
