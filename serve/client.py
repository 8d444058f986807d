"""Scoring requests to a running server, with retries where waiting helps."""

from __future__ import annotations

import socket
import time
import uuid
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx
import orjson
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential_jitter,
)

from scoring.errors import (
    DeadlineExceededError,
    FieldpostError,
    ForbiddenError,
    InputError,
    OverloadedError,
    RateLimitedError,
    ScoringFailedError,
    TargetError,
    UnauthorizedError,
    UnknownModelError,
    UnreachableError,
)
from serve import trust

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_KINDS: dict[int, type[FieldpostError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    429: RateLimitedError,
    503: OverloadedError,
    504: DeadlineExceededError,
}
_ACCEPTED = 202
_OVER = frozenset({"succeeded", "failed", "cancelled"})
_LONGEST_PAUSE_S = 5.0
_SILENCE_S = 0.3  # a proxy before nobody hangs up sooner; a server waits longer for a request


class Client:
    """Sends scoring requests over kept connections.

    Args:
        url: A server's address; without a path, `/score` is meant.
        timeout_s: For one answer, the waiting in retries not counted.
        retry_s: How long a refused connection, a 429 or a 503 is tried again.
        headers: Sent with every request, such as `authorization`.
        ca: A PEM file of the authorities that are believed; empty for the usual ones.
        certificate: A PEM file of the server's own certificate, where it is at hand: believed
            where no authorities are given.

    Raises:
        UsageError: A file of certificates cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 60.0,
        retry_s: float = 5.0,
        headers: Mapping[str, str] | None = None,
        ca: str = "",
        certificate: str = "",
    ) -> None:
        self.url = scoring_url(url)
        self._http = httpx.Client(
            timeout=timeout_s,
            trust_env="://127.0.0.1" not in url,
            headers=dict(headers or {}),
            verify=trust.context(ca, certificate) or True,
        )
        self._retry_s = retry_s
        self._answered = False

    def score(self, document: object, headers: Mapping[str, str] | None = None) -> Any:
        """Posts a JSON document (or bytes as they are) and returns the decoded answer.

        Raises:
            InputError: The server refuses the request (4xx); the message is the server's.
            UnauthorizedError: It wants to know who asks, or does not know who that is.
            ForbiddenError: Whoever asks may not.
            RateLimitedError: There were too many requests, still after the retries.
            DeadlineExceededError: It was not answered within its time.
            OverloadedError: It has no room, still after the retries.
            ScoringFailedError: It failed (5xx), or answered something that is not JSON.
            UnreachableError: Nothing answers there, still after the retries.
            TargetError: The connection broke.
        """
        response = self._send(_encoded(document), headers or {})
        return _decode(response)

    def score_later(
        self,
        document: object,
        headers: Mapping[str, str] | None = None,
        *,
        wait_s: float | None = None,
        accepted: Callable[[str], None] = lambda _url: None,
    ) -> Any:
        """Has a request answered as a job, waits until that is over, and returns its answer.

        Args:
            document: See `score`.
            headers: Of the request.
            wait_s: The longest wait; None for as long as the server keeps the job.
            accepted: Called with the URL of the job, which goes on whatever becomes of this call.

        Raises:
            DeadlineExceededError: The job is not over by then; it goes on.
            FieldpostError: As `score` has it.
        """
        # A request that is sent twice, for its answer was lost, is one job.
        sent = {"prefer": "respond-async", "idempotency-key": uuid.uuid4().hex, **(headers or {})}
        response = self._send(_encoded(document), sent)
        place = response.headers.get("location", "")
        if response.status_code != _ACCEPTED or not place:
            return _decode(response)  # a server without jobs has answered at once
        url = urljoin(self.url, place)
        accepted(url)
        self._await(url, wait_s)
        return _decode(self._get(f"{url}/result"))

    def _await(self, url: str, wait_s: float | None) -> None:
        until = float("inf") if wait_s is None else time.monotonic() + wait_s
        pause_s = 0.05
        while True:
            job = _decode(self._get(url))
            if not isinstance(job, dict) or job.get("status") in _OVER:
                return
            if time.monotonic() + pause_s > until:
                raise DeadlineExceededError(
                    f"The job is {job.get('status')} after {wait_s:g} s.",
                    hint=f"It goes on: look at {url} again later.",
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        sent = {"content-type": "application/json", **headers}
        return self._retrying()(self._once, "POST", self.url, content=body, headers=sent)

    def _get(self, url: str) -> httpx.Response:
        return self._retrying()(self._once, "GET", url)

    def _once(self, method: str, url: str, **options: Any) -> httpx.Response:
        """One attempt; answers that another attempt may better are raised."""
        try:
            response = self._http.request(method, url, **options)
        except httpx.ConnectError as error:
            raise _not_connected(url, error) from error
        except httpx.TimeoutException as error:
            raise DeadlineExceededError(
                f"{url} did not answer in time.", hint="Wait longer, or have it answered later."
            ) from error
        except httpx.HTTPError as error:
            if not self._answered and _hangs_up(url):
                raise _not_connected(url, error) from error
            raise TargetError(f"The request to {url} failed: {error!r}.") from error
        self._answered = True
        if response.status_code in _RETRIED:
            raise _error(response)
        return response

    def _retrying(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type((UnreachableError, OverloadedError, RateLimitedError)),
            wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
            stop=stop_after_delay(self._retry_s),
            reraise=True,
        )


_RETRIED = frozenset({429, 503})
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def _hangs_up(url: str) -> bool:
    """Whether connections to it are closed at once, before anything is asked.

    A container engine's proxy takes connections for a server that does not listen yet, and drops
    them. A server that ended because of the request itself is not taken for one that is starting.
    """
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    try:
        with socket.create_connection(address, timeout=1.0) as connection:
            connection.settimeout(_SILENCE_S)
            return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError as error:
        return isinstance(error, ConnectionResetError)


def _not_connected(url: str, error: httpx.HTTPError) -> TargetError:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return TargetError(
            f"The certificate of {url} is not believed: {error}.",
            hint="Name the authority that has signed it (--ca FILE).",
        )
    return UnreachableError(
        f"Nothing answers at {url}: {error}.",
        hint="'fieldpost deployment list' tells what runs.",
    )


def _encoded(document: object) -> bytes:
    return document if isinstance(document, bytes) else orjson.dumps(document, option=_NUMPY)


def scoring_url(url: str) -> str:
    """The URL that takes scoring requests: `/score` is added where there is no path."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="/score")) if parts.path in ("", "/") else url


def score_url(
    url: str,
    body: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
    retry_s: float = 5.0,
) -> Any:
    """One request to a server; see `Client`."""
    with Client(url, timeout_s=timeout_s, retry_s=retry_s) as client:
        return client.score(body, headers)


def _decode(response: httpx.Response) -> Any:
    if not response.is_success:
        raise _error(response)
    return _json_or_text(response)


def _json_or_text(response: httpx.Response) -> Any:
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return response.text


def _error(response: httpx.Response) -> FieldpostError:
    """What an answer that is none says; the message is the server's."""
    answer = _json_or_text(response)
    message, where, hint = _reason(answer, response)
    kind = _KINDS.get(response.status_code)
    if kind is not None:
        return kind(message, hint=hint)
    if response.is_client_error:
        return _client_error(answer)(message, where=where, hint=hint)
    return ScoringFailedError(
        message, hint=hint or "'fieldpost deployment logs NAME' has the cause."
    )


def _client_error(answer: object) -> type[FieldpostError]:
    """The class that has the server's code: callers tell errors apart here as there."""
    error = answer.get("error") if isinstance(answer, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    kinds: list[type[FieldpostError]] = [UnknownModelError, *InputError.__subclasses__()]
    return next((kind for kind in kinds if kind.code == code), InputError)


def _reason(answer: object, response: httpx.Response) -> tuple[str, str, str]:
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if isinstance(error, dict):
        message = str(error.get("message", error))
        return message, str(error.get("where", "")), str(error.get("hint", ""))
    return f"The server answered {response.status_code}: {str(error)[:500]}", "", ""
