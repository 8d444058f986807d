"""A worker's sockets and those it covers, with real sockets on the loop that servers use."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, cast

import pytest
import uvloop

from scoring.accepting import Acceptor, close_all, inherited
from scoring.workercontract import Contract

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Hello(asyncio.Protocol):
    """Says a word to whoever connects, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        speaking = cast("asyncio.Transport", transport)
        speaking.write(b"hello")
        speaking.close()


def listening() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    listener.setblocking(False)
    return listener


class Place:
    """Sockets as a supervisor has them, and an acceptor for copies of them."""

    def __init__(self) -> None:
        self.own, self.first, self.second = (listening() for _ in range(3))
        self.begun: list[int] = []
        self.acceptor = Acceptor(
            self._serve,
            self._take,
            [self.own.dup()],
            {1: self.first.dup(), 2: self.second.dup()},
        )

    async def _serve(self, listener: socket.socket) -> asyncio.Server:
        self.begun.append(listener.getsockname()[1])
        return await asyncio.get_running_loop().create_server(Hello, sock=listener)

    async def _take(self, client: socket.socket) -> None:
        client.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(Hello, client)

    def close(self) -> None:
        self.acceptor.close()
        close_all([self.own, self.first, self.second])


async def answers(listener: socket.socket) -> bool:
    """Whether somebody accepts from this socket now."""
    client = socket.socket()
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, listener.getsockname())
    try:
        async with asyncio.timeout(0.3):
            return await loop.sock_recv(client, 10) == b"hello"
    except TimeoutError:
        return False
    finally:
        client.close()


async def eventually(condition: Callable[[], Coroutine[None, None, bool]]) -> None:
    async with asyncio.timeout(5):
        while not await condition():
            """It takes its time by itself."""


def run(work: Callable[[Place], Coroutine[None, None, None]]) -> None:
    async def wrapped() -> None:
        place = Place()
        try:
            await work(place)
        finally:
            place.close()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(wrapped())


def test_only_the_own_sockets_are_accepted_from() -> None:
    async def work(place: Place) -> None:
        await place.acceptor.open()
        assert await answers(place.own)
        assert not await answers(place.first)

    run(work)


def test_spares_are_taken_and_given_back() -> None:
    async def work(place: Place) -> None:
        await place.acceptor.open()
        place.acceptor.cover([1, 2])
        assert await answers(place.first)
        assert await answers(place.second)
        place.acceptor.cover([2])
        await asyncio.sleep(0.05)
        assert not await answers(place.first)
        assert await answers(place.second)
        place.acceptor.cover([1])
        assert await answers(place.first)
        assert await answers(place.own)

    run(work)


def test_what_waits_while_nobody_accepts_is_taken_up() -> None:
    async def work(place: Place) -> None:
        await place.acceptor.open()
        waiting = asyncio.ensure_future(answers(place.first))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        place.acceptor.cover([1])
        assert await waiting

    run(work)


def test_orders_come_by_a_pipe_and_the_last_one_counts() -> None:
    async def work(place: Place) -> None:
        reading, writing = os.pipe()
        await place.acceptor.open()
        place.acceptor.follow(reading)
        os.write(writing, b"1\n\n2\n1,")
        await eventually(lambda: answers(place.second))
        assert not await answers(place.first)
        os.write(writing, b"2\n")
        await eventually(lambda: answers(place.first))
        os.write(writing, b"\n")
        await asyncio.sleep(0.05)
        assert not await answers(place.first)
        os.close(writing)
        await asyncio.sleep(0.05)
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(reading)
        assert await answers(place.own)

    run(work)


def test_numbers_of_no_spare_are_ignored() -> None:
    async def work(place: Place) -> None:
        await place.acceptor.open()
        place.acceptor.cover([7, 1])
        assert await answers(place.first)

    run(work)


def test_a_closed_acceptor_accepts_nothing_whatever_it_is_told() -> None:
    async def work(place: Place) -> None:
        reading, writing = os.pipe()
        await place.acceptor.open()
        place.acceptor.follow(reading)
        place.acceptor.cover([1])
        place.acceptor.close()
        place.acceptor.cover([2])
        await asyncio.sleep(0.05)
        for each in (place.own, place.first, place.second):
            assert not await answers(each)
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"1\n")
        os.close(writing)

    run(work)


def test_orders_that_overtake_each_other_end_in_the_last() -> None:
    async def work(place: Place) -> None:
        await place.acceptor.open()
        for _ in range(50):
            place.acceptor.cover([1])
            place.acceptor.cover([2])
            place.acceptor.cover([])
            await asyncio.sleep(0)
        place.acceptor.cover([2])
        assert await answers(place.second)
        assert not await answers(place.first)

    run(work)


def test_inherited_sockets_are_not_passed_on() -> None:
    with listening() as one, listening() as two:
        copies = [os.dup(one.fileno()), os.dup(two.fileno())]
        for copy in copies:
            os.set_inheritable(copy, True)
        own, spares = inherited(Contract(listen_fd=(copies[0],), spare_fd=(copies[1],)))
        assert [each.getsockname() for each in own] == [one.getsockname()]
        assert spares[copies[1]].getsockname() == two.getsockname()
        assert not any(os.get_inheritable(copy) for copy in copies)
        close_all([*own, *spares.values()])


def test_a_worker_that_leaves_empties_its_own_queue_and_no_others() -> None:
    async def work(place: Place) -> None:
        await place.acceptor.open()
        place.acceptor.cover([1])
        await eventually(lambda: answers(place.first))
        place.own.close()  # the supervisor's: the worker's is the last one
        leaving = asyncio.ensure_future(place.acceptor.leave())
        await asyncio.sleep(0)
        assert not await answers(place.first)
        await leaving

    run(work)


def test_whoever_connects_while_a_worker_leaves_is_answered_and_then_refused() -> None:
    async def work(place: Place) -> None:
        await place.acceptor.open()
        address = place.own.getsockname()
        leaving = asyncio.ensure_future(place.acceptor.leave())
        for _ in range(20):
            assert await answers(place.own)
        place.own.close()
        await leaving
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)

    run(work)
