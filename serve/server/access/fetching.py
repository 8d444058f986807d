"""Fetches an issuer's keys over HTTP. Imported when it is needed, for what it needs is large."""

from __future__ import annotations

from time import monotonic

import httpx
import msgspec
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from serve.server.access.issuer import require_safe

_TIMEOUT_S = 5.0
_WHOLE_S = 10.0  # for one answer, however slowly its parts come
_MOST_BYTES = 1 << 20
_SERVER_ERRORS = 500
_TOO_MANY = 429


class FetchError(Exception):
    """The answer is none that keys could be in."""


def signing_keys(issuer: str, location: str) -> bytes:
    """The document of an issuer's keys.

    Args:
        issuer: Its URL.
        location: Of the keys; empty to ask the issuer's configuration for it.

    Raises:
        httpx.HTTPError: It cannot be reached, or answers with an error.
        FetchError: What it answers is not what it should be.
        UsageError: It names a place that would be read without TLS.
    """
    with httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False) as client:
        return _get(client, location or _discover(client, issuer))


def _discover(client: httpx.Client, issuer: str) -> str:
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    try:
        document = msgspec.json.decode(_get(client, url), type=dict[str, object])
    except msgspec.DecodeError as error:
        raise FetchError(f"{url} is no OpenID configuration: {error}") from None
    if document.get("issuer") != issuer:
        raise FetchError(f"{url} is of the issuer {document.get('issuer')!r}, not {issuer!r}")
    location = document.get("jwks_uri")
    if not isinstance(location, str):
        raise FetchError(f"{url} does not say where the keys are")
    require_safe(location, "jwks_uri")
    return location


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status >= _SERVER_ERRORS or status == _TOO_MANY
    return isinstance(error, httpx.TransportError)


@retry(
    retry=retry_if_exception(_may_pass),
    stop=stop_after_attempt(3),
    wait=wait_random_exponential(multiplier=0.2, max=2),
    reraise=True,
)
def _get(client: httpx.Client, url: str) -> bytes:
    body = bytearray()
    latest = monotonic() + _WHOLE_S
    with client.stream("GET", url) as response:
        response.raise_for_status()
        for part in response.iter_bytes():
            body += part
            if len(body) > _MOST_BYTES:
                raise FetchError(f"{url} answers with more than {_MOST_BYTES} bytes")
            if monotonic() > latest:
                raise FetchError(f"{url} takes more than {_WHOLE_S:g} s to answer")
    return bytes(body)
