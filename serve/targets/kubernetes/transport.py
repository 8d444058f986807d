"""Requests to a cluster's API: patience, logins and errors around what lightkube prepares."""

from __future__ import annotations

import contextlib
import re
import ssl
from typing import TYPE_CHECKING, Any, cast

import httpx2
import msgspec
from lightkube.config.client_adapter import ConnectionParams, verify_cluster
from lightkube.config.models import User
from lightkube.core.generic_client import BasicRequest, GenericSyncClient
from lightkube.generic_resource import (
    GenericGlobalResource,
    GenericNamespacedResource,
    create_api_info,
)
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay

from scoring.errors import TargetError, UnreachableError
from serve.targets.kubernetes import faults
from serve.targets.kubernetes.faults import Asked, BusyError
from serve.targets.kubernetes.login import login_of
from serve.targets.kubernetes.streams import Door, text_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from serve.targets.kubernetes.access import Access
    from serve.targets.kubernetes.kinds import Kind, Object

TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
_LONGEST_WAIT_S = 4.0
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


class Transport:
    """Sends requests to one cluster.

    Args:
        access: Which, and how.
        patience_s: For how long a cluster that does not answer, or not now, is asked again.
        warn: Takes warnings that the cluster sends with its answers.
    """

    def __init__(
        self, access: Access, patience_s: float, warn: Callable[[str], None] | None
    ) -> None:
        self._patience_s = patience_s
        self._warn = warn
        self._warned: set[str] = set()
        self._client = _Client(access, patience_s)
        self._door = Door(self._client.http.close)

    def request(
        self,
        method: str,
        kind: Kind,
        *,
        name: str | None = None,
        namespace: str | None = None,
        params: Mapping[str, str | None] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Object | None = None,
        options: Object | None = None,
    ) -> BasicRequest:
        """A request for objects of a kind.

        Args:
            method: `get`, `list`, `post`, `patch` or `delete`.
            kind: The kind.
            name: Of one object.
            namespace: Where it is; None where the kind has none.
            params: Of the URL; None leaves one out.
            headers: More headers.
            body: An object that is sent.
            options: What is sent with a deletion.
        """
        resource = _resource(kind)
        item = None if body is None else cast("Any", resource)(body)
        found = self._client.prepare_request(
            method,
            resource,
            item,
            name,
            namespace,
            params=dict(params or {}),
            headers=dict(headers or {}),
        )
        found.data = options if options is not None else found.data
        return found

    def close(self) -> None:
        """Closes connections, those that threads are opening as soon as they are open."""
        self._door.close()

    def send(self, request: BasicRequest, asked: Asked) -> Object:
        """The answer; raises what `faults` says, once patience is over."""
        for attempt in self._patiently():
            with attempt:
                with self._door.inside(), reached(asked):
                    response = self._client.http.send(self._client.build_adapter_request(request))
                self._require_success(response, asked)
                return decode(response.content, asked)
        raise AssertionError("tenacity gives up by raising")

    def exchange(
        self,
        method: str,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes,
        asked: Asked,
        read_s: float,
    ) -> httpx2.Response:
        """The answer of something behind the API, whatever its status; the caller closes it.

        Args:
            method: Of HTTP.
            path: In the API, with its query, as it is to be sent.
            headers: Sent, beside the login.
            body: Sent.
            asked: For messages.
            read_s: How long the answer may take to begin, or to go on.

        Raises:
            UnreachableError: The cluster does not answer.
        """
        timeout = httpx2.Timeout(TIMEOUT.connect, read=read_s)
        with self._door.inside(), reached(asked):
            built = self._client.http.build_request(
                method, path, headers=headers, content=body or None, timeout=timeout
            )
            return self._client.http.send(built, stream=True)

    def lines(self, request: BasicRequest, asked: Asked, read_s: float | None) -> Iterator[str]:
        """The lines of an answer as they come; opening it is retried, its middle is not."""
        request.timeout = httpx2.Timeout(TIMEOUT.connect, read=read_s)
        response = self._open(request, asked)
        try:
            with reached(asked):
                yield from text_lines(response.iter_bytes())
        finally:
            response.close()

    def _open(self, request: BasicRequest, asked: Asked) -> httpx2.Response:
        for attempt in self._patiently():
            with attempt:
                with self._door.inside(), reached(asked):
                    built = self._client.build_adapter_request(request)
                    response = self._client.http.send(built, stream=True)
                try:
                    with reached(asked):
                        if response.is_error:
                            response.read()
                    self._require_success(response, asked)
                except BaseException:
                    response.close()
                    raise
                return response
        raise AssertionError("tenacity gives up by raising")

    def _require_success(self, response: httpx2.Response, asked: Asked) -> None:
        self._pass_on(response.headers.get_list("Warning"))
        if response.is_success:
            return
        error = faults.refusal(response.status_code, _status(response), asked)
        if isinstance(error, BusyError):
            with contextlib.suppress(ValueError):
                error.wait_s = error.wait_s or float(response.headers.get("Retry-After", "0"))
        raise error

    def _pass_on(self, headers: list[str]) -> None:
        """Tells each warning once: a dry run is warned of what the change is warned of."""
        for text in headers:
            found = _WARNING.match(text)
            said = re.sub(r"\\(.)", r"\1", found[1]) if found else ""
            if self._warn is not None and said and said not in self._warned:
                self._warned.add(said)
                self._warn(f"The cluster warns: {said}")

    def _patiently(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(UnreachableError),
            stop=stop_after_delay(self._patience_s),
            wait=_wait,
            reraise=True,
        )


