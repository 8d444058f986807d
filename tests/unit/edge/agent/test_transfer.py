"""One blob from sources that break off, lie, dawdle, or are not there."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.agent.blobs import DeviceBlobs
from edge.agent.throttle import Stop, StoppedError, Throttle
from edge.agent.transfer import Wishes, transfer
from edge.protocol.messages import Source
from scoring.errors import (
    DeadlineExceededError,
    DigestMismatchError,
    NotFoundError,
    RegistryDeniedError,
)
from tests.support.blob_source import (
    QUICK,
    BlobSource,
    Made,
    cut,
    digest_of,
    new_blobs,
    noise,
    send,
    wishes,
)
from tests.support.tiny_registry import Handler

DATA = noise(300_000)
DIGEST = digest_of(DATA)
BLOB = Made(DIGEST, {DIGEST: DATA}, ())
DEAD = Source(url="http://127.0.0.1:9/v2/x")


@pytest.fixture
def blobs(tmp_path: Path) -> DeviceBlobs:
    return new_blobs(tmp_path)


def get(blobs: DeviceBlobs, how: Wishes, digest: str = DIGEST, size: int = len(DATA)) -> None:
    with blobs.incoming(digest, size) as incoming:
        transfer(incoming, how, lambda _: f"blobs/{digest}")


def ranges(source: BlobSource) -> list[str | None]:
    return [headers.get("Range") for _, headers in source.asked("GET")]


def test_it_comes_whole(blobs: DeviceBlobs) -> None:
    with BlobSource(BLOB) as source:
        get(blobs, wishes(source))
    assert blobs.read_bytes(DIGEST) == DATA
    assert not list(blobs.arriving.iterdir())


def test_an_empty_blob(blobs: DeviceBlobs) -> None:
    empty = digest_of(b"")
    with BlobSource(Made("", {empty: b""}, ())) as source:
        get(blobs, wishes(source), empty, 0)
    assert blobs.read_bytes(empty) == b""


def test_it_goes_on_after_every_break(blobs: DeviceBlobs) -> None:
    with BlobSource(BLOB) as source:
        source.on("GET", "blobs", cut(100_000), times=2)
        get(blobs, wishes(source))
        assert ranges(source) == [None, "bytes=100000-", "bytes=200000-"]
    assert blobs.read_bytes(DIGEST) == DATA


def test_it_goes_on_after_a_restart_and_at_another_source(tmp_path: Path) -> None:
    blobs = new_blobs(tmp_path)
    with BlobSource(BLOB) as first, BlobSource(BLOB) as second:
        first.on("GET", "blobs", cut(120_000), times=99)
        late = wishes(first, steady=lambda: blobs.waiting(DIGEST), deadline=120_000)
        with pytest.raises(DeadlineExceededError):
            get(blobs, late)
        here = blobs.waiting(DIGEST)
        assert here == 120_000
        get(new_blobs(tmp_path), wishes(second))
        assert ranges(second) == [f"bytes={here}-"]
    assert blobs.read_bytes(DIGEST) == DATA


def test_a_source_without_ranges(blobs: DeviceBlobs) -> None:
    with BlobSource(BLOB) as source:
        source.on("GET", "blobs", cut(100_000))
        source.on("GET", "blobs", send(200, DATA))
        get(blobs, wishes(source))
        assert ranges(source) == [None, "bytes=100000-"]
    assert blobs.read_bytes(DIGEST) == DATA


def test_a_part_that_is_not_the_blobs(blobs: DeviceBlobs) -> None:
    with blobs.incoming(DIGEST, len(DATA)) as incoming:
        incoming.write(b"x" * 1000)
    with BlobSource(BLOB) as source:
        get(blobs, wishes(source))
        assert ranges(source) == ["bytes=1000-", None]
    assert blobs.read_bytes(DIGEST) == DATA


def test_a_part_that_is_too_long(blobs: DeviceBlobs) -> None:
    (blobs.arriving / f"{DIGEST.removeprefix('sha256:')}.part").write_bytes(DATA + b"more")
    with BlobSource(BLOB) as source:
        get(blobs, wishes(source))
        assert ranges(source) == [None]


def test_a_part_that_is_whole_is_only_compared(blobs: DeviceBlobs) -> None:
    (blobs.arriving / f"{DIGEST.removeprefix('sha256:')}.part").write_bytes(DATA)
    with BlobSource() as source:
        get(blobs, wishes(source))
        assert not source.requests
    assert blobs.read_bytes(DIGEST) == DATA


def partial(start: int, total: object, body: bytes) -> Callable[[Handler], bool]:
    end = start + len(body) - 1
    return send(206, body, {"content-range": f"bytes {start}-{end}/{total}"})


@pytest.mark.parametrize(
    "lie",
    [
        send(200, DATA[::-1]),
        send(200, DATA[:-1]),
        send(200, DATA + b"x"),
        send(200, b"<html>Log in to the hotel's network</html>"),
        send(200, DATA, {"content-encoding": "gzip"}),
        send(204),
        send(206, DATA),
        partial(5, len(DATA), DATA[5:]),
        partial(0, len(DATA) + 1, DATA),
        send(418, b"teapot"),
        send(302, b"", {"location": ""}),
        send(302, b"", {"location": "ftp://elsewhere/"}),
        send(302, b"", {"location": "http://[::1"}),
    ],
    ids=range(13),
)
def test_a_source_that_lies(blobs: DeviceBlobs, lie: Callable[[Handler], bool]) -> None:
    with BlobSource(BLOB) as liar, BlobSource(BLOB) as honest:
        liar.on("GET", "blobs", lie, times=99)
        with pytest.raises((DigestMismatchError, NotFoundError, Exception)) as caught:
            get(blobs, wishes(liar))
        assert getattr(caught.value, "code", "") in {"digest_mismatch", "registry"}
        assert len(liar.asked("GET")) == 1  # it is not asked for the same again
        assert not blobs.has(DIGEST)
        get(blobs, wishes(liar, honest))
    assert blobs.read_bytes(DIGEST) == DATA


def test_the_wrong_rest_of_a_file(blobs: DeviceBlobs) -> None:
    """Range answers from another file: found at the end, and all of it is fetched anew."""
    with BlobSource(BLOB) as source:
        source.on("GET", "blobs", cut(100_000))
        source.on("GET", "blobs", partial(100_000, len(DATA), noise(200_000, seed=4)))
        get(blobs, wishes(source))
        assert ranges(source) == [None, "bytes=100000-", None]
    assert blobs.read_bytes(DIGEST) == DATA


def test_a_range_of_another_place(blobs: DeviceBlobs) -> None:
    with BlobSource(BLOB) as source, BlobSource(BLOB) as good:
        source.on("GET", "blobs", cut(100_000))
        source.on("GET", "blobs", partial(99_999, len(DATA), DATA[99_999:]), times=9)
        get(blobs, wishes(source, good))
        assert ranges(good) == ["bytes=100000-"]
    assert blobs.read_bytes(DIGEST) == DATA


def test_no_such_range(blobs: DeviceBlobs) -> None:
    with BlobSource(BLOB) as source:
        source.on("GET", "blobs", cut(100_000))
        source.on("GET", "blobs", send(416))
        get(blobs, wishes(source))
        assert ranges(source) == [None, "bytes=100000-", None]


def test_a_stream_without_end(blobs: DeviceBlobs) -> None:
    sent: list[int] = []

    def endless(request: Handler) -> bool:
        request.send_response(200)
        request.send_header("connection", "close")
        request.end_headers()
        request.close_connection = True
        for _ in range(10_000):
            request.wfile.write(b"x" * 65536)
            sent.append(65536)
        return True

    with BlobSource(BLOB) as source:
        source.on("GET", "blobs", endless)
        with pytest.raises(DigestMismatchError):
            get(blobs, wishes(source))
    assert sum(sent) < 100 * len(DATA)
    assert not blobs.waiting(DIGEST)


def test_busy_sources_are_asked_again(blobs: DeviceBlobs) -> None:
    with BlobSource(BLOB) as source:
        for status in (429, 500, 502, 503, 504):
            source.on("GET", "blobs", send(status))
        get(blobs, wishes(source))
        assert len(source.asked("GET")) == 6


def test_a_source_says_when_to_come_back(blobs: DeviceBlobs) -> None:
    waits: list[float] = []

    class Waiting(Stop):
        def wait(self, seconds: float) -> None:
            waits.append(seconds)

    with BlobSource(BLOB) as source:
        source.on("GET", "blobs", send(503, b"", {"retry-after": "7"}))
        get(blobs, wishes(source, stop=Waiting()))
    assert waits == [7.0]


def test_pauses_grow_and_shrink_again_with_progress(blobs: DeviceBlobs) -> None:
    waits: list[float] = []

    class Waiting(Stop):
        def wait(self, seconds: float) -> None:
            waits.append(seconds)

    limits = QUICK._replace(first_wait_s=1, longest_wait_s=8)
    with BlobSource(BLOB) as source:
        source.on("GET", "blobs", send(503), times=5)
        source.on("GET", "blobs", cut(1000))
        get(blobs, wishes(source, stop=Waiting(), limits=limits))
    longest = [1, 2, 4, 8, 8, 1]
    assert len(waits) == len(longest)
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))


def test_one_that_is_not_there_and_one_that_is(blobs: DeviceBlobs) -> None:
    with BlobSource() as empty, BlobSource(BLOB) as source:
        get(blobs, wishes(DEAD, empty, source))
    assert blobs.has(DIGEST)


def test_it_refuses_this_device(blobs: DeviceBlobs) -> None:
    with BlobSource(BLOB) as source:
        source.on("GET", "blobs", send(403), times=9)
        with pytest.raises(RegistryDeniedError, match="does not give"):
            get(blobs, wishes(source))


def test_a_dead_source_until_the_deadline(blobs: DeviceBlobs) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError, match="cannot be reached"):
        get(blobs, wishes(DEAD, deadline=began + 0.3))
    assert time.monotonic() - began < 3


def drip(released: threading.Event) -> Callable[[Handler], bool]:
    """A byte at a time, for as long as somebody listens."""

    def answer(request: Handler) -> bool:
        request.send_response(200)
        request.send_header("content-length", str(len(DATA)))
        request.end_headers()
        with contextlib.suppress(OSError):
            for place in range(len(DATA)):
                request.wfile.write(DATA[place : place + 1])
                if released.wait(0.02):
                    break
        request.drop()
        return True

    return answer


def test_a_source_that_dawdles_is_left_for_another(blobs: DeviceBlobs) -> None:
    released = threading.Event()
    limits = QUICK._replace(least_rate=10_000, slow_s=0.3)
    with BlobSource(BLOB) as slow, BlobSource(BLOB) as good:
        slow.on("GET", "blobs", drip(released))
        try:
            get(blobs, wishes(slow, good, limits=limits, deadline=time.monotonic() + 20))
        finally:
            released.set()
        (asked,) = ranges(good)
    assert asked is not None
    assert blobs.read_bytes(DIGEST) == DATA


def test_a_source_that_is_just_fast_enough_has_a_deadline(blobs: DeviceBlobs) -> None:
    """Whoever keeps to the least rate does not keep a device for ever."""
    released = threading.Event()
    began = time.monotonic()
    limits = QUICK._replace(least_rate=1)
    with BlobSource(BLOB) as slow:
        slow.on("GET", "blobs", drip(released), times=9)
        try:
            with pytest.raises(DeadlineExceededError):
                get(blobs, wishes(slow, limits=limits, deadline=began + 0.5))
        finally:
            released.set()
    assert time.monotonic() - began < 10
    assert blobs.waiting(DIGEST)


def test_a_rate_that_was_asked_for(blobs: DeviceBlobs) -> None:
    waits: list[float] = []

    class Waiting(Stop):
        def wait(self, seconds: float) -> None:
            waits.append(seconds)
            now[0] += seconds

    now = [0.0]
    limits = QUICK._replace(least_rate=50_000, slow_s=1)
    how = wishes(stop=Waiting(), limits=limits, steady=lambda: now[0])
    how = how._replace(throttle=Throttle(30_000, steady=lambda: now[0]))
    with BlobSource(BLOB) as source:
        get(blobs, how._replace(sources=[source.source]))
    # 10 s at that rate: and we are not slow in our own eyes because we wait on purpose.
    assert 9 <= now[0] <= 10.5
    assert max(waits) < 1


def test_it_ends_at_once_when_it_is_not_wanted(blobs: DeviceBlobs) -> None:
    stop, hanging, released = Stop(), threading.Event(), threading.Event()

    def hang(request: Handler) -> bool:
        request.send_response(200)
        request.send_header("content-length", str(len(DATA)))
        request.end_headers()
        request.wfile.write(DATA[:1000])
        hanging.set()
        released.wait(20)
        request.drop()
        return True

    limits = QUICK._replace(read_s=60)
    with BlobSource(BLOB) as source:
        source.on("GET", "blobs", hang)
        caught: list[BaseException] = []

        def run() -> None:
            try:
                get(blobs, wishes(source, stop=stop, limits=limits))
            except StoppedError as error:
                caught.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert hanging.wait(10)
        while blobs.waiting(DIGEST) < 1000:
            time.sleep(0.005)
        stop.set()
        thread.join(5)
        released.set()
        assert not thread.is_alive()
    assert len(caught) == 1
    assert blobs.waiting(DIGEST) == 1000


def test_a_silent_source_is_given_up(blobs: DeviceBlobs) -> None:
    released = threading.Event()

    def silent(request: Handler) -> bool:
        released.wait(20)
        request.drop()
        return True

    limits = QUICK._replace(read_s=0.2)
    with BlobSource(BLOB) as slow, BlobSource(BLOB) as good:
        slow.on("GET", "blobs", silent)
        get(blobs, wishes(slow, good, limits=limits))
        released.set()
    assert blobs.has(DIGEST)
