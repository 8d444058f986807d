"""Requests through a proxy, which urllib3 knows in all kinds."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import (
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as WaitedError

from serve.distribution.exchange import (
    Content,
    CutOffError,
    Headers,
    NotConnectedError,
    ProxyFailedError,
    Raw,
)

if TYPE_CHECKING:
    from serve.distribution.limits import Limits

_SHORT_BYTES = 4 << 10
_SILENT = (NewConnectionError, NameResolutionError, SSLError)


class ProxiedExchange:
    """As `Exchange`, through one proxy.

    Args:
        proxy: Its URL; with or without a login.
        limits: Times and numbers.
        context: What is believed of hosts behind it.
    """

    def __init__(self, proxy: str, limits: Limits, context: ssl.SSLContext | None) -> None:
        self._limits = limits
        url, user, self._proxy = _split(proxy)
        self._pool = urllib3.ProxyManager(
            url,
            proxy_headers=_login(user) if user else None,
            ssl_context=context,
            maxsize=limits.threads * 2,
        )

    def ask(self, method: str, url: str, headers: Mapping[str, str], body: Content) -> Raw:
        """As `Exchange.ask`."""
        wait = urllib3.Timeout(connect=self._limits.connect_s, read=self._limits.read_s)
        try:
            answer = self._pool.request(
                method,
                url,
                headers=dict(headers),
                body=cast("Any", body),  # memoryviews are sent, too
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=wait,
            )
        except ProxyError as error:
            raise ProxyFailedError(self._proxy, _said(error)) from error
        except HTTPError as error:
            raise _translated(error) from error
        return _Answer(answer)

    def close(self) -> None:
        """Ends all connections."""
        self._pool.clear()


def _split(proxy: str) -> tuple[str, str, str]:
    """A proxy's URL without its login, the login, host and port.

    Raises:
        ValueError: It is no URL of a proxy. It is not quoted: a password may be in it.
    """
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        user, _, address = parts.netloc.rpartition("@")
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        usable = usable and parts.port != 0 and parts.path in {"", "/"}
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("the proxy in the environment is no http://HOST:PORT") from None
    return urlunsplit((parts.scheme, address, "", "", "")), user, address


def _login(user: str) -> dict[str, str]:
    """A login as it stands in a URL, as a header; who has no password sends an empty one."""
    name, _, password = user.partition(":")
    joined = f"{unquote(name)}:{unquote(password)}".encode()
    return {"proxy-authorization": f"Basic {base64.b64encode(joined).decode()}"}


def _said(error: ProxyError) -> str:
    """What a proxy answers instead of a connection; empty where it is not even reached."""
    said = str(error.original_error)
    return said.partition("failed: ")[2] if said.startswith("Tunnel connection failed") else ""


class _Answer:
    def __init__(self, raw: urllib3.BaseHTTPResponse) -> None:
        self.status = raw.status
        self.headers = cast("Headers", raw.headers)
        self._raw = raw

    @property
    def left(self) -> int | None:
        return self._raw.length_remaining

    def read(self, size: int) -> bytes:
        try:
            return self._raw.read1(size)
        except HTTPError as error:
            raise _translated(error) from error

    def close(self) -> None:
        if not self._raw.closed:
            left = self.left
            if left is not None and left <= _SHORT_BYTES:
                self._raw.drain_conn()
            else:
                self._raw.close()
        self._raw.release_conn()


def _translated(error: HTTPError) -> Exception:
    if isinstance(error, _SILENT):
        return NotConnectedError(str(error))
    return TimeoutError(str(error)) if isinstance(error, WaitedError) else CutOffError(str(error))
