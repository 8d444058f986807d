"""A device's connection to a broker, on an event loop that thousands of them share.

The agent's `Link` costs a thread each; here the library's socket is watched by the loop, and only
connecting (names, TCP, TLS) happens on a few threads. What is said on which topic is the same:
retained messages are said again on each connection, others wait in a queue with an end, the last
will says that the device is gone, and pauses between attempts grow and are spread.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import random
import ssl
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from edge.agent.config import Broker
from edge.agent.link import MOST_INFLIGHT
from edge.agent.outbox import MOST_QUEUED
from edge.protocol import messages, topics
from edge.protocol.messages import Status
from edge.protocol.topics import QOS, RETAINED, Kind
from edge.simulator.device import SimulatedDevice

logger = logging.getLogger(__name__)

_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 120.0
_CONNECT_S: Final = 15.0
_CARE_S: Final = 10.0


class Access(NamedTuple):
    """How devices get to their broker.

    Attributes:
        broker: Where it is.
        tls: Makes what a device shows, by its name; None for no TLS.
        user: A name that they all log in with; empty for none.
        password: Its password, not shown.
        keepalive_s: Between signs of life.
        longest_wait_s: Between two attempts to connect.
    """

    broker: Broker
    tls: Callable[[str], ssl.SSLContext] | None = None
    user: str = ""
    password: str = ""
    keepalive_s: int = 60
    longest_wait_s: float = _LONGEST_WAIT_S

    def __repr__(self) -> str:
        return f"Access({self.broker!r}, user={self.user!r})"


class Wire:
    """The connection of one device; everything but connecting is on the loop's thread.

    Args:
        device: Which one; it says things here from now on.
        access: How it gets to its broker.
        loop: Which watches.
        threads: Connect.
        changed: Told when the connection stands, and when it is gone.

    Attributes:
        up: Whether the broker has let the device in.
        sessions: How often it connected, in this boot.
    """

    def __init__(
        self,
        device: SimulatedDevice,
        access: Access,
        loop: asyncio.AbstractEventLoop,
        threads: Executor,
        changed: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._device, self._access = device, access
        self._loop, self._threads, self._changed = loop, threads, changed
        self.up = False
        self.sessions = 0
        self._failures = 0
        self._wanted = False
        self._client: mqtt.Client | None = None
        self._later: asyncio.TimerHandle | None = None
        self._writing = False
        self._retained: dict[Kind, bytes] = {}
        self._fresh: dict[Kind, None] = {}
        self._queue: collections.deque[tuple[Kind, bytes]] = collections.deque()
        self._flying: set[int] = set()
        device.says = self

    # -- what the device says

    def retain(self, kind: Kind, payload: bytes) -> None:
        """Says what is to be known from now on; the last one counts."""
        self._retained[kind] = payload
        self._fresh[kind] = None
        self._pump()

    def send(self, kind: Kind, payload: bytes) -> bool:
        """Sends a message; whether there was room for it."""
        if len(self._queue) >= MOST_QUEUED:
            return False
        self._queue.append((kind, payload))
        self._pump()
        return True

    # -- its life

    def connect(self, after_s: float = 0.0) -> None:
        """Begins to connect, and connects again for ever."""
        self._wanted = True
        self._again(after_s)

    def cut(self) -> None:
        """The network is gone, without a word: the broker says the last will."""
        self._wanted = False
        self._end()

    def new_boot(self) -> None:
        """The device has lost its memory: so has its connection."""
        self.cut()
        self.sessions = 0
        self._retained.clear()
        self._fresh.clear()
        self._queue.clear()

    def leave(self) -> None:
        """Says goodbye, where there is a connection; best effort."""
        client = self._client
        if client is not None and self.up:
            client.publish(self._topic("status"), self._status(online=False), QOS, retain=True)
            with contextlib.suppress(OSError):
                while client.want_write() and _fine(client.loop_write()):
                    pass
            client.disconnect()
        self.cut()

    def _again(self, after_s: float) -> None:
        if self._later is not None:
            self._later.cancel()
        self._later = self._loop.call_later(after_s, self._begin)

    def _begin(self) -> None:
        self._later = None
        if not self._wanted or self._client is not None:
            return
        self.sessions += 1
        try:
            self._client = client = self._new_client()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            logger.warning("%s: no connection can be made: %s", self._device.name, error)
            self._lost()
            return
        broker = self._access.broker
        future = self._loop.run_in_executor(
            self._threads, client.connect, broker.host, broker.port, self._access.keepalive_s
        )
        future.add_done_callback(lambda done: self._connected(client, done))

    def _new_client(self) -> mqtt.Client:
        device, access = self._device, self._access
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{device.site}.{device.name}",
            clean_session=False,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_S
        client.max_inflight_messages_set(MOST_INFLIGHT + 1)
        if access.tls is not None:
            client.tls_set_context(access.tls(device.name))
        if access.user:
            client.username_pw_set(access.user, access.password)
        client.will_set(self._topic("status"), self._status(online=False), QOS, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _connected(self, client: mqtt.Client, done: asyncio.Future[MQTTErrorCode]) -> None:
        error = None if done.cancelled() else done.exception()
        if client is not self._client:  # it was cut meanwhile
            _close(client)
            return
        sock = client.socket()
        if done.cancelled() or error is not None or sock is None:
            logger.info("%s: no connection: %s", self._device.name, error)
            self._end()
            return
        # Before the library closes it: its number is another connection's the next moment.
        client.on_socket_close = lambda _client, _data, closing: self._unwatch(closing)
        self._loop.add_reader(sock, self._read)
        self._watch()
        self._later = self._loop.call_later(_CARE_S, self._care)

    # -- on the socket

    def _read(self) -> None:
        client = self._client
        if client is None:
            return
        sock = client.socket()
        fine = _fine(client.loop_read())
        # What TLS has decrypted already, no selector tells.
        while fine and isinstance(sock, ssl.SSLSocket) and client.socket() and sock.pending():
            fine = _fine(client.loop_read())
        if self._client is not client:
            return
        if not fine or client.socket() is None:
            self._end()
            return
        self._pump()

    def _write(self) -> None:
        client = self._client
        if client is not None and not _fine(client.loop_write()):
            self._end()
            return
        self._watch()

    def _watch(self) -> None:
        """Has the loop tell when more can be written, where there is more."""
        client = self._client
        sock = client.socket() if client is not None else None
        if client is None or sock is None:
            return
        if client.want_write() != self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(sock, self._write)
            else:
                self._loop.remove_writer(sock)

    def _care(self) -> None:
        """Signs of life."""
        client = self._client
        self._later = None
        if client is None:
            return
        if not _fine(client.loop_misc()) or client.socket() is None:
            self._end()
            return
        self._watch()
        self._later = self._loop.call_later(_CARE_S, self._care)

    def _pump(self) -> None:
        """Says what is to be said."""
        client = self._client
        if client is None or not self.up:
            return
        while len(self._flying) < MOST_INFLIGHT:
            message = self._next()
            if message is None:
                break
            kind, payload = message
            info = client.publish(self._topic(kind), payload, QOS, retain=kind in RETAINED)
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
            self._flying.add(info.mid)
        self._watch()

    def _next(self) -> tuple[Kind, bytes] | None:
        if self._fresh:
            kind = next(iter(self._fresh))
            del self._fresh[kind]
            return kind, self._retained[kind]
        return self._queue.popleft() if self._queue else None

    def _end(self) -> None:
        """This connection is over."""
        client, self._client = self._client, None
        if client is not None:
            self._unwatch(client.socket())
            _close(client)
        self._lost()

    def _unwatch(self, sock: mqtt.SocketLike | None) -> None:
        if sock is not None and sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
        self._writing = False

    def _lost(self) -> None:
        was_up, self.up, self._writing = self.up, False, False
        self._flying.clear()
        self._fresh |= dict.fromkeys(self._retained)
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._failures = 0 if was_up else self._failures + 1
        if was_up:
            self._changed(False)
        if self._wanted:
            longest = _FIRST_WAIT_S * 2.0 ** min(self._failures, 16)
            longest = min(self._access.longest_wait_s, longest)
            self._again(random.uniform(0, longest))  # noqa: S311 - to spread a fleet

    # -- callbacks of the library

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, reason: object, _more: object
    ) -> None:
        if getattr(reason, "is_failure", True):
            logger.warning("%s: the broker does not let it in: %s", self._device.name, reason)
            return
        names = topics.for_device(self._device.site, self._device.name)
        client.subscribe([(name, QOS) for name in names])
        self.up = True
        self._fresh = {"status": None, **dict.fromkeys(self._retained)}
        self._retained["status"] = self._status(online=True)
        self._changed(True)

    def _on_disconnect(self, client: mqtt.Client, *_: object) -> None:
        if client is self._client:
            self._loop.call_soon(self._gone, client)

    def _gone(self, client: mqtt.Client) -> None:
        if client is self._client:
            self._end()

    def _on_publish(self, client: object, _data: object, mid: int, *_: object) -> None:
        if client is self._client:
            self._flying.discard(mid)

    def _on_message(self, client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        topic = topics.parse(message.topic)
        if client is not self._client or topic is None:
            return
        if (topic.site, topic.device) == (self._device.site, self._device.name):
            self._device.came(topic.kind, bytes(message.payload))

    def _topic(self, kind: Kind) -> str:
        return str(topics.topic(self._device.site, self._device.name, kind))

    def _status(self, *, online: bool) -> bytes:
        return messages.encode(
            Status(
                device=self._device.name,
                online=online,
                boot=self._device.boot,
                session=self.sessions,
            )
        )


def _fine(code: MQTTErrorCode) -> bool:
    return code in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN}


def _close(client: mqtt.Client) -> None:
    """Frees a connection's socket, without a goodbye."""
    client.on_disconnect = client.on_socket_close = None
    sock = client.socket()
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.close()
