"""Whom a client of a server with TLS believes."""

from __future__ import annotations

import os
import re
import ssl

from scoring.errors import UsageError

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def context(ca: str = "", certificate: str = "") -> ssl.SSLContext | None:
    """What a connection is checked with; None for the usual authorities.

    Args:
        ca: A PEM file of authorities.
        certificate: A PEM file that begins with the server's own certificate: without authorities
            that one, and no other, is believed, whatever host it names.

    Where neither is given, `$SSL_CERT_FILE` holds the authorities.

    Raises:
        UsageError: A file cannot be read, or holds no certificate.
    """
    if not ca and not certificate:
        ca = os.environ.get("SSL_CERT_FILE", "")
        if not ca:
            return None
    try:
        return ssl.create_default_context(cafile=ca) if ca else _pinned(certificate)
    except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The certificates in {ca or certificate} cannot be read: {error}.",
            hint="Give a PEM file.",
            where="ca",
        ) from error


def _pinned(path: str) -> ssl.SSLContext:
    with open(path, encoding="ascii") as file:  # noqa: PTH123 - a text from the settings
        found = _CERTIFICATE.search(file.read())
    if found is None:
        raise UsageError(f"{path} holds no certificate.", hint="Give a PEM file.", where="ca")
    made = ssl.create_default_context(cadata=found[0])
    made.check_hostname = False  # this machine is reached by other names than the certificate has
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return made
