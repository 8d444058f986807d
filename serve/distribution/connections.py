"""Connections to a registry and to the storage that it sends us to: TLS, proxies, what fails."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scoring import __version__
from scoring.errors import RegistryError
from serve.distribution import faults
from serve.distribution.answers import Answer, failure
from serve.distribution.exchange import CutOffError, Exchange, NotConnectedError
from serve.distribution.hosts import Hosts, Place, is_loopback, within
from serve.distribution.limits import Limits

if TYPE_CHECKING:
    import ssl

    from serve.distribution.proxied import ProxiedExchange

Body = bytes | Callable[[], Iterable[bytes | memoryview]]

_HEADERS = {"User-Agent": f"fieldpost/{__version__}", "Accept-Encoding": "identity"}


class Connections:
    """Connections that are kept; any number of threads may use them.

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
        self._host = urlsplit(f"//{place.reference.host}").hostname
        self._direct = Exchange(limits, self._tls)
        self._proxied: dict[tuple[str, bool, bool], ProxiedExchange] = {}
        self._contexts: dict[bool, ssl.SSLContext] = {}

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
        content = body() if callable(body) else body
        try:
            raw = self._exchange(url).ask(method, url, {**_HEADERS, **headers}, content)
        except (NotConnectedError, CutOffError, OSError) as error:
            raise failure(registry, error, self._beyond(url)) from error
        except (ValueError, UnicodeError) as error:  # a URL or header that cannot be sent
            raise RegistryError(
                f"{registry} cannot be asked: {faults.printable(str(error))}.",
                hint="Check the registry's address, and the proxy's (HTTPS_PROXY, HTTP_PROXY).",
            ) from error
        return Answer(raw, url, registry, self._limits)

    def _beyond(self, url: str) -> str:
        """The host of a URL where it is not the registry's own; empty for that."""
        host = urlsplit(url).netloc.rpartition("@")[2]
        return "" if host == self._place.reference.host else host

    def close(self) -> None:
        """Ends all connections."""
        self._direct.close()
        with self._lock:
            for each in self._proxied.values():
                each.close()
            self._proxied.clear()

    def _exchange(self, url: str) -> Exchange | ProxiedExchange:
        parts = urlsplit(url)
        proxy = find_proxy(parts.scheme, parts.netloc.rpartition("@")[2])
        if not proxy:
            return self._direct
        from serve.distribution.proxied import ProxiedExchange  # noqa: PLC0415 - heavy, and rare

        tls, own = parts.scheme == "https", parts.hostname == self._host
        context = self._tls(parts.hostname or "") if tls else None
        with self._lock:
            key = (proxy, tls, own)
            if key not in self._proxied:
                self._proxied[key] = ProxiedExchange(proxy, self._limits, context)
            return self._proxied[key]

    def _tls(self, host: str) -> ssl.SSLContext:
        """Strangers see no certificate of ours, and are believed by the usual authorities alone."""
        import ssl  # noqa: PLC0415 - beside its only use

        own = host == self._host
        with self._lock:
            if own not in self._contexts:
                made = self._hosts.tls(self._place) if own else ssl.create_default_context()
                self._contexts[own] = made
            return self._contexts[own]


def find_proxy(scheme: str, host: str) -> str:
    """The proxy that the environment names for a host; empty for none.

    Args:
        scheme: What the host is asked over.
        host: With its port, where it has one. This machine itself is never behind a proxy.
    """
    if sys.platform == "linux" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return ""
    from urllib import request  # noqa: PLC0415 - heavy

    proxy = request.getproxies().get(scheme, "")
    if not proxy or is_loopback(host) or request.proxy_bypass(host) or _is_excepted(host):
        return ""
    return proxy


def _is_excepted(host: str) -> bool:
    """Whether `NO_PROXY` has a form for the host that engines know: a network, or `*.NAME`."""
    text = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    for entry in (each.strip().lower() for each in text.split(",")):
        if entry.startswith("*.") and name.lower().endswith(entry[1:]):
            return True
        if "/" in entry and within(name, entry):
            return True
    return False
