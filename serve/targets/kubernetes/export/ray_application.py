"""A package of Fieldpost as a Ray Serve application: `serve run serve.yaml`.

Each replica runs the package's own server as its child, on an address that only this machine
reaches, and passes requests on: the answers are those of every other target. What is in `package/`
has to be what was exported, byte for byte, or the replica does not start.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp  # type: ignore[import-not-found, unused-ignore]
from ray import serve  # type: ignore[import-not-found, import-untyped, unused-ignore]
from starlette.requests import Request  # type: ignore[import-not-found, unused-ignore]
from starlette.responses import (  # type: ignore[import-not-found, unused-ignore]
    Response,
    StreamingResponse,
)

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "package"
MANIFEST = "package.json"

_HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
    *("trailer", "transfer-encoding", "upgrade"),
}
# Ray's own proxy tells them.
_TOLD_ALREADY = {"date", "server"}
_READ_BYTES = 1 << 16
_LEAVE_S = 30.0


def verify(digest: str) -> None:
    """Compares every file with what was exported; raises RuntimeError where one differs."""
    manifest = json.loads((HERE / MANIFEST).read_bytes())
    if manifest["package"] != digest:
        raise RuntimeError(f"{HERE} holds the package {manifest['package']}, not {digest}.")
    present = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*") if path.is_file()}
    for name in sorted(present ^ set(manifest["files"])):
        raise RuntimeError(f"{PACKAGE / name} is missing, or was not exported.")
    for name, wanted in manifest["files"].items():
        with (PACKAGE / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
                raise RuntimeError(f"{PACKAGE / name} is not what was exported.")


def interpreter() -> str:
    """A Python of the version that the package's compiled modules are made for."""
    wanted = json.loads((PACKAGE / "env" / "environment.json").read_bytes())["python"]
    if wanted == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{wanted}")
    if found is None:
        raise RuntimeError(f"The package needs Python {wanted}, which is not on this machine.")
    return found


def from_here(names: list[str]) -> dict[str, str]:
    """Variables of this replica; raises RuntimeError where one is missing."""
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise RuntimeError(
            f"The replica lacks the variables {', '.join(missing)}: give them to Ray, by "
            "runtime_env: {env_vars: …} in serve.yaml or before it is started."
        )
    return {name: os.environ[name] for name in names}


class Server:
    """The package's server, which ends when this process does.

    Args:
        variables: Its settings.
    """

    def __init__(self, variables: dict[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            status, told = os.pipe()
            lifeline, self._lifeline = os.pipe()
            self._process = self._start(variables, listener.fileno(), told, lifeline)
        for fd in (told, lifeline):
            os.close(fd)
        with os.fdopen(status, "rb") as file:
            line = file.readline()
        document = json.loads(line or b"{}")
        if document.get("state") != "ready":
            why = document.get("error", {}).get("message", "it ended without a word")
            raise RuntimeError(f"The package does not start: {why}\n{document.get('detail', '')}")

    def _start(
        self, variables: dict[str, str], listener: int, told: int, lifeline: int
    ) -> subprocess.Popen[bytes]:
        contract = {
            "FIELDPOST_LISTEN_FD": str(listener),
            "FIELDPOST_STATUS_FD": str(told),
            "FIELDPOST_LIFELINE_FD": str(lifeline),
        }
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
        boot = PACKAGE / "runtime" / "scoring" / "boot.py"
        return subprocess.Popen(  # noqa: S603 - the package's own
            [interpreter(), "-I", "-S", "-X", "utf8", str(boot), str(PACKAGE)],
            cwd=PACKAGE,
            env={**kept, "LANG": "C.UTF-8", **variables, **contract},
            pass_fds=(listener, told, lifeline),
            stdin=subprocess.DEVNULL,
        )

    def check(self) -> None:
        """Raises where it has ended: Ray starts the replica again."""
        status = self._process.poll()
        if status is not None:
            raise RuntimeError(f"The package's server ended with status {status}.")

    def close(self) -> None:
        """Lets it answer what it has begun."""
        with contextlib.suppress(OSError):
            os.close(self._lifeline)
        try:
            self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()


@serve.deployment
class Package:
    """One replica.

    Args:
        digest: Of the package that has to be here.
        variables: The settings of its server.
        passed: Names of variables that the server gets from here.
    """

    def __init__(self, digest: str, variables: dict[str, str], passed: list[str]) -> None:
        verify(digest)
        self._server = Server({**variables, **from_here(passed)})
        self._session: aiohttp.ClientSession | None = None

    def check_health(self) -> None:
        """Asked by Ray every few seconds."""
        self._server.check()

    async def __call__(self, request: Request) -> Response:
        """Passes a request on, and the answer back."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            )
        answer = await self._session.request(
            request.method,
            self._server.url + _target(request),
            headers=[
                (key.decode("latin-1"), value.decode("latin-1"))
                for key, value in request.headers.raw
                if key.decode("latin-1").lower() not in _HOP_BY_HOP | {"content-length"}
            ],
            data=await request.body() or None,
            allow_redirects=False,
        )
        return await _answer(answer)

    async def __del__(self) -> None:
        """Called by Ray when the replica has answered what it had."""
        if self._session is not None:
            await self._session.close()
        await asyncio.to_thread(self._server.close)


def _target(request: Request) -> str:
    """Path and query as they were sent, below the route of the application."""
    path = request.scope.get("raw_path") or request.scope["path"].encode()
    prefix = request.scope.get("root_path", "").encode()
    target = path.removeprefix(prefix).decode("latin-1") or "/"
    query = request.scope.get("query_string", b"").decode("latin-1")
    return f"{target}?{query}" if query else target


async def _answer(answer: aiohttp.ClientResponse) -> Response:
    headers = [
        (key.lower(), value)
        for key, value in answer.raw_headers
        if key.decode("latin-1").lower() not in _HOP_BY_HOP | _TOLD_ALREADY
    ]
    response: Response
    if "content-length" in answer.headers:
        response = Response(await answer.read(), answer.status)
    else:
        response = StreamingResponse(answer.content.iter_chunked(_READ_BYTES), answer.status)
    response.raw_headers = headers
    return response


def app(args: dict[str, Any]) -> Any:
    """The application, as `serve.yaml` names it.

    Args:
        args: `package`, a digest, `settings`, the variables of the server, and `variables`, the
            names of those that it takes from the replica's own environment.
    """
    settings = {str(key): str(value) for key, value in args.get("settings", {}).items()}
    passed = [str(name) for name in args.get("variables", ())]
    deployment: Any = Package
    return deployment.bind(str(args["package"]), settings, passed)
