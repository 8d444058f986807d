"""An issuer of tokens on a local port, and the event loop's thread as a queue."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

if TYPE_CHECKING:
    from collections.abc import Callable

AUDIENCE = "fieldpost-test"
_ALGORITHMS: dict[str, Any] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, kid: str | None, **more: Any) -> dict[str, Any]:
    """The public half of a key, as issuers publish it."""
    kind = "RSA" if isinstance(key, rsa.RSAPrivateKey) else "EC"
    kind = "OKP" if isinstance(key, ed25519.Ed25519PrivateKey) else kind
    document: dict[str, Any] = json.loads(_ALGORITHMS[kind].to_jwk(key.public_key()))
    document.pop("key_ops", None)
    return document | ({} if kid is None else {"kid": kid}) | more


def token(
    issuer: str,
    key: Any = RSA_KEY,
    kid: str | None = "one",
    algorithm: str = "RS256",
    headers: dict[str, Any] | None = None,
    **claims: Any,
) -> str:
    """A signed token; claims of None are left out."""
    given = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": "someone",
        "exp": int(time.time()) + 600,
        "scope": "openid fieldpost.infer",
    } | claims
    kept = {name: value for name, value in given.items() if value is not None}
    named = {} if kid is None else {"kid": kid}
    return jwt.encode(kept, key, algorithm=algorithm, headers=named | (headers or {}))


class Issuer:
    """Answers with a configuration and with keys; counts who asks."""

    def __init__(self) -> None:
        self.keys: list[Any] = [jwk(RSA_KEY, "one")]
        self.failures = 0
        self.requests: list[str] = []
        self.configuration: dict[str, Any] = {}
        self.body: bytes | None = None
        self.pause_s = 0.0  # before each byte of an answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                if outer.failures:
                    outer.failures -= 1
                    self.send_error(503)
                    return
                data = outer.answer(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # who has waited for long enough
                    for piece in [data] if not outer.pause_s else map(bytes, zip(data)):
                        time.sleep(outer.pause_s)
                        self.wfile.write(piece)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def answer(self, path: str) -> bytes:
        if path.endswith("openid-configuration"):
            document = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"} | self.configuration
            return json.dumps(document).encode()
        return json.dumps({"keys": self.keys}).encode() if self.body is None else self.body

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Loop:
    """What other threads post to the event loop, run by the test."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[Callable[..., object], tuple[Any, ...]]] = queue.Queue()

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        self._queue.put((function, arguments))

    def run(self, timeout_s: float = 15) -> None:
        """Runs the next callable that comes."""
        function, arguments = self._queue.get(timeout=timeout_s)
        function(*arguments)
