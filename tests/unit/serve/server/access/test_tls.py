"""TLS: real handshakes over uvloop, clients' certificates, files that change under load."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, Self, cast

import pytest
import uvloop

from scoring.errors import UsageError
from serve.server.access import tls
from serve.server.settings import ServerSettings
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Echo(asyncio.Protocol):
    """Says back what it hears."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class Server:
    """A TLS server in a thread, and its reloader."""

    def __init__(self, settings: ServerSettings) -> None:
        made = tls.context(settings)
        assert made is not None
        self.context = made
        self.reloader = tls.Reloader(made, settings)
        self._loop = uvloop.new_event_loop()
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def check(self) -> bool:
        """Looks for new files on the loop's thread, as a tick does."""

        async def look() -> bool:
            return self.reloader.check()

        return asyncio.run_coroutine_threadsafe(look(), self._loop).result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await self._loop.create_server(Echo, "127.0.0.1", 0, ssl=self.context)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        await server.wait_closed()


class Files:
    """The certificate of a server, and who trusts it."""

    def __init__(self, folder: Path, *, mutual: bool = False) -> None:
        self.folder = folder
        self.authority = Authority()
        self.trusted = self.authority.write(folder / "ca.pem")
        cert, key = self.authority.issue(folder, "server")
        self.settings = ServerSettings(
            tls_cert=str(cert), tls_key=str(key), tls_client_ca=str(self.trusted) if mutual else ""
        )

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.trusted))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context


