from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.security import claims, identity, joining
from edge.security.authority import Authority
from edge.security.endpoint import Endpoint
from edge.security.enrol import Enrolment
from edge.security.identity import Identity
from edge.security.joining import Controller
from edge.security.trust import DeviceTrust
from scoring.errors import (
    EnrolmentError,
    PayloadTooLargeError,
    UnreachableError,
    UsageError,
    VerificationError,
)
from serve.registry import location
from serve.registry.database import Database
from tests.support import fleethttps
from tests.support.fleettrust import DAY_S, Clock, Fleet


class Site:
    """A controller with all that it needs, at the present time."""

    def __init__(self, folder: Path, now: float) -> None:
        self.folder = folder
        self.clock = Clock(now)
        self.fleet = Fleet(folder / "metadata", clock=self.clock)
        self.authority = Authority.create(now)
        (folder / "workspace").mkdir()
        database = Database(location.resolve(str(folder / "workspace")))
        self.enrolment = Enrolment(
            database, self.authority, self.fleet.repository, clock=self.clock
        )
        self.endpoint = Endpoint(
            self.enrolment, self.fleet.repository, self.fleet.director, clock=self.clock
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    import time

    return Site(tmp_path, time.time())


@pytest.fixture
def url(site: Site) -> Iterator[str]:
    with fleethttps.serving(
        site.endpoint, site.authority, site.folder, now=site.clock.now
    ) as address:
        yield address


def test_a_device_joins_fetches_and_renews(site: Site, url: str, tmp_path: Path) -> None:
    token = site.enrolment.claim("hall", "camera")
    own = joining.join(url, token, tmp_path / "device", timeout_s=10)
    trust = DeviceTrust(
        tmp_path / "device", site=own.site, device=own.device, root=own.root, ticks=site.clock
    )
    module = site.fleet.permit("v1")
    controller = Controller(url, own.tls())
    wish = site.fleet.wish(1, module)
    assert trust.verify(wish, site.clock.now, controller.fetch).modules["main"] == module
    renewed = joining.renew(url, own)
    assert renewed.certificate.serial_number != own.certificate.serial_number
    assert len(site.enrolment.certificates("camera")) == 2


def test_a_director_tells_the_time_over_https(site: Site, url: str, tmp_path: Path) -> None:
    own = joining.join(url, site.enrolment.claim("hall", "camera"), tmp_path / "device")
    trust = DeviceTrust(tmp_path, site="hall", device="camera", root=own.root)
    trust.refresh(Controller(url, own.tls()).fetch, site.clock.now)
    site.clock.now += 3650 * DAY_S
    assert abs(joining.ask_time(url, own, trust) - site.clock.now) < 10


def test_a_token_is_shown_to_no_stranger(site: Site, tmp_path: Path) -> None:
    token = site.enrolment.claim("hall", "camera")
    stranger = Authority.create(site.clock.now)
    shown: list[bytes] = []

    class Curious(Endpoint):
        def handle(self, method: str, path: str, body: bytes = b"") -> object:  # type: ignore[override]
            shown.append(body)
            return super().handle(method, path, body)

    # It has the right authority's certificate, which is public, and not its key.
    curious = Curious(site.enrolment, site.fleet.repository, site.fleet.director)
    with (
        fleethttps.serving(curious, stranger, site.folder, now=site.clock.now) as url,
        pytest.raises(VerificationError, match="vouches for"),
    ):
        joining.join(url, token, tmp_path / "device")
    assert shown == [b""]
    assert not identity.exists(tmp_path / "device")


def test_another_fleet_is_told_by_its_authority(site: Site, url: str, tmp_path: Path) -> None:
    import msgspec

    claim = claims.parse(site.enrolment.claim("hall", "camera"))
    other = msgspec.structs.replace(claim, authority=b"x" * 32)
    with pytest.raises(VerificationError, match="not of the fleet"):
        joining.join(url, other.text, tmp_path / "device")


def test_another_root_is_not_taken_from_a_broken_controller(
    site: Site, url: str, tmp_path: Path
) -> None:
    token = site.enrolment.claim("hall", "camera")
    other = Fleet(tmp_path / "other", clock=site.clock)
    site.enrolment._repository = other.repository
    with pytest.raises(VerificationError, match="another root"):
        joining.join(url, token, tmp_path / "device")
    assert not identity.exists(tmp_path / "device")


def test_the_host_has_to_be_the_right_one(site: Site, tmp_path: Path) -> None:
    token = site.enrolment.claim("hall", "camera")
    with (
        fleethttps.serving(
            site.endpoint, site.authority, site.folder, now=site.clock.now, host="elsewhere"
        ) as url,
        pytest.raises(VerificationError, match="vouches for"),
    ):
        joining.join(url, token, tmp_path / "device")


def test_a_device_whose_clock_is_behind_joins(site: Site, tmp_path: Path) -> None:
    token = site.enrolment.claim("hall", "camera")
    later = site.clock.now + 30 * DAY_S  # seen from there, this machine's clock is behind
    with fleethttps.serving(site.endpoint, site.authority, site.folder, now=later) as url:
        own = joining.join(url, token, tmp_path / "device")
        with pytest.raises(VerificationError, match="vouches for"):
            Controller(url, own.tls()).fetch("timestamp.json", 20_000)
        wrong = Controller(url, own.tls(clock_is_wrong=True))
        assert wrong.fetch("timestamp.json", 20_000)


def test_refusals_say_why(site: Site, url: str, tmp_path: Path) -> None:
    token = site.enrolment.claim("hall", "camera")
    first = joining.join(url, token, tmp_path / "device")
    again = joining.join(url, token, tmp_path / "device")
    assert again.certificate == first.certificate
    with pytest.raises(EnrolmentError, match=r"403.*used by another"):
        joining.join(url, token, tmp_path / "thief")


def test_what_is_not_there_is_none_and_what_is_too_long_is_refused(
    site: Site, url: str, tmp_path: Path
) -> None:
    own = joining.join(url, site.enrolment.claim("hall", "camera"), tmp_path / "device")
    controller = Controller(url, own.tls())
    assert controller.fetch("99.root.json", 1000) is None
    assert controller.fetch("..%2f..%2fetc", 1000) is None
    with pytest.raises(PayloadTooLargeError):
        controller.fetch("1.root.json", 1000)


@pytest.mark.parametrize("url", ["http://a", "https://", "https://a/b", "a:1", ""])
def test_what_is_no_address_is_wrong_usage(url: str) -> None:
    with pytest.raises(UsageError):
        Controller(url, ssl.create_default_context())


def test_nobody_there(tmp_path: Path, site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UnreachableError):
        joining.join(f"https://127.0.0.1:{port}", site.enrolment.claim("a", "b"), tmp_path / "d")


def test_endless_and_slow_answers_end(site: Site, tmp_path: Path) -> None:
    """A server that sends one byte after another is given up at the deadline."""
    stop = threading.Event()
    context = fleethttps.server_context(site.authority, site.folder, site.clock.now, "localhost")
    listening = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        raw, _ = listening.accept()
        with context.wrap_socket(raw, server_side=True) as connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    believed = identity.authority_context(site.authority.pem.decode())
    address = f"https://localhost:{listening.getsockname()[1]}"
    try:
        with pytest.raises(UnreachableError, match="does not answer"):
            Controller(address, believed, timeout_s=0.6).get("/x")
    finally:
        stop.set()
        thread.join()
        listening.close()


def test_identities_are_not_shown(site: Site, url: str, tmp_path: Path) -> None:
    own = joining.join(url, site.enrolment.claim("hall", "camera"), tmp_path / "device")
    assert repr(own) == "Identity(hall/camera)"
    assert isinstance(own, Identity)
