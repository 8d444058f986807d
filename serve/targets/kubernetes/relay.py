"""A way to a Service through its cluster's API, which needs the login alone.

`relay` listens on this machine, for the time of a block, and hands each request to the Service's
`proxy` of the API: whoever speaks HTTP gets there as if the Service were here. The path begins
with a secret, so that other users of the machine do not get there, too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from scoring.errors import FieldpostError, UnreachableError
from serve.targets.base import Route
from serve.targets.kubernetes import faults
from serve.targets.kubernetes.faults import Asked, MissingError
from serve.targets.kubernetes.transport import Transport, reached

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2

    from serve.targets.kubernetes.access import Access
    from serve.targets.kubernetes.kinds import Object

_ANSWER_S = 600.0
_CONNECT_S = 10.0
_STATUS = ("Status", "v1")
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
_NO_LENGTH, _UNAVAILABLE, _MISSING, _BAD_GATEWAY = 411, 503, 404, 502
_BODILESS = frozenset({204, 304})
_HTTP, _HTTPS = 80, 443
# Of one connection, and what the API takes for itself.
_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "host", "content-length", "expect", "authorization"),
    }
)
_FORWARDED = ("impersonate-", "x-remote-")


class Address(NamedTuple):
    """A Service of a cluster.

    Attributes:
        namespace: Where it is.
        name: Its name.
        port: Its number.
        tls: Its pods speak TLS.
    """

    namespace: str
    name: str
    port: int
    tls: bool = False

    @property
    def path(self) -> str:
        """Of its proxy in the API."""
        scheme = "https:" if self.tls else ""
        return f"api/v1/namespaces/{self.namespace}/services/{scheme}{self.name}:{self.port}/proxy"


def address_of(url: str) -> Address | None:
    """The Service that a URL names: `http://NAME.NAMESPACE.svc[:PORT]`; None for any other."""
    parts = urlsplit(url)
    steps = (parts.hostname or "").split(".")
    if len(steps) != 3 or steps[2] != "svc":  # noqa: PLR2004 - see above
        return None
    tls = parts.scheme == "https"
    return Address(steps[1], steps[0], parts.port or (_HTTPS if tls else _HTTP), tls)


def out_of_reach(url: str) -> Address | None:
    """The Service that a URL names, where only pods get there by that name, and we are in none."""
    found = address_of(url)
    if found is None or "KUBERNETES_SERVICE_HOST" not in os.environ:
        return found
    try:
        socket.getaddrinfo(f"{found.name}.{found.namespace}.svc", found.port)
    except OSError:
        return found  # a pod of another cluster
    return None


@contextlib.contextmanager
def relay(access: Access, to: Address) -> Iterator[Route]:
    """The way to the Service from here, for the time of the block.

    Errors that leave the block are those of the cluster, where it was the cluster that answered,
    and name the Service by its URL in the API (for `kubectl get --raw`).

    Args:
        access: To the cluster.
        to: The Service.

    Raises:
        TargetError: The kubeconfig's certificates cannot be read.
    """
    with contextlib.closing(Transport(access, _CONNECT_S, None)) as transport:
        way = _Way(access, to, transport)

        class Handler(_Handler):
            passing = way

        server = _Server(("127.0.0.1", 0), Handler)
        way.base = f"http://127.0.0.1:{server.server_address[1]}/{secrets.token_urlsafe(16)}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield way.route
        except FieldpostError as error:
            if way.fault is not None:
                raise way.fault from error
            _rename(error, way.route)
            raise
        finally:
            server.shutdown()
            server.server_close()


@dataclass
class _Way:
    """What the threads of one relay share.

    Attributes:
        access: To the cluster.
        to: The Service.
        transport: Sends.
        base: The URL from here.
        fault: What the cluster, and not the Service, answered last.
    """

    access: Access
    to: Address
    transport: Transport
    base: str = ""
    fault: FieldpostError | None = None
    asked: Asked = field(init=False)

    def __post_init__(self) -> None:
        what = f"reach the Service {self.to.name}"
        self.asked = Asked(what, self.access.where, self.to.namespace)

    @property
    def prefix(self) -> str:
        """The secret step of paths here."""
        return urlsplit(self.base).path

    def send(
        self, method: str, rest: str, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[httpx2.Response, Iterator[bytes]]:
        """The answer and the pieces of its body; raises what is the cluster's own."""
        response = self.transport.exchange(
            method, self.to.path + rest, headers, body, self.asked, _ANSWER_S
        )
        try:
            status, pieces = own_words(response, self.asked)
        except BaseException:
            response.close()
            raise
        if status is None:
            return response, pieces
        response.close()
        raise self._refused(response.status_code, status)

    def _refused(self, code: int, status: Object) -> FieldpostError:
        said = str(status.get("message") or "").strip().rstrip(".")
        error = faults.refusal(code, status, self.asked)
        if code >= _SERVER_ERROR:
            return UnreachableError(
                f"{self.access.where} cannot {self.asked.what}: {said} ({code}).",
                hint="'fieldpost deployment show NAME' says what becomes of the pods; a policy of "
                "the network may keep the API from them.",
            )
        if isinstance(error, MissingError):
            error.hint = error.hint or "'fieldpost deployment start NAME' brings it back."
        return error

    def place_here(self, location: str) -> str:
        """A `Location` of the Service, which the API may have rewritten, as a path here."""
        parts = urlsplit(location)
        path, query = parts.path, f"?{parts.query}" if parts.query else ""
        mark = f"/{self.to.path}/"
        known = mark in path or not parts.netloc
        if not known or not path.startswith("/"):
            return location
        return f"{self.prefix}/{path.rpartition(mark)[2].lstrip('/')}{query}"

    @property
    def route(self) -> Route:
        """For whoever asked for it; `kubectl get --raw` takes the path of what it stands for."""
        return Route(self.base, f"{self.access.server.rstrip('/')}/{self.to.path}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no news."""


class _Handler(BaseHTTPRequestHandler):
    passing: _Way
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Nothing: whoever asks tells."""

    def do_GET(self) -> None:
        way = self.passing
        if not self.path.startswith(f"{way.prefix}/"):
            self._reply(_MISSING, {"code": "not_found", "message": "There is nothing."})
            return
        if "transfer-encoding" in self.headers:
            self.close_connection = True
            self._reply(_NO_LENGTH, {"code": "bad_input", "message": "The length is not told."})
            return
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        rest = quote(self.path[len(way.prefix) :], safe="/?&=%:@!$'()*+,;~")
        try:
            response, pieces = way.send(self.command, rest, list(self._sent()), body)
        except FieldpostError as error:
            way.fault = error
            self._reply(_code_of(error), error.to_dict())
            return
        way.fault = None
        with contextlib.closing(response):
            self._pass(response, pieces)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815 - the base's names

    def _sent(self) -> Iterator[tuple[str, str]]:
        """The headers for the Service: the API takes `Authorization` for its own."""
        for name, text in self.headers.items():
            if name.lower() not in _HOP and not name.lower().startswith(_FORWARDED):
                yield name, text
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        if (
            key
            and scheme.lower() in ("bearer", "apikey", "key")
            and "x-api-key" not in self.headers
        ):
            yield "x-api-key", key.strip()
        for name, usual in (("accept-encoding", "identity"), ("accept", "*/*")):
            if name not in self.headers:
                yield name, usual

    def _pass(self, response: httpx2.Response, pieces: Iterator[bytes]) -> None:
        self.send_response_only(response.status_code)
        length = response.headers.get("content-length")
        for name, text in response.headers.multi_items():
            if name.lower() not in _HOP:
                here = name.lower() == "location"
                self.send_header(name, self.passing.place_here(text) if here else text)
        if self.command == "HEAD" or response.status_code in _BODILESS:
            self.end_headers()
            return
        if length is not None:
            self.send_header("content-length", length)
        else:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._copy(pieces, chunked=length is None)

    def _copy(self, pieces: Iterator[bytes], *, chunked: bool) -> None:
        """The body as it comes; one that is cut off stays so for the client."""
        try:
            for piece in filter(None, pieces):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")
        except Exception:
            self.close_connection = True
            raise

    def _reply(self, status: int, error: dict[str, object]) -> None:
        data = msgspec.json.encode({"error": error})
        self.send_response_only(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def own_words(response: httpx2.Response, asked: Asked) -> tuple[Object | None, Iterator[bytes]]:
    """What the cluster itself says, where it was the one that answered, and the answer's body.

    An answer of the API is a `Status`, which no server of ours has.
    """
    pieces = response.iter_raw()
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    if response.status_code < _CLIENT_ERROR or kind != "application/json":
        return None, pieces
    with reached(asked):
        whole = b"".join(pieces)
    try:
        found = msgspec.json.decode(whole)
    except msgspec.DecodeError:
        found = None
    of_api = isinstance(found, dict) and (found.get("kind"), found.get("apiVersion")) == _STATUS
    return (found if of_api else None), iter((whole,))


def _code_of(error: FieldpostError) -> int:
    """For clients: what is worth another attempt, and what is not."""
    if isinstance(error, UnreachableError):
        return _UNAVAILABLE
    status = getattr(error, "status", 0)
    return status if status >= _CLIENT_ERROR else _BAD_GATEWAY


def _rename(error: FieldpostError, route: Route) -> None:
    """Has an error name URLs that mean something once the relay is gone."""
    error.message, error.hint = route.outside(error.message), route.outside(error.hint)
    error.where, error.detail = route.outside(error.where), route.outside(error.detail)
    error.args = (error.message,)
