"""Connections to a registry and to the storage that it sends us to: pools, TLS and proxies.

Built on urllib3: nothing is read before it is asked for, nothing is followed or repeated by itself.
"""

from __future__ import annotations

import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import HTTPError

from scoring import __version__
from scoring.errors import RegistryError
from serve.distribution import faults
from serve.distribution.answers import Answer, failure
from serve.distribution.hosts import Hosts, Place
from serve.distribution.limits import Limits

Body = bytes | Callable[[], Iterable[bytes | memoryview]]

_HEADERS = {"User-Agent": f"fieldpost/{__version__}", "Accept-Encoding": "identity"}


class Connections:
    """Pools of connections; any number of threads may use them.

    Args:
        place: The registry.
        hosts: Its authorities and our certificate for it.
        limits: Times and numbers.
    """

    def __init__(self, place: Place, hosts: Hosts, limits: Limits) -> None:
        self._place = place
        self._hosts = hosts
        self._limits = limits
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, bool, bool], urllib3.PoolManager] = {}
        self._host = urlsplit(f"//{place.reference.host}").hostname

    def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None = None
    ) -> Answer:
        """One request, and what comes back for it.

        Raises:
            Passing: Nothing answers, or the connection breaks.
            UnreachableError: The certificate is not believed.
            RegistryError: The address cannot be asked.
        """
        registry = self._place.reference.registry
        try:
            raw = self._pool(url).request(
                method,
                url,
                headers={**_HEADERS, **headers},
                body=cast("Any", body() if callable(body) else body),  # memoryviews are sent, too
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=self._limits.connect_s, read=self._limits.read_s),
            )
        except (HTTPError, OSError) as error:
            raise failure(registry, error) from error
        except (ValueError, UnicodeError) as error:  # a URL or header that cannot be sent
            raise RegistryError(
                f"{registry} cannot be asked: {faults.printable(str(error))}.",
                hint="Check the registry's address.",
            ) from error
        return Answer(raw, url, registry, self._limits)

    def close(self) -> None:
        """Ends all connections."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def _pool(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = urllib.request.getproxies().get(parts.scheme, "")
        if proxy and urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
            proxy = ""
        key = (proxy, parts.scheme == "https", parts.hostname == self._host)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._new_pool(*key)
            return self._pools[key]

    def _new_pool(self, proxy: str, tls: bool, own: bool) -> urllib3.PoolManager:
        """Strangers see no certificate of ours, and are believed by the usual authorities alone."""
        size = self._limits.threads * 2
        context = None
        if tls:
            context = self._hosts.tls(self._place) if own else ssl.create_default_context()
        if not proxy:
            return urllib3.PoolManager(ssl_context=context, maxsize=size)
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        user, _, address = parts.netloc.rpartition("@")
        return urllib3.ProxyManager(
            urlunsplit(parts._replace(netloc=address)),
            proxy_headers=urllib3.make_headers(proxy_basic_auth=user) if user else None,
            ssl_context=context,
            maxsize=size,
        )
