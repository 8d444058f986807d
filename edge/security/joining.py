"""The device's side of HTTPS: joining, renewing, metadata, the time. Standard library alone.

A token names the authority by its digest: the device asks for the authority's certificate without
believing the answer, compares, and shows its token only to a server this authority vouches for.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import ssl
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from edge.protocol import messages
from edge.security import claims, freshtime, identity, letters
from edge.security.claims import Claim
from edge.security.identity import Identity
from edge.security.letters import EnrolAnswer, EnrolRequest
from edge.security.trust import DeviceTrust
from scoring.errors import (
    EnrolmentError,
    PayloadTooLargeError,
    UnreachableError,
    UsageError,
    VerificationError,
)

logger = logging.getLogger(__name__)

_MOST_ANSWER: Final = 1024 * 1024
_CHUNK: Final = 16 * 1024
_OK, _NOT_FOUND = 200, 404
_BAD_REQUEST, _SERVER_ERROR = 400, 500
_NOT_YET_VALID: Final = 9
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID: this device's clock is behind."""


class Controller:
    """A controller's HTTPS address.

    Args:
        url: `https://HOST[:PORT]`.
        context: How to know it; asked again for each connection.
        timeout_s: For all of one request.

    Raises:
        UsageError: The URL is none.
    """

    def __init__(self, url: str, context: ssl.SSLContext, *, timeout_s: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path not in {"", "/"}:
            raise UsageError(
                f"{url[:200]!a} is no controller's address.",
                hint="It looks like https://HOST:PORT.",
            )
        self._host, self._port = parts.hostname, parts.port or 443
        self._context = context
        self._timeout_s = timeout_s

    def get(self, path: str, most_bytes: int = _MOST_ANSWER) -> bytes | None:
        """What is at a path; None where there is nothing. Raises like `post`."""
        status, body = self._request("GET", path, None, most_bytes)
        if status == _NOT_FOUND:
            return None
        return _require_ok(status, body)

    def post(self, path: str, message: messages.Message) -> bytes:
        """The answer to a message.

        Raises:
            UnreachableError: Nobody answers, or the server fails.
            VerificationError: It is not whom the authority vouches for.
            EnrolmentError: It refuses.
            PayloadTooLargeError: It answers without end.
        """
        status, body = self._request("POST", path, messages.encode(message), _MOST_ANSWER)
        return _require_ok(status, body)

    def fetch(self, name: str, most_bytes: int) -> bytes | None:
        """Metadata, as `DeviceTrust` asks for it."""
        return self.get(letters.METADATA + name, most_bytes)

    def _request(
        self, method: str, path: str, body: bytes | None, most_bytes: int
    ) -> tuple[int, bytes]:
        deadline = time.monotonic() + self._timeout_s
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout_s, context=self._context
        )
        with contextlib.closing(connection):
            try:
                headers = {"Connection": "close", "Accept": "application/json"}
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                return answer.status, _read(connection, answer, most_bytes, deadline)
            except ssl.SSLCertVerificationError as error:
                raise _stranger(self._host, error) from error
            except (OSError, http.client.HTTPException) as error:
                raise UnreachableError(
                    f"The controller at {self._host}:{self._port} does not answer: {error}.",
                    hint="Check the address and the network; an agent that runs tries again, "
                    "'join' has to be given again.",
                ) from error


def _read(
    connection: http.client.HTTPSConnection,
    answer: http.client.HTTPResponse,
    most_bytes: int,
    deadline: float,
) -> bytes:
    """The body: no longer than allowed, and no slower."""
    body = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer is too slow")
        if connection.sock is not None:
            connection.sock.settimeout(left)
        chunk = answer.read1(_CHUNK)
        if not chunk:
            break
        body += chunk
        if len(body) > most_bytes:
            raise PayloadTooLargeError(f"The answer has more than {most_bytes} bytes.")
    if answer.length:
        raise http.client.IncompleteRead(bytes(body), answer.length)
    return bytes(body)


def _require_ok(status: int, body: bytes) -> bytes:
    if status == _OK:
        return body
    text = _message(body)
    if _BAD_REQUEST <= status < _SERVER_ERROR:
        raise EnrolmentError(f"The controller refuses ({status}): {text}")
    raise UnreachableError(f"The controller fails ({status}): {text}")


def _message(body: bytes) -> str:
    try:
        error = msgspec.json.decode(body)["error"]
        return f"{error['message']} {error.get('hint', '')}".strip()[:1000]
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return "it does not say why."


