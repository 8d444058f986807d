"""Who may fetch blobs from the controller, and which."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from edge.controller import blobroutes
from edge.controller.blobroutes import PREFIX, BlobRoutes, Catalogue
from edge.controller.webserver import Request
from edge.security.names import Who
from scoring import digest as digests

CONTENT = b"a layer"
DIGEST = digests.of_bytes(CONTENT)
OTHER = digests.of_bytes(b"a layer of nobody's package")


class Known:
    """The fleet's blobs."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "blob"
        self._file.write_bytes(CONTENT)

    def has(self, digest: str) -> bool:
        return digest == DIGEST

    def path(self, _digest: str) -> Path:
        return self._file


def ask(routes: BlobRoutes, path: str, serial: int | None = 7, method: str = "GET") -> int | None:
    peer = Who("hall", "camera") if serial is not None else None
    answer = routes(Request(method, path, {}, b"", peer, serial))
    return None if answer is None else int(answer.status)


@pytest.fixture
def revoked() -> set[int]:
    return {13}


@pytest.fixture
def routes(tmp_path: Path, revoked: set[int]) -> BlobRoutes:
    return BlobRoutes(cast("Catalogue", Known(tmp_path)), is_revoked=revoked.__contains__)


def test_devices_alone_are_answered(routes: BlobRoutes) -> None:
    path = f"{PREFIX}/blobs/{DIGEST}"
    assert ask(routes, path) == 200
    assert ask(routes, path, method="HEAD") == 200
    assert ask(routes, path, serial=None) == 403
    assert ask(routes, path, serial=13) == 403


def test_one_that_is_revoked_later_is_refused_soon(
    routes: BlobRoutes, revoked: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{PREFIX}/blobs/{DIGEST}"
    assert 0 < blobroutes.REVOKED_S <= 30
    monkeypatch.setattr(blobroutes, "REVOKED_S", 0.0)
    assert ask(routes, path) == 200
    revoked.add(7)
    assert ask(routes, path) == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{PREFIX}/blobs/{OTHER}", 404),
        (f"{PREFIX}/blobs/{DIGEST}/../{DIGEST}", 404),
        (f"{PREFIX}/blobs/../../etc/passwd", 404),
        (f"{PREFIX}/blobs/{DIGEST.upper()}", 404),
        (f"{PREFIX}/deltas/{DIGEST}/{OTHER}", 404),
        (f"{PREFIX}/deltas/{DIGEST}", 404),
        ("/v2/other/blobs/x", None),
    ],
)
def test_other_paths(routes: BlobRoutes, path: str, status: int | None) -> None:
    assert ask(routes, path) == status


def test_nothing_is_written(routes: BlobRoutes) -> None:
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        assert ask(routes, f"{PREFIX}/blobs/{DIGEST}", method=method) == 405
