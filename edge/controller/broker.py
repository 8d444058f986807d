"""The controller's connection to the MQTT broker: paho underneath, everything bounded.

What is to be said waits here, of a retained topic only the newest; a few messages are on their way
at a time. Nothing survives a lost connection: whoever uses this says everything anew when it is
back. Messages that come are put into a queue, which holds the network back when it is full.

One thread alone touches paho and its socket: others leave what they want, and ring. Of two threads
one could write while the other reads, and OpenSSL's memory does not survive that.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import selectors
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from edge.controller.doorbell import Doorbell
from edge.protocol.messages import MOST_BYTES
from edge.protocol.topics import QOS
from scoring.errors import UsageError

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

logger = logging.getLogger(__name__)

MOST_IN_FLIGHT: Final = 200
MOST_INBOX: Final = 50_000
KEEPALIVE_S: Final = 30
BACKOFF_S: Final = (0.5, 30.0)

_TURN_S: Final = 0.5
_LEAVE_S: Final = 2.0

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class Came(NamedTuple):
    """A message.

    Attributes:
        topic: Where it was said.
        payload: Its bytes.
        retained: Whether the broker had kept it.
    """

    topic: str
    payload: bytes
    retained: bool


class Up(NamedTuple):
    """The connection stands, and what was subscribed to comes."""


class Down(NamedTuple):
    """There is no connection.

    Attributes:
        reason: Why.
    """

    reason: str


Arrival = Came | Up | Down


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a broker is, and who asks; the password is not shown.

    Attributes:
        host: Its name or address.
        port: Of TCP.
        tls: Whether it speaks TLS.
        user: Name to log in with; empty for none.
        password: To log in with.
        authority: A file of certificates to know the broker by; None for the system's.
        certificate: A file, to be known by; None for none.
        key: Of the certificate; a file.
    """

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = ""
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __repr__(self) -> str:
        return f"BrokerSettings({self})"

    def __str__(self) -> str:
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}"


def parse_url(url: str, password: str = "", **files: Path | None) -> BrokerSettings:
    """Reads `mqtt://[USER[:PASSWORD]@]HOST[:PORT]` or `mqtts://…`.

    Args:
        url: From a user.
        password: Where it is not in the URL.
        **files: `authority`, `certificate` and `key`.

    Raises:
        UsageError: It is neither.
    """
    parts = urlsplit(url)
    try:
        usual = _PORTS[parts.scheme]  # what is none of these would be spoken to without TLS
        port = usual if parts.port is None else parts.port
    except (ValueError, KeyError):
        port = 0
    if not port or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError(
            "The broker's URL is none of MQTT.",
            hint="Write mqtt://HOST:1883, or mqtts://HOST:8883 for TLS.",
            where="broker",
        )
    return BrokerSettings(
        host=parts.hostname,
        port=port,
        tls=parts.scheme == "mqtts",
        user=unquote(parts.username or ""),
        password=unquote(parts.password or "") or password,
        **files,
    )