def talk(
    port: int, context: ssl.SSLContext, name: str | None = "localhost", session: object = None
) -> ssl.SSLSocket:
    """Connects and exchanges a word; the server's refusal may come with the first answer."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=10)
    try:
        wrapped = context.wrap_socket(raw, server_hostname=name, session=session)  # type: ignore[arg-type]
    except BaseException:
        raw.close()
        raise
    try:
        wrapped.sendall(b"word")
        answer = wrapped.recv(4)
    except BaseException:
        wrapped.close()
        raise
    if answer != b"word":
        wrapped.close()
        raise ConnectionResetError("no answer")
    return wrapped


def subject(connection: ssl.SSLSocket) -> str:
    certificate: Any = connection.getpeercert()
    (((_, name),),) = certificate["subject"]
    return str(name)


def test_without_a_certificate_there_is_no_context() -> None:
    assert tls.context(ServerSettings()) is None
    with pytest.raises(UsageError, match="tls_cert"):
        tls.context(ServerSettings(tls_client_ca="ca.pem"))


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), (["spdy"], None), (None, None)],
)
def test_a_handshake_chooses_the_protocol(
    tmp_path: Path, offered: list[str] | None, chosen: str | None
) -> None:
    files = Files(tmp_path)
    context = files.client()
    if offered:
        context.set_alpn_protocols(offered)
    with Server(files.settings) as server, talk(server.port, context) as connection:
        assert connection.version() == "TLSv1.3"
        assert connection.selected_alpn_protocol() == chosen


def test_old_versions_are_refused(tmp_path: Path) -> None:
    files = Files(tmp_path)
    context = files.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Server(files.settings) as server:
        with talk(server.port, context) as connection:
            assert connection.version() == "TLSv1.2"
        assert server.context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_clients_certificate_is_asked_for(tmp_path: Path) -> None:
    files = Files(tmp_path, mutual=True)
    good = files.client(files.authority.issue(tmp_path, "friend"))
    stranger = files.client(Authority("other").issue(tmp_path, "stranger"))
    with Server(files.settings) as server:
        talk(server.port, good).close()
        for context in (files.client(), stranger):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                talk(server.port, context)
        talk(server.port, good).close()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_new_certificate_is_for_new_handshakes(tmp_path: Path, name: str) -> None:
    files = Files(tmp_path)
    context = files.client()
    with Server(files.settings) as server, talk(server.port, context, name) as before:
        assert not server.check()
        renewed = files.authority.issue(tmp_path, "renewed")
        _replace(files, renewed)
        assert server.check()
        assert not server.check()
        with talk(server.port, context, name) as after:
            assert (subject(before), subject(after)) == ("server", "renewed")
        before.sendall(b"more")
        assert before.recv(4) == b"more"


def test_the_new_context_speaks_the_same_protocols(tmp_path: Path) -> None:
    files = Files(tmp_path)
    context = files.client()
    context.set_alpn_protocols(["h2"])
    with Server(files.settings) as server:
        _replace(files, files.authority.issue(tmp_path, "renewed"))
        assert server.check()
        with talk(server.port, context) as connection:
            assert connection.selected_alpn_protocol() == "h2"


def _replace(files: Files, pair: tuple[Path, Path]) -> None:
    for new, old in zip(pair, (files.settings.tls_cert, files.settings.tls_key), strict=True):
        new.replace(old)


def test_links_as_kubernetes_swaps_them(tmp_path: Path) -> None:
    authority = Authority()
    trusted = authority.write(tmp_path / "ca.pem")
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        cert, key = authority.issue(folder, name)
        cert.rename(folder / "tls.crt")
        key.rename(folder / "tls.key")
    (tmp_path / "..data").symlink_to("one")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    settings = ServerSettings(tls_cert=str(tmp_path / "tls.crt"), tls_key=str(tmp_path / "tls.key"))
    context = ssl.create_default_context(cafile=str(trusted))
    with Server(settings) as server:
        (tmp_path / "..next").symlink_to("two")
        (tmp_path / "..next").replace(tmp_path / "..data")
        assert server.check()
        with talk(server.port, context) as connection:
            assert subject(connection) == "two"


def test_an_authority_that_was_taken_out_is_out(tmp_path: Path) -> None:
    files = Files(tmp_path, mutual=True)
    friend = files.client(files.authority.issue(tmp_path, "friend"))
    other = Authority("other")
    newcomer = files.client(other.issue(tmp_path, "newcomer"))
    accepted = tmp_path / "clients.pem"
    accepted.write_bytes(files.trusted.read_bytes())
    settings = ServerSettings(
        tls_cert=files.settings.tls_cert,
        tls_key=files.settings.tls_key,
        tls_client_ca=str(accepted),
    )
    with Server(settings) as server:
        with talk(server.port, friend) as connection:
            session = connection.session
        other.write(accepted)
        assert server.check()
        talk(server.port, newcomer).close()
        for resumed in (None, session):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                talk(server.port, friend, session=resumed)


def test_clients_are_verified_at_each_handshake(tmp_path: Path) -> None:
    files = Files(tmp_path, mutual=True)
    friend = files.client(files.authority.issue(tmp_path, "friend"))
    with Server(files.settings) as server:
        with talk(server.port, friend) as connection:
            session = connection.session
        with talk(server.port, friend, session=session) as connection:
            assert not connection.session_reused


@pytest.mark.parametrize("fault", ["half", "broken", "gone"])
def test_a_broken_pair_leaves_the_old_one(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(tmp_path)
    context = files.client()
    cert, key = files.authority.issue(tmp_path, "renewed")
    old = tmp_path / "server.pem"
    with Server(files.settings) as server:
        if fault == "half":
            cert.replace(old)
        elif fault == "broken":
            old.write_bytes(old.read_bytes()[:100])
        else:
            old.unlink()
        assert not server.check()
        assert not server.check()
        assert len([r for r in caplog.records if "stays as it was" in r.message]) == 1
        with talk(server.port, context) as connection:
            assert subject(connection) == "server"
        if fault == "half":
            key.replace(tmp_path / "server.key")
            assert server.check()
            with talk(server.port, context) as connection:
                assert subject(connection) == "renewed"


def _unreadable(files: Files) -> ServerSettings:
    return ServerSettings(tls_cert=str(files.folder / "none"), tls_key=files.settings.tls_key)


def _mismatched(files: Files) -> ServerSettings:
    _, key = files.authority.issue(files.folder, "another")
    return ServerSettings(tls_cert=files.settings.tls_cert, tls_key=str(key))


def _passphrase(files: Files) -> ServerSettings:
    cert, key = files.authority.issue(files.folder, "secret", "open sesame")
    return ServerSettings(tls_cert=str(cert), tls_key=str(key))


def _no_pem(files: Files) -> ServerSettings:
    (files.folder / "text").write_text("no certificate")
    return ServerSettings(tls_cert=str(files.folder / "text"), tls_key=files.settings.tls_key)


def _no_authority(files: Files) -> ServerSettings:
    (files.folder / "text").write_text("no certificate")
    return ServerSettings(
        tls_cert=files.settings.tls_cert,
        tls_key=files.settings.tls_key,
        tls_client_ca=str(files.folder / "text"),
    )


@pytest.mark.parametrize(
    ("make", "where", "said"),
    [
        (_unreadable, "tls_cert", "cannot be read"),
        (_mismatched, "tls_cert", "key values mismatch"),
        (_passphrase, "tls_key", "passphrase"),
        (_no_pem, "tls_cert", "cannot be used"),
        (_no_authority, "tls_client_ca", "authorities"),
    ],
)
def test_what_is_wrong_with_files_is_told_at_the_start(
    tmp_path: Path, make: Callable[[Files], ServerSettings], where: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        tls.context(make(Files(tmp_path)))
    assert refused.value.where == where


def test_rotation_under_load_drops_nothing(tmp_path: Path) -> None:
    files = Files(tmp_path)
    context = files.client()
    stop = threading.Event()
    failures: list[BaseException] = []
    done = [0, 0, 0]

    def work(number: int) -> None:
        try:
            while not stop.is_set():
                with talk(server.port, context) as connection:
                    connection.sendall(b"more")
                    assert connection.recv(4) == b"more"
                done[number] += 1
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failures.append(error)

    with Server(files.settings) as server:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for number in range(20):
            before = list(done)
            cert, key = files.authority.issue(tmp_path, f"round-{number}")
            cert.replace(files.settings.tls_cert)
            server.check()  # sees one of two: the old pair stays
            key.replace(files.settings.tls_key)
            assert server.check()
            while not failures and any(a == b for a, b in zip(before, done, strict=True)):
                stop.wait(0.001)
        stop.set()
        for thread in threads:
            thread.join(10)
    assert failures == []
