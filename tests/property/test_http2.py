"""What is kept of header blocks, and how messages are cut, against the plain way."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.server.grpc.frames import StreamFault
from serve.server.grpc.heads import Heads
from serve.server.grpc.reading import MessageReader, framed

HEAD = [
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"),
    (b"content-type", b"application/grpc"), (b"te", b"trailers"),
]  # fmt: skip
names = st.sampled_from([b"x-a", b"x-b", b"x-long", b"x-timeout", b"user-agent"])
values = st.sampled_from([b"", b"1S", b"2m", b"v" * 40, b"w" * 3000])
more = st.lists(st.tuples(names, values, st.booleans()), max_size=4)
requests = st.lists(
    st.one_of(more, st.sampled_from([0, 100, 4096]), st.just("trailers")), min_size=1, max_size=25
)


@given(requests, st.booleans())
@settings(max_examples=60, deadline=None)
def test_kept_blocks_mean_what_decoding_them_would(steps: list[object], huffman: bool) -> None:
    """Whatever a client does to its table, whichever blocks come again."""
    encoder, reference, heads = Encoder(), Decoder(), Heads(1 << 20, 1000)
    for step in steps:
        if isinstance(step, int):
            # hpack's encoder forgets to tell of a size that is set twice.
            if step != encoder.header_table_size:
                encoder.header_table_size = step
            continue
        if step == "trailers":
            block = encoder.encode([(b"x-trailer", b"t" * 30)], huffman=huffman)
            reference.decode(block, raw=True)
            heads.skip(block, 1)
            continue
        fields: list[tuple[bytes, bytes]] = list(HEAD)
        for name, value, sensitive in step:  # type: ignore[attr-defined]
            fields.append(NeverIndexedHeaderTuple(name, value) if sensitive else (name, value))
        block = encoder.encode(fields, huffman=huffman)
        expected = [(bytes(k), bytes(v)) for k, v in reference.decode(block, raw=True)]
        # As often as one likes, as long as the table stays: the second time it may be kept.
        head = heads.read(block, 1)
        assert [(bytes(k), bytes(v)) for k, v in head.fields] == expected[3:]
        assert head.path == b"/a.B/C"


def test_blocks_that_change_nothing_are_kept() -> None:
    encoder, heads = Encoder(), Heads(1 << 16, 100)
    first = heads.read(encoder.encode(HEAD), 1)
    block = encoder.encode(HEAD)
    second = heads.read(block, 3)
    assert second is not first
    assert heads.read(encoder.encode(HEAD), 5) is second
    with pytest.raises(StreamFault):
        heads.read(encoder.encode([(b"x", b"y")]), 7)
    assert heads.read(encoder.encode(HEAD), 9) is not second


messages = st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=12)


@given(messages, st.data())
def test_messages_come_out_however_they_are_cut(
    sent: list[tuple[bool, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(framed(body, compressed=flag) for flag, body in sent)
    reader = MessageReader(60)
    got: list[tuple[bool, bytes]] = []
    begin = 0
    while begin < len(stream):
        size = data.draw(st.integers(1, 70))
        reader.feed(stream[begin : begin + size])
        begin += size
        while data.draw(st.booleans()) and (message := reader.take()) is not None:
            got.append(message)
    while (message := reader.take()) is not None:
        got.append(message)
    assert got == sent
    assert reader.held == 0