def _stranger(host: str, error: ssl.SSLCertVerificationError) -> VerificationError:
    hint = "Check the address, and this device's clock."
    if error.verify_code == _NOT_YET_VALID:
        hint = "This device's clock is behind."
    return VerificationError(
        f"{host} is not the controller that the fleet's authority vouches for: "
        f"{error.verify_message}.",
        hint=hint,
    )


def join(url: str, token: str, folder: Path, *, timeout_s: float = 30.0) -> Identity:
    """Enrols this device. Repeated after a lost answer or a crash, it goes on where it was.

    Args:
        url: Of the controller.
        token: The claim.
        folder: Where the identity is to be.
        timeout_s: For each request.

    Raises:
        EnrolmentError: The token is none, used or expired.
        VerificationError: The server is not the one that the token was made for.
        UnreachableError: It does not answer.
        UsageError: The URL is none.
    """
    claim = claims.parse(token)
    if identity.exists(folder) and Identity(folder).about.claim == claim.id:
        return Identity(folder)
    authority = _authority(url, claim, timeout_s)
    asked = EnrolRequest(token=token.strip(), csr=identity.request(folder).decode())
    answer = messages.decode(_post_pinned(url, authority, asked, timeout_s), EnrolAnswer)
    _require_promised(claim, answer)
    return identity.accept(folder, answer, claim=claim.id)


def _authority(url: str, claim: Claim, timeout_s: float) -> str:
    """The authority's certificate, from a server that is not believed: its digest decides."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    pem = Controller(url, anyone, timeout_s=timeout_s).get(letters.AUTHORITY) or b""
    if not _is_pinned(pem.decode(errors="replace"), claim):
        raise VerificationError(
            "The server is not of the fleet that the token was made for.",
            hint="Check the URL; someone may stand between.",
        )
    return pem.decode()


def _is_pinned(pem: str, claim: Claim) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        return False
    return certificate.fingerprint(hashes.SHA256()) == claim.authority


def _post_pinned(url: str, authority: str, asked: EnrolRequest, timeout_s: float) -> bytes:
    context = identity.authority_context(authority)
    try:
        return Controller(url, context, timeout_s=timeout_s).post(letters.ENROL, asked)
    except VerificationError as error:
        cause = error.__cause__
        behind = isinstance(cause, ssl.SSLCertVerificationError)
        if not behind or cause.verify_code != _NOT_YET_VALID:  # type: ignore[union-attr]
            raise
        # A device without a battery wakes in 1970. All but the dates is checked as before.
        logger.warning("clock behind: certificates' dates are not looked at while joining")
        context = identity.authority_context(authority, no_dates=True)
        return Controller(url, context, timeout_s=timeout_s).post(letters.ENROL, asked)


def _require_promised(claim: Claim, answer: EnrolAnswer) -> None:
    if not _is_pinned(answer.authority, claim):
        raise VerificationError("The controller answers with another authority than the token's.")
    digest = hashlib.sha256(answer.root.encode()).digest() if answer.root else bytes(32)
    if digest != claim.root:
        raise VerificationError(
            "The controller answers with another root of trust than the token was made with.",
            hint="Make a new token; if it happens again, the controller was broken into.",
        )


def renew(url: str, own: Identity, *, timeout_s: float = 30.0) -> Identity:
    """Gets the next certificate; works with an expired one, too. Raises like `Controller.post`."""
    # The old certificate goes inside the request: TLS would refuse it once it has expired.
    context = identity.authority_context(own.authority_file.read_text())
    answer = Controller(url, context, timeout_s=timeout_s).post(letters.RENEW, own.renewal())
    return own.renewed(messages.decode(answer, EnrolAnswer))


def ask_time(url: str, own: Identity, trust: DeviceTrust, *, timeout_s: float = 30.0) -> float:
    """What time it is, signed by a director, for a device whose clock may be years off.

    Raises:
        VerificationError: The answer is not signed, or is another question's.
        ExpiredError: It came too late to say anything.
        UnreachableError: Nobody answers.
    """
    context = identity.authority_context(own.authority_file.read_text(), no_dates=True)
    nonce, asked = freshtime.ask(), time.monotonic()
    controller = Controller(url, context, timeout_s=timeout_s)
    answer = controller.post(letters.TIME, letters.TimeRequest(nonce=nonce))
    return trust.verify_time(answer, nonce, time.monotonic() - asked)
