"""TLS by files, which are read again when they change.

New files go into a new context; the one that the listening socket has hands each handshake over to
the newest. So a certificate authority that was taken out of the file is out, which a context that
is loaded twice would not forget.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.errors import UsageError
from serve.server.access.watched import Watched

if TYPE_CHECKING:
    from serve.server.settings import ServerSettings

logger = logging.getLogger(__name__)

PROTOCOLS = ["h2", "http/1.1"]


class _PassphraseError(Exception):
    """The key asks for one."""


def context(settings: ServerSettings) -> ssl.SSLContext | None:
    """The context of a server's certificate; None where it has none.

    Raises:
        UsageError: A file is missing, broken, does not fit the others, or is behind a passphrase.
    """
    if not settings.tls_cert:
        if settings.tls_client_ca:
            raise UsageError(
                "tls_client_ca is given without tls_cert: clients show certificates in TLS alone.",
                hint="Give tls_cert and tls_key, too.",
                where="tls_client_ca",
            )
        return None
    return _load(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def _load(cert: str, key: str, client_ca: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(PROTOCOLS)
    _load_pair(made, cert, key)
    if client_ca:
        _load_authorities(made, client_ca)
        made.verify_mode = ssl.CERT_REQUIRED
        # A session that is resumed is not verified again, whoever was taken out meanwhile. (TLS 1.2
        # has another kind, which cannot be turned off: it lasts two hours, or until a restart.)
        made.options |= ssl.OP_NO_TICKET
        made.num_tickets = 0
    return made


def _load_pair(made: ssl.SSLContext, cert: str, key: str) -> None:
    for path, where in ((cert, "tls_cert"), (key, "tls_key")):
        _require_readable(path, where)
    try:
        made.load_cert_chain(cert, key, password=_refuse_passphrase)
    except _PassphraseError:
        raise UsageError(
            f"The key {key} is behind a passphrase, which nobody could enter after a restart.",
            hint=f"Take it off: openssl pkey -in {key} -out KEY.pem; protect the file instead.",
            where="tls_key",
        ) from None
    except (ssl.SSLError, OSError) as error:
        raise UsageError(
            f"The certificate {cert} and the key {key} cannot be used: {_reason(error)}.",
            hint="Both have to be PEM, the certificate first in its chain, and of one key pair.",
            where="tls_cert",
        ) from None


def _load_authorities(made: ssl.SSLContext, path: str) -> None:
    _require_readable(path, "tls_client_ca")
    try:
        made.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise UsageError(
            f"The authorities in {path} cannot be used: {_reason(error)}.",
            hint="Give a PEM file of the certificates that sign those of your clients.",
            where="tls_client_ca",
        ) from None


def _require_readable(path: str, where: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise UsageError(
            f"The file {path} cannot be read: {error.strerror}.", where=where
        ) from None


def _refuse_passphrase() -> str:
    raise _PassphraseError


def _reason(error: OSError) -> str:
    """What OpenSSL says, in its own words and without its numbers."""
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return (reason or str(error)).replace("_", " ").lower()


class Reloader:
    """Looks whether the files of a context have changed, and lets new handshakes have the new ones.

    Connections that are open go on as they began.

    Args:
        context: What `context` gave, and the server listens with.
        settings: Of the same server.
    """

    def __init__(self, context: ssl.SSLContext, settings: ServerSettings) -> None:
        self._context = context
        self._files = (settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        self._watched = Watched([Path(file) for file in self._files if file])

    def check(self) -> bool:
        """Reads the files if they are others than before; called about twice a second.

        Where they do not fit, as when only one of two was written yet, the old ones stay.

        Returns:
            Whether new handshakes get another certificate from now on.
        """
        if not self._watched.changed():
            return False
        try:
            newest = _load(*self._files)
        except UsageError as error:
            logger.error("The TLS certificate stays as it was: %s", error)  # noqa: TRY400
            return False
        logger.info("Read the TLS certificate %s", self._files[0])

        def hand_over(
            connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _old: ssl.SSLContext
        ) -> None:
            connection.context = newest

        self._context.sni_callback = hand_over
        return True
