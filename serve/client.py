"""Scoring requests to a running server, with retries where waiting helps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit, urlunsplit

import httpx
import orjson
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential_jitter,
)

from scoring.errors import (
    InputError,
    OverloadedError,
    ScoringFailedError,
    TargetError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class Client:
    """Sends scoring requests over kept connections.

    Args:
        url: A server's address; without a path, `/score` is meant.
        timeout_s: For one answer, the waiting in retries not counted.
        retry_s: How long a refused connection or a 503 is tried again.
    """

    def __init__(self, url: str, *, timeout_s: float = 60.0, retry_s: float = 5.0) -> None:
        self.url = scoring_url(url)
        self._http = httpx.Client(timeout=timeout_s, trust_env="://127.0.0.1" not in url)
        self._retry_s = retry_s

    def score(self, document: object, headers: Mapping[str, str] | None = None) -> Any:
        """Posts a JSON document (or bytes as they are) and returns the decoded answer.

        Raises:
            InputError: The server refuses the request (4xx); the message is the server's.
            OverloadedError: It has no room, still after the retries.
            ScoringFailedError: It failed (5xx), or answered something that is not JSON.
            UnreachableError: Nothing answers there, still after the retries.
            TargetError: The connection broke.
        """
        body = document if isinstance(document, bytes) else orjson.dumps(document, option=_NUMPY)
        sent = {"content-type": "application/json", **(headers or {})}
        for attempt in self._retrying():
            with attempt:
                return _decode(self._post(body, sent))
        raise AssertionError("tenacity ends with a value or an error")

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        try:
            return self._http.post(self.url, content=body, headers=dict(headers))
        except httpx.ConnectError as error:
            raise UnreachableError(
                f"Nothing answers at {self.url}: {error}.",
                hint="'fieldpost deployment list' tells what runs.",
            ) from error
        except httpx.HTTPError as error:
            raise TargetError(f"The request to {self.url} failed: {error!r}.") from error

    def _retrying(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type((UnreachableError, OverloadedError)),
            wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
            stop=stop_after_delay(self._retry_s),
            reraise=True,
        )


_NUMPY = orjson.OPT_SERIALIZE_NUMPY


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
    try:
        answer = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        answer = response.text
    if response.is_success:
        return answer
    message, where, hint = _reason(answer, response)
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise OverloadedError(message, hint=hint)
    if response.is_client_error:
        raise _input_error(answer)(message, where=where, hint=hint)
    raise ScoringFailedError(
        message, hint=hint or "'fieldpost deployment logs NAME' has the cause."
    )


def _input_error(answer: object) -> type[InputError]:
    """The class that has the server's code: callers tell errors apart here as there."""
    error = answer.get("error") if isinstance(answer, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    kinds: list[type[InputError]] = [InputError, *InputError.__subclasses__()]
    return next((kind for kind in kinds if kind.code == code), InputError)


def _reason(answer: object, response: httpx.Response) -> tuple[str, str, str]:
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if isinstance(error, dict):
        message = str(error.get("message", error))
        return message, str(error.get("where", "")), str(error.get("hint", ""))
    return f"The server answered {response.status_code}: {str(error)[:500]}", "", ""
