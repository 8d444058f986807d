"""The sockets of one address: exclusive at first, divided evenly, never closed."""

from __future__ import annotations

import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.errors import TargetError
from serve.server import listeners as module
from serve.server.listeners import Listeners, cover, wanted

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not spread")


@pytest.fixture
def listeners() -> Listeners:
    return Listeners("127.0.0.1", 0)


def drain(listener: socket.socket) -> int:
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def connect(listeners: Listeners, count: int) -> list[socket.socket]:
    return [socket.create_connection((listeners.host, listeners.port)) for _ in range(count)]


def close(*things: socket.socket | Listeners) -> None:
    for each in things:
        each.close()


def test_one_worker_has_one_socket_that_nobody_else_can_join(listeners: Listeners) -> None:
    assert listeners.shares(1) == [(listeners.sockets[0],)]
    thief = socket.socket()
    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with pytest.raises(OSError, match="in use"):
        thief.bind((listeners.host, listeners.port))
    close(thief, listeners)


@LINUX
def test_the_kernel_spreads_connections_over_the_sockets(listeners: Listeners) -> None:
    shares = listeners.shares(3)
    assert [len(share) for share in shares] == [1, 1, 1]
    listeners.listen()
    clients = connect(listeners, 300)
    counts = [drain(share[0]) for share in shares]
    assert sum(counts) == 300
    assert min(counts) > 50, counts
    close(*clients, listeners)


@LINUX
def test_a_new_socket_gets_no_connections_before_somebody_is_there(listeners: Listeners) -> None:
    (first,), (second,) = listeners.shares(2)
    clients = connect(listeners, 40)
    assert drain(first) == 40
    second.setblocking(False)
    listeners.listen()
    clients += connect(listeners, 40)
    assert drain(second) > 0
    close(*clients, listeners)


@LINUX
def test_sockets_stay_when_workers_become_fewer(listeners: Listeners) -> None:
    four = listeners.shares(4)
    listeners.listen()
    two = listeners.shares(2)
    assert {each for share in two for each in share} == {each for share in four for each in share}
    assert [len(share) for share in two] == [2, 2]
    assert [len(share) for share in listeners.shares(3)] == [2, 2, 2]
    close(listeners)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=8))
def test_every_worker_gets_as_many_as_every_other(changes: list[int]) -> None:
    present = 1
    for workers in changes:
        before, present = present, max(present, wanted(present, workers))
        assert present >= before
        assert present >= workers or sys.platform != "linux"
        assert present <= 256
        if wanted(before, workers) % workers:
            assert -(-before // workers) * workers > 256, "only many make it uneven"


def test_without_more_sockets_all_workers_share_one(
    listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SPREADS", False)
    assert listeners.shares(3) == [(listeners.sockets[0],)] * 3
    close(listeners)


def test_a_system_that_refuses_more_sockets_is_no_error(
    listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_join", lambda _first: None)
    assert listeners.shares(2) == [(listeners.sockets[0],)] * 2
    close(listeners)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_port_that_another_server_has_is_refused(listeners: Listeners, workers: int) -> None:
    listeners.shares(workers)
    listeners.listen()
    with pytest.raises(TargetError, match=f"Port {listeners.port} on 127.0.0.1 cannot be opened"):
        Listeners("127.0.0.1", listeners.port)
    close(listeners)


def test_a_port_that_another_process_shares_is_refused() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(TargetError, match="cannot be opened"):
            Listeners("127.0.0.1", other.getsockname()[1])


def test_a_host_that_is_none_is_an_error() -> None:
    with pytest.raises(TargetError, match="host 'no such host'"):
        Listeners("no such host", 0)


def test_ipv6_is_listened_on() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listeners = Listeners("::1", 0)
    except TargetError:
        pytest.skip("no IPv6 loopback here")
    assert {each.family for share in listeners.shares(2) for each in share} == {socket.AF_INET6}
    close(listeners)


def test_a_freed_port_can_be_taken_again(listeners: Listeners) -> None:
    listeners.shares(2)
    listeners.listen()
    close(*connect(listeners, 4), listeners)
    close(Listeners("127.0.0.1", listeners.port))


PLACES = st.lists(st.lists(st.integers(3, 40), max_size=4, unique=True), min_size=1, max_size=6)


@given(PLACES, st.sets(st.integers(0, 5)))
def test_every_socket_is_served_once_somebody_is_there(
    sockets: list[list[int]], some: set[int]
) -> None:
    own = {place: tuple(fds) for place, fds in enumerate(sockets)}
    present = some & own.keys()
    covered = cover(own, present)
    assert covered.keys() == present
    taken = [fd for fds in covered.values() for fd in fds]
    assert len(taken) == len(set(taken)), "nobody does another's work"
    served = {fd for place in present for fd in own[place]}
    assert not served & set(taken)
    if present:
        assert served | set(taken) == {fd for fds in own.values() for fd in fds}
        counts = [len(fds) for fds in covered.values()]
        assert max(counts) - min(counts) <= 1
