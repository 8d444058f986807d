"""The front before servers that are scripted: what is passed on, held back, refused, repeated."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from serve.endpoints.front import heads
from serve.endpoints.traffic import HeaderRule, Shadow, Traffic
from tests.support.fronts import Conversation, Far, LiveFront
from tests.support.server import Client, get, post, until


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def one(stack: ExitStack, far: Far, **settings: Any) -> LiveFront:
    """A front before a single server."""
    stack.enter_context(far)
    return stack.enter_context(
        LiveFront(Traffic(weights={far.name: 1}), {far.name: far.url}, **settings)
    )


def dead_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_request_and_its_answer_are_passed_on_whole(stack: ExitStack) -> None:
    far = Far("blue")
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(post(b"x" * 1000, "/score?q=1", "X-Own: 1", "Traceparent: 00-ab-cd-01"))
        answer = client.read()
    assert (answer.status, answer.body) == (200, b"blue")
    assert answer.headers["x-fieldpost-deployment"] == "blue"
    ((head, body),) = far.seen
    assert head.startswith(b"POST /score?q=1 HTTP/1.1\r\n")
    assert body == b"x" * 1000
    for line in (b"host: test", b"x-own: 1", b"traceparent: 00-ab-cd-01", b"content-length: 1000",
                 b"x-forwarded-for: 127.0.0.1", b"x-forwarded-proto: http"):  # fmt: skip
        assert b"\r\n" + line + b"\r\n" in head, line


def test_connections_are_kept_on_both_sides(stack: ExitStack) -> None:
    far = Far("blue")
    front = one(stack, far)
    with Client(front.port) as client:
        for _ in range(5):
            client.send(get("/"))
            assert client.read().body == b"blue"
    assert far.connections == 1


def test_pipelined_requests_are_answered_in_order(stack: ExitStack) -> None:
    far = Far("blue")

    async def echo(talk: Conversation) -> None:
        await talk.say(talk.head.split(b" ")[1])

    far.answer = echo
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(b"".join(get(f"/{n}") for n in range(8)))
        assert [client.read().body for _ in range(8)] == [b"/%d" % n for n in range(8)]


def test_hop_by_hop_fields_end_here_and_nothing_that_matters_can_be_listed(
    stack: ExitStack,
) -> None:
    far = Far("blue")

    async def answer(talk: Conversation) -> None:
        await talk.send(
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive, x-inner\r\nKeep-Alive: 5\r\nX-Inner: 1\r\n"
            b"X-Outer: 2\r\nContent-Length: 0\r\n\r\n"
        )

    far.answer = answer
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(
            get(
                "/", "Connection: keep-alive, x-secret, authorization, host", "X-Secret: 1",
                "Authorization: Bearer t", "TE: trailers", "Proxy-Authorization: x",
                "X-Forwarded-For: 10.0.0.1", "X-Fieldpost-Shadow: forged",
            )
        )  # fmt: skip
        answered = client.read()
    assert answered.status == 200, answered.body
    assert "x-inner" not in answered.headers
    assert answered.headers["x-outer"] == "2"
    assert "keep-alive" not in answered.headers
    head = far.seen[0][0].lower()
    for gone in (b"x-secret", b"te:", b"proxy-authorization", b"x-fieldpost-shadow", b"connection"):
        assert gone not in head
    assert b"authorization: bearer t" in head
    assert b"x-forwarded-for: 10.0.0.1, 127.0.0.1" in head


def test_bodies_stream_both_ways_before_they_end(stack: ExitStack) -> None:
    far = Far("blue")

    async def stream(talk: Conversation) -> None:
        await talk.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n7\r\ndata: 1\r\n"
        )
        await talk.reader.readexactly(1)  # the test goes on only with the first event

    far.answer = stream
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(get("/events"))
        while b"data: 1" not in client._buffer:
            client._more()
        assert b"\r\n0\r\n" not in client._buffer


def test_a_body_in_chunks_arrives_in_chunks_while_it_is_sent(stack: ExitStack) -> None:
    far = Far("blue")

    async def echo(talk: Conversation) -> None:
        await talk.say(talk.body)

    far.answer = echo
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        until(lambda: far.connections == 1)
        client.send(b"4;x=y\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n")
        assert client.read().body == b"abcdefg"
    assert b"transfer-encoding: chunked" in far.seen[0][0]
    assert b"content-length" not in far.seen[0][0]


@pytest.mark.parametrize("old", [False, True])
def test_an_answer_that_ends_with_its_connection(stack: ExitStack, old: bool) -> None:
    far = Far("blue")

    async def close(talk: Conversation) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        talk.writer.close()

    far.answer = close
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(b"GET / HTTP/1.%d\r\nHost: a\r\n\r\n" % (0 if old else 1))
        assert client.read().body == b"all of it"
    assert front.counts("blue").statuses == {200: 1}


def test_head_and_statuses_without_body_leave_the_connection_in_step(stack: ExitStack) -> None:
    far = Far("blue")

    async def answer(talk: Conversation) -> None:
        if talk.head.startswith(b"HEAD"):
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        else:
            await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    far.answer = answer
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(get("/", method="HEAD"))
        head = client.read(head_only=True)
        assert head.headers["content-length"] == "4"
        client.send(get("/"))
        assert client.read().status == 204


def test_interim_answers_are_not_taken_for_the_answer(stack: ExitStack) -> None:
    far = Far("blue")

    async def answer(talk: Conversation) -> None:
        await talk.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        await talk.say(b"final")

    far.answer = answer
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(get("/"))
        assert client.read().body == b"final"


def test_expect_is_answered_here(stack: ExitStack) -> None:
    far = Far("blue")
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.read().status == 100
        client.send(b"ok")
        assert client.read().body == b"blue"
    assert far.seen[0][1] == b"ok"
    assert b"expect" not in far.seen[0][0].lower()


def test_a_url_as_the_target_names_the_host(stack: ExitStack) -> None:
    far = Far("blue")
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(b"GET http://named.example:81/a?b=/c HTTP/1.1\r\nHost: other\r\n\r\n")
        assert client.read().body == b"blue"
    (head, _) = far.seen[0]
    assert head.startswith(b"GET /a?b=/c HTTP/1.1\r\n")
    assert b"host: named.example:81\r\n" in head
    assert b"other" not in head


# Smuggling: what two servers could read differently never gets through.

AMBIGUOUS = [
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n"),
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello",
    b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nContent-Length: 5\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-Y\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("request_", AMBIGUOUS, ids=range(len(AMBIGUOUS)))
def test_ambiguous_requests_are_refused_and_end_the_connection(
    stack: ExitStack, request_: bytes
) -> None:
    far = Far("blue")
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(request_ + get("/smuggled"))
        text = client.rest()
    statuses = [int(s) for s in re.findall(rb"HTTP/1\.1 (\d+)", text)]
    assert statuses, text
    assert 400 <= statuses[-1] < 506
    assert not any(b"/smuggled" in head or b"/smuggled" in body for head, body in far.seen)
    # A request whose body broke off is not one that was answered.
    assert b"blue" not in text


def test_an_offer_to_change_the_protocol_is_passed_over(stack: ExitStack) -> None:
    far = Far("blue")
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(post(b"abc", "/", "Connection: Upgrade", "Upgrade: h2c"))
        assert client.read().body == b"blue"
        client.send(get("/after"))
        assert client.read().body == b"blue"
    assert far.seen[0][1] == b"abc"
    assert b"upgrade" not in far.seen[0][0].lower()


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    ],
)
def test_what_is_no_http_is_a_bad_gateway(stack: ExitStack, answer: bytes) -> None:
    far = Far("blue")

    async def say(talk: Conversation) -> None:
        await talk.send(answer)
        await talk.reader.read(1)

    far.answer = say
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(post())
        assert client.read().status == 502
        client.send(get("/v2/health/live"))
        assert client.read().status == 200
    assert front.counts("blue").failures == {"invalid": 1}


def test_an_answer_that_nobody_asked_for_goes_to_nobody(stack: ExitStack) -> None:
    far = Far("blue")

    async def twice(talk: Conversation) -> None:
        await talk.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
        )

    far.answer = twice
    front = one(stack, far)
    with Client(front.port) as client:
        for _ in range(3):
            client.send(get("/"))
            assert client.read().body == b"one"
    assert far.connections == 3


# Deployments that are gone, slow, or die.


def test_where_nobody_is_left_the_answer_says_when_to_come_back(stack: ExitStack) -> None:
    front = stack.enter_context(LiveFront(Traffic(weights={"blue": 1}), {"blue": dead_url()}))
    with Client(front.port) as client:
        client.send(post())
        answer = client.read()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert b'"retryable":true' in answer.body
        until(lambda: not front.call(front.front.is_ready))
        client.send(get("/v2/health/ready"))
        assert client.read().status == 503
        client.send(get("/v2/health/live"))
        assert client.read().status == 200


def test_another_one_is_asked_where_the_first_cannot_be_reached(stack: ExitStack) -> None:
    far = stack.enter_context(Far("green"))
    traffic = Traffic(weights={"blue": 99, "green": 1})
    front = stack.enter_context(
        LiveFront(traffic, {"blue": dead_url(), "green": far.url}, draw=lambda: 0.0)
    )
    with Client(front.port) as client:
        for _ in range(5):
            client.send(post(b"body"))
            assert client.read().body == b"green"
    assert {body for _, body in far.seen} == {b"body"}
    assert front.counts("blue").statuses == {}


def test_a_rule_leads_there_or_nowhere(stack: ExitStack) -> None:
    blue = stack.enter_context(Far("blue"))
    traffic = Traffic(weights={"blue": 1}, rules=(HeaderRule("x-canary", "always", "green"),))
    front = stack.enter_context(LiveFront(traffic, {"blue": blue.url, "green": dead_url()}))
    with Client(front.port) as client:
        client.send(get("/", "X-Canary: always"))
        assert client.read().status == 503
        client.send(get("/", "X-Canary: other"))
        assert client.read().body == b"blue"


def dies(after: int) -> object:
    """A server that dies in the middle of its first requests."""
    left = [after]

    async def answer(talk: Conversation) -> None:
        if left[0]:
            left[0] -= 1
            talk.writer.transport.abort()
        else:
            await talk.say(b"well")

    return answer


@pytest.mark.parametrize(("method", "retry", "status"), [
    ("POST", "unsent", 502), ("POST", "unanswered", 200), ("GET", "unsent", 200),
])  # fmt: skip
def test_a_request_that_may_have_begun_is_repeated_only_where_that_is_allowed(
    stack: ExitStack, method: str, retry: str, status: int
) -> None:
    blue, green = stack.enter_context(Far("blue")), stack.enter_context(Far("green"))
    blue.answer = dies(1)  # type: ignore[assignment]
    traffic = Traffic(weights={"blue": 1, "green": 1})
    urls = {"blue": blue.url, "green": green.url}
    front = stack.enter_context(LiveFront(traffic, urls, draw=lambda: 0.0, retry=retry))
    with Client(front.port) as client:
        client.send(get("/", method=method) if method == "GET" else post(b"abc"))
        answer = client.read()
    assert answer.status == status
    assert front.counts("blue").failures == {"cut": 1}
    assert [body for _, body in green.seen] == (
        [] if status == 502 else [b"abc" * (method == "POST")]
    )


def test_a_request_that_was_turned_away_goes_to_another_one(stack: ExitStack) -> None:
    blue, green = stack.enter_context(Far("blue")), stack.enter_context(Far("green"))

    async def leaves(talk: Conversation) -> None:
        await talk.send(
            b"HTTP/1.1 503 Service Unavailable\r\nX-Fieldpost-Turned-Away: stopping\r\n"
            b"Connection: close\r\nContent-Length: 4\r\n\r\ngone"
        )

    blue.answer = leaves
    traffic = Traffic(weights={"blue": 1, "green": 1})
    urls = {"blue": blue.url, "green": green.url}
    front = stack.enter_context(LiveFront(traffic, urls, draw=lambda: 0.0))
    with Client(front.port) as client:
        for _ in range(3):
            client.send(post(b"abc"))
            answer = client.read()
            assert (answer.status, answer.body) == (200, b"green")
    assert [body for _, body in green.seen] == [b"abc"] * 3
    assert len(blue.seen) == 1  # the others are asked first for a while
    green.answer = leaves
    with Client(front.port) as client:
        client.send(post(b"abc"))
        refused = client.read()
    assert refused.status == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.headers.get("x-fieldpost-deployment") is None


def test_a_connection_that_was_closed_while_idle_costs_no_request(stack: ExitStack) -> None:
    far = Far("blue")

    async def once(talk: Conversation) -> None:
        await talk.say(b"x")
        talk.writer.close()  # without a word, as servers do that have a shorter patience

    far.answer = once
    front = one(stack, far)
    with Client(front.port) as client:
        for _ in range(50):
            client.send(post())
            assert client.read().status == 200
    assert front.counts("blue").failures == {}


def test_an_answer_that_breaks_off_is_seen_to_break_off(stack: ExitStack) -> None:
    far = Far("blue")

    async def broken(talk: Conversation) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        talk.writer.transport.abort()

    far.answer = broken
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(get("/"))
        with pytest.raises((EOFError, ConnectionError)):
            client.read()
    until(lambda: front.counts("blue").failures == {"cut": 1})


def test_slow_answers_are_given_up(stack: ExitStack) -> None:
    far = Far("blue")

    async def never(talk: Conversation) -> None:
        await talk.reader.read(1)

    far.answer = never
    front = one(stack, far, response_timeout_s=0.3)
    with Client(front.port) as client:
        client.send(post())
        answer = client.read()
    assert answer.status == 504
    assert front.counts("blue").failures == {"timeout": 1}
    assert front.counts("blue").in_flight == 0


def test_slow_clients_are_given_up(stack: ExitStack) -> None:
    far = Far("blue")
    front = one(stack, far, idle_timeout_s=0.3)
    with Client(front.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab")
        assert client.read().status == 408
        assert client.closed()


def test_a_client_that_leaves_takes_its_request_along(stack: ExitStack) -> None:
    far = Far("blue")
    gone = asyncio.Event()

    async def wait(talk: Conversation) -> None:
        if not await talk.reader.read(1):
            gone.set()

    far.answer = wait
    front = one(stack, far)
    with Client(front.port) as client:
        client.send(post())
        until(lambda: bool(far.seen))
    until(gone.is_set)
    until(lambda: front.counts("blue").statuses == {499: 1})
    assert front.counts("blue").requests == 0


def test_large_bodies_pass_with_little_memory_and_slow_readers(stack: ExitStack) -> None:
    size = 8 << 20
    far = Far("blue")

    async def echo(talk: Conversation) -> None:
        await talk.say(talk.body)

    far.answer = echo
    front = one(stack, far, idle_timeout_s=20.0)
    with Client(front.port, timeout_s=30) as client:
        body = bytes(range(256)) * (size // 256)
        client.send(post(body, "/"))
        assert client.read().body == body


def test_too_large_a_head_is_refused(stack: ExitStack) -> None:
    front = one(stack, Far("blue"))
    with Client(front.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000)
        assert client.read().status == 431


def test_over_the_limit_of_connections_it_says_so(stack: ExitStack) -> None:
    front = one(stack, Far("blue"), max_connections=1)
    with Client(front.port) as first, Client(front.port) as second:
        first.send(get("/"))
        assert first.read().status == 200
        answer = second.read()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")


# Traffic


def test_weights_rules_and_changes_while_requests_are_under_way(stack: ExitStack) -> None:
    blue, green = stack.enter_context(Far("blue")), stack.enter_context(Far("green"))
    urls = {"blue": blue.url, "green": green.url}
    go = asyncio.Event()

    async def held(talk: Conversation) -> None:
        await asyncio.wait_for(go.wait(), 10)
        await talk.say(b"held")

    blue.answer = held
    front = stack.enter_context(LiveFront(Traffic(weights={"blue": 1}), urls))
    with Client(front.port) as waiting, Client(front.port) as other:
        waiting.send(post())
        until(lambda: bool(blue.seen))
        front.apply(Traffic(weights={"green": 1}), urls)  # blue is out; its request goes on
        other.send(post())
        assert other.read().body == b"green"
        blue._loop.call_soon_threadsafe(go.set)
        assert waiting.read().body == b"held"
        waiting.send(post())
        assert waiting.read().body == b"green"


def test_metrics_tell_of_each_deployment(stack: ExitStack) -> None:
    front = one(stack, Far("blue"))
    with Client(front.port) as client:
        client.send(post())
        client.read()
        client.send(get("/metrics"))
        answer = client.read()
    text = answer.body.decode()
    assert (
        'fieldpost_endpoint_requests_total{endpoint="ep",deployment="blue",status="200"} 1' in text
    )
    assert 'request_seconds_count{endpoint="ep",deployment="blue"} 1' in text
    from prometheus_client.parser import text_string_to_metric_families

    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"fieldpost_endpoint_requests", "fieldpost_endpoint_up"} <= names


def test_metrics_are_shown_to_nobody_where_that_is_wished(stack: ExitStack) -> None:
    far = Far("blue")
    front = one(stack, far, metrics=False)
    with Client(front.port) as client:
        client.send(get("/metrics"))
        assert client.read().status == 404
        client.send(get("/"))
        assert client.read().body == b"blue"
    assert len(far.seen) == 1


# Shadows


def shadowed(stack: ExitStack, red: str, **settings: Any) -> tuple[Far, LiveFront]:
    blue = stack.enter_context(Far("blue"))
    traffic = Traffic(weights={"blue": 1}, shadows=(Shadow("red"),))
    front = stack.enter_context(LiveFront(traffic, {"blue": blue.url, "red": red}, **settings))
    return blue, front


def test_copies_go_to_shadows_and_their_answers_nowhere(stack: ExitStack) -> None:
    red = stack.enter_context(Far("red"))
    _, front = shadowed(stack, red.url)
    with Client(front.port) as client:
        for _ in range(5):
            client.send(post(b"abc"))
            assert client.read().body == b"blue"
    until(lambda: len(red.seen) == 5)
    head, body = red.seen[0]
    assert body == b"abc"
    assert heads.SHADOW + b": ep" in head
    until(lambda: front.report().shadows["red"].counts.successes == 5)


def test_a_chunked_request_is_copied_whole(stack: ExitStack) -> None:
    red = stack.enter_context(Far("red"))
    _, front = shadowed(stack, red.url)
    with Client(front.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        client.send(b"2\r\nde\r\n0\r\n\r\n")
        assert client.read().body == b"blue"
    until(lambda: [body for _, body in red.seen] == [b"abcde"])


def test_a_shadow_that_hangs_or_is_dead_slows_nobody(stack: ExitStack) -> None:
    red = Far("red")

    async def hang(talk: Conversation) -> None:
        await talk.reader.read(1)

    red.answer = hang
    stack.enter_context(red)
    _, front = shadowed(stack, red.url, shadow_in_flight=4)
    with Client(front.port, timeout_s=2) as client:
        for _ in range(50):
            client.send(post())
            assert client.read().body == b"blue"
    counts = front.report().shadows["red"]
    assert counts.dropped == 46
    assert counts.counts.in_flight == 4
    red.close()
    with Client(front.port, timeout_s=2) as client:
        for _ in range(20):
            client.send(post())
            assert client.read().body == b"blue"


def test_long_bodies_are_not_copied(stack: ExitStack) -> None:
    red = stack.enter_context(Far("red"))
    _, front = shadowed(stack, red.url, shadow_bytes=100, replay_bytes=0)
    with Client(front.port) as client:
        client.send(post(b"x" * 101))
        assert client.read().body == b"blue"
    assert front.report().shadows["red"].dropped == 1
    assert red.seen == []
