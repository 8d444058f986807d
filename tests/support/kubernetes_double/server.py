"""The double over HTTP: a cluster's API on a port of this machine."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from tests.support.kubernetes_double.answers import StatusError
from tests.support.kubernetes_double.api import Api, Ask
from tests.support.kubernetes_double.controllers import Controllers, Outcome
from tests.support.kubernetes_double.proxying import Proxying
from tests.support.kubernetes_double.store import Object, Store

TOKEN = "double-token"
_BOOKMARK_S = 0.5


class KubernetesDouble:
    """A cluster without nodes: all that a client sees of one.

    Args:
        tls: What it speaks TLS with; clients with a certificate need no token.

    Attributes:
        store: Its objects.
        controllers: What moves them; tests say what becomes of pods.
        api: What answers; tests say who is denied what.
        proxying: Leads to what stands for pods; tests say what does.
        requests: What was asked, as `METHOD PATH`.
        fault: Called before each request: it may raise a `StatusError`, or return `drop` to cut
            the connection off.
        warnings: Sent along with every change.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.store = Store()
        self.controllers = Controllers(self.store)
        self.api = Api(self.store)
        self.proxying = Proxying(self.store)
        self.tokens = {TOKEN: "developer"}
        self.requests: list[str] = []
        self.fault: Callable[[Ask], str | None] = lambda _ask: None
        self.warnings: list[str] = []
        self.ending = threading.Event()
        self._http: ThreadingHTTPServer | None = None
        self._port = 0
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.listen()
        self.controllers.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self.controllers.stop()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}"

    def listen(self) -> None:
        """Answers from now on; on the same port where it has answered before."""
        double = self

        class Handler(_Handler):
            cluster = double

        self.ending.clear()
        self._http = _Server(("127.0.0.1", self._port), Handler)
        self._port = self._http.server_address[1]
        if self._tls is not None:
            self._http.socket = self._tls.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def hang_up(self) -> None:
        """Answers no more, and ends what is open."""
        self.ending.set()
        with self.store.lock:
            self.store.lock.notify_all()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def kubeconfig(self, path: Path, *, token: str = TOKEN, namespace: str = "default") -> Path:
        """Writes a kubeconfig with one context, `double`."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "double",
            "clusters": [{"name": "double", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [
                {
                    "name": "double",
                    "context": {"cluster": "double", "user": "me", "namespace": namespace},
                }
            ],
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def pods_become(self, outcome: Outcome, *, revision: int | None = None) -> None:
        """What becomes of all pods, or of those of one revision, from now on."""
        before = self.controllers.outcome

        def chosen(pod: Object) -> Outcome:
            labels = pod["metadata"].get("labels") or {}
            fits = revision is None or labels.get("fieldpost.dev/revision") == str(revision)
            return outcome if fits else before(pod)

        self.controllers.outcome = chosen

    def items(self, plural: str, namespace: str = "default") -> dict[str, Object]:
        """The objects of a kind by name: `deployments.apps`."""
        kind = self.store.kinds[plural]
        return {each["metadata"]["name"]: each for each in self.store.list(kind, namespace)[0]}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no news."""