class Link:
    """A connection that is made again and again until it is closed.

    Args:
        settings: Where to.
        name: Of this client: two of one name throw each other out.
        subscriptions: What to hear.
    """

    def __init__(self, settings: BrokerSettings, name: str, subscriptions: Iterable[str]) -> None:
        self._settings = settings
        self._name = name
        self._subscriptions = tuple(subscriptions)
        self._inbox: queue.Queue[Arrival] = queue.Queue(MOST_INBOX)
        self._lock = threading.Lock()
        self._outbox: dict[object, tuple[str, bytes, bool]] = {}
        self._asked: dict[str, None] = {}
        self._flying = 0
        self._is_up = False
        self._closing = threading.Event()
        self._doorbell = Doorbell()
        self._thread = threading.Thread(target=self._run, name="fleet-broker", daemon=True)

    def start(self) -> None:
        """Begins to connect; what comes of it is in `take`."""
        self._thread.start()

    def close(self) -> None:
        """Says what waits, as far as it may, and ends the connection in peace."""
        self._closing.set()
        self._doorbell.ring()
        if self._thread.is_alive():
            self._thread.join(KEEPALIVE_S)
        self._doorbell.close()

    def take(self, timeout_s: float, most: int = 2000) -> list[Arrival]:
        """What has come, in order; waits for something."""
        found: list[Arrival] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._inbox.get(timeout=timeout_s))
            while len(found) < most:
                found.append(self._inbox.get_nowait())
        return found

    @property
    def waiting(self) -> int:
        """How many messages have come and were not taken yet."""
        return self._inbox.qsize()

    @property
    def backlog(self) -> int:
        """How many messages wait to be said, or are on their way."""
        with self._lock:
            return len(self._outbox) + self._flying

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Says something, soon; nothing where there is no connection."""
        with self._lock:
            if not self._is_up:
                return
            key: object = topic if retain else object()
            self._outbox[key] = (topic, payload, retain)
        self._doorbell.ring()

    def refresh(self, topic: str) -> None:
        """Asks the broker for a retained message once more."""
        with self._lock:
            if not self._is_up:
                return
            self._asked[topic] = None
        self._doorbell.ring()

    # -- the thread

    def _run(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            reason, was_up = self._connect_once()
            if self._closing.is_set():
                return
            self._put(Down(reason))
            attempt = 0 if was_up else attempt + 1
            least, most = BACKOFF_S
            # Full jitter: those that lost the same broker do not come back as one.
            self._closing.wait(random.uniform(0, min(most, least * 2 ** min(attempt, 10))))  # noqa: S311

    def _connect_once(self) -> tuple[str, bool]:
        """One connection from its beginning to its end: why it ended, and whether it stood."""
        try:
            session = _Session(self._settings, self._name, self._subscriptions, self._arrived)
            session.connect()
        except (OSError, ValueError) as error:  # paho raises ValueError for an impossible host
            return str(error) or type(error).__name__, False
        session.client.on_publish = self._published
        try:
            return session.run(self._doorbell, self._closing, self._stands, self._pump)
        finally:
            with self._lock:
                self._is_up = False
                self._outbox.clear()
                self._asked.clear()
                self._flying = 0

    def _stands(self) -> None:
        with self._lock:
            self._is_up = True
        self._put(Up())

    def _pump(self, client: Client) -> bool:
        """Hands paho what may fly; whether anything is not with the broker yet.

        Never under our lock: paho calls back under one of its own.
        """
        while (message := self._next_message()) is not None:
            topic, payload, retain = message
            client.publish(topic, payload, QOS, retain)
        for asked in self._next_asked():
            client.subscribe(asked, QOS)
            if asked not in self._subscriptions:  # what is said there from now on comes anyway
                client.unsubscribe(asked)
        return self.backlog > 0

    def _next_message(self) -> tuple[str, bytes, bool] | None:
        with self._lock:
            if not self._outbox or self._flying >= MOST_IN_FLIGHT:
                return None
            self._flying += 1
            return self._outbox.pop(next(iter(self._outbox)))

    def _next_asked(self) -> list[str]:
        with self._lock:
            found = list(self._asked)
            self._asked.clear()
        return found

    def _published(self, _client: Any, _data: Any, _mid: int, _code: Any, _more: Any) -> None:
        with self._lock:
            self._flying = max(0, self._flying - 1)

    def _arrived(self, message: MQTTMessage) -> None:
        if len(message.payload) <= MOST_BYTES:
            self._put(Came(message.topic, bytes(message.payload), message.retain))

    def _put(self, arrival: Arrival) -> None:
        while not self._closing.is_set():
            try:
                self._inbox.put(arrival, timeout=1.0)
            except queue.Full:
                continue
            return


class _Session:
    """One connection of paho's."""

    def __init__(
        self,
        settings: BrokerSettings,
        name: str,
        subscriptions: tuple[str, ...],
        arrived: Callable[[MQTTMessage], None],
    ) -> None:
        self._settings = settings
        self._subscriptions = subscriptions
        self._arrived = arrived
        self._granted = False
        self.was_up = False
        self.reason = "the connection was lost"
        self.client = _client(settings, name)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message

    def connect(self) -> None:
        """Raises OSError, ValueError."""
        self.client.connect(self._settings.host, self._settings.port, KEEPALIVE_S)

    def run(
        self,
        doorbell: Doorbell,
        closing: threading.Event,
        stands: Callable[[], None],
        pump: Callable[[Client], bool],
    ) -> tuple[str, bool]:
        """Serves the connection until it ends: why it ended, and whether it stood.

        Args:
            doorbell: Rings where there is something to say, or it is to end.
            closing: Whether it is to end.
            stands: Told once, when what was subscribed to comes.
            pump: Hands over what is to be said; whether some of it is not with the broker yet.
        """
        sock = self.client.socket()
        if sock is None:
            return self.reason, False
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            selector.register(doorbell.rung, selectors.EVENT_READ)
            while not closing.is_set():
                if self.was_up:
                    pump(self.client)
                if not self._turn(selector, sock, doorbell):
                    return self.reason, self.was_up
                if self._granted and not self.was_up:
                    self.was_up = True
                    stands()
            until = time.monotonic() + _LEAVE_S
            # A connection that is closed with answers unread takes what was said last with it.
            while self.was_up and pump(self.client) and time.monotonic() < until:
                if not self._turn(selector, sock, doorbell):
                    return self.reason, True
        _leave(self.client)
        return self.reason, self.was_up

    def _turn(self, selector: selectors.BaseSelector, sock: SocketLike, doorbell: Doorbell) -> bool:
        """Waits for something to happen; whether the connection is still there."""
        client = self.client
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
        if selector.get_key(sock).events != wanted:
            selector.modify(sock, wanted)
        for key, mask in selector.select(_TURN_S):
            if key.fileobj is not sock:
                doorbell.heard()
                continue
            if mask & selectors.EVENT_READ and not self._read(sock):
                return False
            if mask & selectors.EVENT_WRITE and not _fine(client.loop_write()):
                return False
        return _fine(client.loop_misc()) and client.socket() is sock

    def _read(self, sock: SocketLike) -> bool:
        while _fine(self.client.loop_read()):
            # What TLS has decrypted already, no selector tells.
            if not (isinstance(sock, ssl.SSLSocket) and self.client.socket() and sock.pending()):
                return True
        return False

    def _on_connect(
        self, client: Any, _data: Any, _flags: Any, code: ReasonCode, _more: Any
    ) -> None:
        if code.is_failure:
            self.reason = f"the broker refuses: {code}"
            return
        client.subscribe([(topic, QOS) for topic in self._subscriptions])

    def _on_subscribe(
        self, client: Any, _data: Any, _mid: int, codes: list[ReasonCode], _more: Any
    ) -> None:
        if any(code.is_failure for code in codes):
            self.reason = "the broker does not let the controller hear the fleet: check its ACL"
            client.disconnect()
            return
        self._granted = True

    def _on_message(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        self._arrived(message)


def _client(settings: BrokerSettings, name: str) -> Client:
    client = Client(
        CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv311, clean_session=True
    )
    client.max_inflight_messages_set(MOST_IN_FLIGHT + 1)
    if settings.user:
        client.username_pw_set(settings.user, settings.password or None)
    if settings.tls:
        client.tls_set_context(_context(settings))
    return client


def _fine(code: MQTTErrorCode) -> bool:
    return code in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN}


