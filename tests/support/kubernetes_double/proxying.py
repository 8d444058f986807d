"""The `proxy` of Services and pods: to what really listens on this machine in place of pods."""

from __future__ import annotations

import contextlib
import http.client
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from tests.support.kubernetes_double.answers import StatusError, missing

if TYPE_CHECKING:
    from tests.support.kubernetes_double.store import Object, Store

_HOP = frozenset(
    {
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"),
        # Whoever asks has shown who it is: the API keeps that to itself.
        *("authorization", "content-length"),
    }
)
_BLOCK = 1 << 16


class Way(NamedTuple):
    """Where a request goes.

    Attributes:
        prefix: Of its path in the API.
        rest: Of the path and query, for what is behind.
        pod: That gets it.
    """

    prefix: str
    rest: str
    pod: Object


class Proxying:
    """Finds pods, and asks what stands for them.

    Attributes:
        behind: What listens in place of a pod, as `host:port`; None for nothing.
        asked: Requests that went through, as `METHOD PATH`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.behind: Callable[[Object], str | None] = lambda _pod: None
        self.asked: list[str] = []

    def way(self, steps: tuple[str, ...], target: str) -> Way:
        """What a request for `…/proxy/…` means; raises `StatusError` as the API does."""
        namespace, plural, name = steps[3], steps[4], steps[5]
        prefix, _, rest = target.partition("/proxy")
        pods = self._pods(namespace, plural, name)
        return Way(f"{prefix}/proxy", rest or "/", random.choice(pods))

    def _pods(self, namespace: str, plural: str, given: str) -> list[Object]:
        parts = given.split(":")
        name, port = (parts[1], parts[2]) if len(parts) == 3 else (*parts, "")[:2]
        found = self._store.find(self._store.kinds[plural], namespace, name)
        if found is None:
            raise missing(plural, "", name)
        if plural == "pods":
            return [found]
        _require_port(found, port)
        selector = found["spec"]["selector"].items()
        pods = self._store.list(self._store.kinds["pods"], namespace)[0]
        ready = [pod for pod in pods if _is_ready(pod) and _fits(pod, selector)]
        if not ready:
            raise StatusError(503, f'no endpoints available for service "{given}"')
        return ready

    @contextlib.contextmanager
    def answer(
        self, way: Way, method: str, headers: list[tuple[str, str]], body: bytes
    ) -> Iterator[tuple[int, list[tuple[str, str]], Iterator[bytes]]]:
        """Status, headers and the pieces of the body, of what stands for the pod."""
        self.asked.append(f"{method} {way.rest}")
        place = self.behind(way.pod)
        connection = http.client.HTTPConnection(place or "127.0.0.1:1", timeout=30)
        sent = {key: text for key, text in headers if key.lower() not in _HOP}
        sent["X-Forwarded-Uri"] = way.prefix + way.rest
        try:
            connection.request(method, way.rest, body or None, sent)
            response = connection.getresponse()
        except OSError as error:
            connection.close()
            raise StatusError(
                503, f"error trying to reach service: dial tcp 10.0.0.9:8080: connect: {error}"
            ) from error
        with contextlib.closing(connection):
            told = [each for each in response.getheaders() if each[0].lower() not in _HOP]
            told = [(key, _placed(way, key, text)) for key, text in told]
            yield response.status, told, iter(lambda: response.read1(_BLOCK), b"")


def _placed(way: Way, key: str, text: str) -> str:
    """Places below the host come out below the proxy."""
    if key.lower() != "location" or urlsplit(text).netloc or not text.startswith("/"):
        return text
    return text if text.startswith(way.prefix) else way.prefix + text


def _require_port(service: Object, wanted: str) -> None:
    known = service["spec"]["ports"]
    if wanted and not any(wanted in (str(each["port"]), each.get("name")) for each in known):
        name = service["metadata"]["name"]
        raise StatusError(503, f'no service port "{wanted}" found for service "{name}"')


def _fits(pod: Object, selector: object) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return all(labels.get(key) == text for key, text in selector)  # type: ignore[attr-defined]


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return "deletionTimestamp" not in pod["metadata"] and any(
        each["type"] == "Ready" and each["status"] == "True" for each in conditions
    )