class _Client(GenericSyncClient):
    """lightkube's client, with our logins in it."""

    def __init__(self, access: Access, patience_s: float) -> None:
        self._access = access
        # Who wants to know soon is not kept by an address that swallows packets.
        timeout = httpx2.Timeout(TIMEOUT.read, connect=min(TIMEOUT.connect or 0, patience_s + 1))
        params = ConnectionParams(timeout=timeout, proxy=access.proxy)
        super().__init__(params, access.config)

    def AdapterClient(  # noqa: N802 - lightkube's name for it
        self, config: Any, params: ConnectionParams
    ) -> httpx2.Client:
        """The HTTP client; lightkube's own knows no plugins of Kubernetes 1.22 and later."""
        try:
            verify = verify_cluster(config.cluster, config.user or User(), config.abs_file)
        except (OSError, ssl.SSLError, ValueError, TypeError) as error:
            raise TargetError(
                f"The certificates of the context {self._access.context!r} cannot be read: "
                f"{error}.",
                where="context",
            ) from error
        try:
            return httpx2.Client(
                base_url=config.cluster.server,
                verify=verify,
                auth=login_of(self._access, verify),
                timeout=params.timeout,
                proxy=params.proxy,
                headers=list(self._access.headers),
                event_hooks={"request": [self._name_server]},
            )
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            raise TargetError(
                f"The address or the proxy of the context {self._access.context!r} cannot be "
                f"used: {error}.",
                hint="Correct the kubeconfig, or HTTPS_PROXY and ALL_PROXY. Proxies of SOCKS need "
                "'pip install socksio'.",
                where="context",
            ) from error

    def _name_server(self, request: httpx2.Request) -> None:
        """Has the certificate checked for another name than that of the URL."""
        if self._access.server_name:
            request.extensions = {**request.extensions, "sni_hostname": self._access.server_name}

    @property
    def http(self) -> httpx2.Client:
        """The HTTP client."""
        return self._client


@contextlib.contextmanager
def reached(asked: Asked) -> Iterator[None]:
    """Raises `UnreachableError` for everything that a connection may suffer."""
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
        raise faults.unreachable(error, asked) from error


def _wait(state: RetryCallState) -> float:
    """Seconds before the next attempt: what the cluster asks for, else ever longer ones."""
    error = state.outcome.exception() if state.outcome else None
    told = error.wait_s if isinstance(error, BusyError) else 0.0
    return min(told or 0.1 * 2.0 ** min(state.attempt_number, 8), _LONGEST_WAIT_S)


def _resource(kind: Kind) -> type[GenericNamespacedResource | GenericGlobalResource]:
    """The kind as lightkube has it; its own registry would mix with what others register."""
    base = GenericNamespacedResource if kind.namespaced else GenericGlobalResource
    info = create_api_info(kind.group, kind.version, kind.kind, kind.plural)
    return type(kind.kind, (base,), {"_api_info": info})


def decode(data: bytes | str, asked: Asked) -> Object:
    """A JSON object; anything else is not from a cluster."""
    try:
        document = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise UnreachableError(
            f"{asked.where} answers with something else than JSON: is a proxy in between?"
        ) from error
    return document if isinstance(document, dict) else {}


def _status(response: httpx2.Response) -> Object:
    """The `Status` object of an answer; what else it says as its message."""
    try:
        document = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        document = None
    if isinstance(document, dict) and document.get("kind") == "Status":
        return document
    return {"message": response.text.strip()[:500] or f"HTTP status {response.status_code}"}
