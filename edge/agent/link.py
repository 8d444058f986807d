"""The link to the broker: one thread, which connects again for ever.

Each connection is a client of its own, so that nothing that the library holds in memory outlives
it: what has to be said again is known here. Retained messages are kept by their topic, and said
again on every connection; others wait in a queue with an end, and a few of them at a time are on
their way. What comes in is acknowledged when it has been dealt with, and not before.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import selectors
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from edge.agent.config import Broker
from edge.agent.outbox import Ack, Outbox, Outgoing, nothing
from edge.protocol import messages, topics
from edge.protocol.messages import Status
from edge.protocol.topics import QOS, Kind

logger = logging.getLogger(__name__)

MOST_INFLIGHT: Final = 16
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 120.0
_TICK_S: Final = 5.0
_CONNECT_S: Final = 15.0
_STEADY_S: Final = 30.0
_LEAVE_S: Final = 2.0
_SESSIONS: Final = 1 << 30


class Came(NamedTuple):
    """A message from the controller.

    Attributes:
        kind: `desired`, `ack` or `cmd/req`.
        payload: Its bytes, which nobody has checked.
        done: To be called when it is dealt with, from any thread: only then does the broker
            forget it.
    """

    kind: Kind
    payload: bytes
    done: Callable[[], None]


class Login(NamedTuple):
    """How to show the broker who this is.

    Attributes:
        tls: Made anew for each connection, since certificates are renewed; None for no TLS.
        user: A name; empty for none.
        password: Its password, not shown.
    """

    tls: Callable[[], ssl.SSLContext] | None = None
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Login(user={self.user!r})"


class Link:
    """The link of one device.

    Args:
        broker: Where the broker is.
        login: How to be let in.
        site: Of the device.
        device: Its name.
        boot: Its boot counter.
        came: Takes what comes in, on the link's thread: it has to return at once.
        connected: Told, on the link's thread, when a connection is up, and when it is gone.
        keepalive_s: Between signs of life.
        longest_wait_s: Between two attempts to connect.
    """

    def __init__(
        self,
        broker: Broker,
        login: Login,
        *,
        site: str,
        device: str,
        boot: int,
        came: Callable[[Came], None],
        connected: Callable[[bool], object] = lambda _: None,
        keepalive_s: int = 30,
        longest_wait_s: float = _LONGEST_WAIT_S,
    ) -> None:
        self._broker, self._login = broker, login
        self._site, self._device, self._boot = site, device, boot
        self._came, self._connected = came, connected
        self._keepalive_s, self._longest_wait_s = keepalive_s, longest_wait_s
        self.sessions = 0
        # From anywhere: two machines of one identity and one boot counter tell different numbers.
        self._first_session = secrets.randbelow(_SESSIONS)
        self._outbox: Outbox[mqtt.Client] = Outbox()
        self._stopping = threading.Event()
        self._connection: _Connection | None = None
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    def start(self) -> None:
        """Begins to connect."""
        self._thread.start()

    def close(self) -> None:
        """Says that the device goes, where there is a connection, and ends."""
        self._stopping.set()
        self._outbox.wake()
        self._thread.join()
        self._outbox.close()

    @property
    def is_up(self) -> bool:
        """Whether the broker has let this device in."""
        connection = self._connection
        return connection is not None and connection.up

    def retain(self, kind: Kind, payload: bytes) -> None:
        """Says what is to be known of this device from now on; the last one counts."""
        self._outbox.retain(kind, payload)

    def send(self, kind: Kind, payload: bytes, sent: Callable[[bool], object] = nothing) -> bool:
        """Sends a message, at once or when there is a connection.

        Args:
            kind: Of which topic.
            payload: Its bytes.
            sent: Told on the link's thread whether the broker has it; False after a connection
                that broke before that, and then it is not sent again.

        Returns:
            Whether there was room for it in the queue.
        """
        return self._outbox.put(Outgoing(kind, payload, sent))

    # -- the thread

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            lasted_s = self._connect_once()
            failures = 0 if lasted_s > _STEADY_S else failures + 1
            longest = min(self._longest_wait_s, _FIRST_WAIT_S * 2.0 ** min(failures, 16))
            self._stopping.wait(random.uniform(0, longest))  # noqa: S311 - to spread a fleet

    def _connect_once(self) -> float:
        """One connection, from its beginning to its end; how long it was up."""
        self.sessions += 1
        says = self._says()
        begun = time.monotonic()
        try:
            connection = _Connection(self._client(says), self._outbox, says)
        except Exception:  # an identity that is being renewed, a file that cannot be read
            logger.exception("no link can be made")
            return 0.0
        self._connection = connection
        try:
            connection.run(self._broker, self._keepalive_s)
        except OSError as error:
            logger.info("no link to %s:%d: %s", self._broker.host, self._broker.port, error)
        except Exception:  # whatever it is: a device that never connects again is lost
            logger.exception("the link broke")
        return self._ended(connection, begun)

    def _ended(self, connection: _Connection, begun: float) -> float:
        self._connection = None
        was_up = connection.up
        connection.end()
        if was_up:
            self._connected(False)
        return time.monotonic() - begun if was_up else 0.0

    def _client(self, says: _Says) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{self._site}.{self._device}",
            clean_session=False,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_S
        client.max_inflight_messages_set(MOST_INFLIGHT)
        if self._broker.tls and self._login.tls is not None:
            client.tls_set_context(self._login.tls())
        if self._login.user:
            client.username_pw_set(self._login.user, self._login.password)
        client.will_set(says.topic("status"), says.offline, QOS, retain=True)
        return client

    def _status(self, *, online: bool) -> bytes:
        return messages.encode(
            Status(
                device=self._device,
                online=online,
                boot=self._boot,
                session=self._first_session + self.sessions,
            )
        )

    def _says(self) -> _Says:
        return _Says(
            site=self._site,
            device=self._device,
            online=self._status(online=True),
            offline=self._status(online=False),
            came=self._came,
            connected=self._connected,
            stopping=self._stopping.is_set,
        )


class _Says(NamedTuple):
    """What a connection has to know of its link."""

    site: str
    device: str
    online: bytes
    offline: bytes
    came: Callable[[Came], None]
    connected: Callable[[bool], object]
    stopping: Callable[[], bool]

    def topic(self, kind: Kind) -> str:
        """Of this device."""
        return str(topics.topic(self.site, self.device, kind))


class _Connection:
    """One connection; all but `up` belongs to the link's thread."""

    def __init__(self, client: mqtt.Client, outbox: Outbox[mqtt.Client], says: _Says) -> None:
        self._client, self._outbox, self._says = client, outbox, says
        self.up = False
        self._over = False
        self._flying: dict[int, Outgoing] = {}
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish

    def run(self, broker: Broker, keepalive_s: int) -> None:
        """Until it ends, or the link is to."""
        client = self._client
        client.connect(broker.host, broker.port, keepalive_s)
        with selectors.DefaultSelector() as selector:
            sock = client.socket()
            if sock is None:
                return
            selector.register(sock, selectors.EVENT_READ)
            selector.register(self._outbox.woken, selectors.EVENT_READ)
            while not self._over and not self._says.stopping():
                self._pump()
                wanted = selectors.EVENT_READ
                if client.want_write():
                    wanted |= selectors.EVENT_WRITE
                selector.modify(sock, wanted)
                if not self._turn(selector, sock):
                    return
        if self.up:
            self._leave()

    def _turn(self, selector: selectors.BaseSelector, sock: mqtt.SocketLike) -> bool:
        """Waits for something to happen; whether the connection is still there."""
        client = self._client
        for key, mask in selector.select(_TICK_S):
            if key.fileobj is not sock:
                self._outbox.slept()
                continue
            if mask & selectors.EVENT_READ and not self._read(sock):
                return False
            if mask & selectors.EVENT_WRITE and not _fine(client.loop_write()):
                return False
        return _fine(client.loop_misc()) and client.socket() is sock

    def _read(self, sock: mqtt.SocketLike) -> bool:
        while True:
            if not _fine(self._client.loop_read()):
                return False
            # What TLS has decrypted already, no selector tells.
            if not (isinstance(sock, ssl.SSLSocket) and self._client.socket() and sock.pending()):
                return True

    def _pump(self) -> None:
        """Says what is to be said."""
        client = self._client
        for ack in self._outbox.acks():
            if ack.connection is client:  # of an earlier connection: it comes again
                client.ack(ack.mid, ack.qos)
        while self.up and not self._over and len(self._flying) < MOST_INFLIGHT:
            message = self._outbox.next()
            if message is None:
                return
            retain = message.kind in topics.RETAINED
            info = client.publish(self._says.topic(message.kind), message.payload, QOS, retain)
            if info.rc not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_QUEUE_SIZE}:
                message.sent(False)
                return
            self._flying[info.mid] = message

    def _leave(self) -> None:
        """Says goodbye: the broker then forgets the last will."""
        client = self._client
        client.publish(self._says.topic("status"), self._says.offline, QOS, retain=True)
        while client.want_write():
            if not _fine(client.loop_write()):
                return
        client.disconnect()

    def end(self) -> None:
        """Frees what it has."""
        self.up = False
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
        sock = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()
        flying, self._flying = list(self._flying.values()), {}
        for message in flying:
            message.sent(False)
        self._outbox.forget(topics.TELEMETRY)  # who tells it begins anew with the next connection
        self._outbox.renew()

    # -- callbacks of the library, on the same thread

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, reason: object, _more: object
    ) -> None:
        if getattr(reason, "is_failure", True):
            logger.warning("the broker does not let this device in: %s", reason)
            self._over = True
            return
        names = topics.for_device(self._says.site, self._says.device)
        client.subscribe([(name, QOS) for name in names])
        self.up = True
        self._outbox.renew()
        self._outbox.retain("status", self._says.online)
        self._says.connected(True)

    def _on_disconnect(self, *_: object) -> None:
        self._over = True

    def _on_publish(self, _client: object, _data: object, mid: int, *_: object) -> None:
        message = self._flying.pop(mid, None)
        if message is not None:
            message.sent(True)

    def _on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        says, outbox = self._says, self._outbox

        def done() -> None:
            outbox.acknowledge(Ack(client, message.mid, message.qos))

        topic = topics.parse(message.topic)
        if topic is None or (topic.site, topic.device) != (says.site, says.device):
            done()
            return
        says.came(Came(topic.kind, bytes(message.payload), done))


def _fine(code: MQTTErrorCode) -> bool:
    return code in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN}