class _Handler(BaseHTTPRequestHandler):
    cluster: KubernetesDouble
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for an acknowledgement

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: tests look at `requests`."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        steps = tuple(unquote(each) for each in split.path.strip("/").split("/"))
        kind = self.headers.get("Content-Type", "").split(";")[0]
        ask = Ask(self.command, steps, dict(parse_qsl(split.query)), kind, body, "")
        self.cluster.requests.append(f"{self.command} {split.path}")
        try:
            ask = ask._replace(user=self._user())
            if self.cluster.fault(ask) == "drop":
                self.close_connection = True
                return
            if ask.query.get("watch") == "true":
                self._stream(self._watch(ask))
            elif steps[6:7] == ("proxy",):
                self._proxy(ask)
            elif steps[-1] == "log":
                self._stream(self._log(ask))
            else:
                self._reply(*self.cluster.api.answer(ask))
        except StatusError as error:
            self._reply(error.code, error.document())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _proxy(self, ask: Ask) -> None:
        """What is behind answers, whatever it says; it may take its time."""
        self.cluster.api.permit(ask, self.cluster.api.place(ask))
        way = self.cluster.proxying.way(ask.path, self.path)
        headers = list(self.headers.items())
        with self.cluster.proxying.answer(way, self.command, headers, ask.body) as answer:
            status, told, pieces = answer
            self.send_response_only(status)
            for name, text in told:
                self.send_header(name, text)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

    def _user(self) -> str:
        if isinstance(self.connection, ssl.SSLSocket) and self.connection.getpeercert():
            return "by certificate"
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.cluster.tokens:
            raise StatusError(401, "Unauthorized")
        return self.cluster.tokens[token]

    def _reply(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.command in ("PATCH", "POST"):
            for text in self.cluster.warnings:
                self.send_header("Warning", f'299 - "{text}"')
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, pieces: Iterator[str]) -> None:
        """Sends pieces as they come; the first one decides whether it is a stream at all."""
        first = next(pieces, None)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while first is not None:
            if first:
                data = first.encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            first = next(pieces, None)
        if self.cluster.ending.is_set():
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    def _watch(self, ask: Ask) -> Iterator[str]:
        store = self.cluster.store
        place = self.cluster.api.place(ask)
        self.cluster.api.permit(ask, place, "watch")
        version = int(ask.query.get("resourceVersion") or 0)
        until = time.monotonic() + float(ask.query.get("timeoutSeconds") or 60)
        yield ""
        while time.monotonic() < until and not self.cluster.ending.is_set():
            try:
                with store.lock:
                    store.lock.wait_for(
                        lambda v=version: store.version > v or self.cluster.ending.is_set(),  # type: ignore[misc]
                        _BOOKMARK_S,
                    )
                    changes, latest = store.since(place.kind, place.namespace, version)
            except StatusError as error:
                yield json.dumps({"type": "ERROR", "object": error.document()}) + "\n"
                return
            for each in changes:
                if self.cluster.api.matches(each.item, ask):
                    yield json.dumps({"type": each.type, "object": each.item}) + "\n"
            if latest > version and ask.query.get("allowWatchBookmarks") == "true" and not changes:
                mark = {
                    "kind": place.kind.kind,
                    "apiVersion": place.kind.api_version,
                    "metadata": {"resourceVersion": str(latest)},
                }
                yield json.dumps({"type": "BOOKMARK", "object": mark}) + "\n"
            version = latest

    def _log(self, ask: Ask) -> Iterator[str]:
        place = self.cluster.api.place(ask)
        self.cluster.api.permit(ask, place, "get")
        pod = self.cluster.store.get(place.kind, place.namespace, place.name)
        controllers, key = self.cluster.controllers, (place.namespace, place.name)
        previous = ask.query.get("previous") == "true"
        kept = controllers.previous if previous else controllers.logs
        if key not in kept:
            why = f'container "server" in pod "{place.name}" is waiting to start: ContainerCreating'
            raise StatusError(400, why)
        lines = list(kept[key])
        shown = lines[-int(ask.query["tailLines"]) :] if "tailLines" in ask.query else lines
        stamp = ask.query.get("timestamps") == "true"
        yield "".join(_line(each, stamp=stamp) for each in shown)
        done = len(lines)
        while ask.query.get("follow") == "true" and not self.cluster.ending.wait(0.05):
            with suppress(KeyError):
                for each in kept[key][done:]:
                    yield _line(each, stamp=stamp)
                done = len(kept[key])
            found = self.cluster.store.find(place.kind, place.namespace, place.name)
            if found is None or found["metadata"]["uid"] != pod["metadata"]["uid"]:
                return


def _line(line: tuple[str, str], *, stamp: bool) -> str:
    return f"{line[0]} {line[1]}\n" if stamp else f"{line[1]}\n"