def _leave(client: Client) -> None:
    """Says goodbye."""
    client.disconnect()
    if client.socket() is not None:
        client.loop(timeout=0.2)


def _context(settings: BrokerSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate is not None:
        context.load_cert_chain(settings.certificate, settings.key)
    return context


def take_over(settings: BrokerSettings, name: str, patience_s: float = 10.0) -> bool:
    """Connects under a client's name, for a moment: a broker ends the connection that has it.

    Returns:
        Whether the broker let this client in.
    """
    client = _client(settings, name)
    let_in: list[bool] = []
    client.on_connect = lambda _client, _data, _flags, code, _more: let_in.append(
        not code.is_failure
    )
    until = time.monotonic() + patience_s
    try:
        client.connect(settings.host, settings.port, KEEPALIVE_S)
        while not let_in and time.monotonic() < until:
            if client.loop(timeout=0.2) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
        client.disconnect()
        client.loop(timeout=0.2)
    except (OSError, ValueError):
        return False
    return bool(let_in and let_in[0])


def check(settings: BrokerSettings) -> None:
    """Refuses files that no connection can be made with.

    Raises:
        UsageError: A certificate or key cannot be read, or they do not fit each other.
    """
    if not settings.tls:
        return
    try:
        _context(settings)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"The certificates for {settings} cannot be used: {error}.",
            hint="Check the files of the authority, the certificate and its key.",
        ) from error
