from __future__ import annotations

from pathlib import Path

import pytest

from scoring.errors import UsageError
from serve.registry.location import mask, resolve

URL = "postgresql://me:s%40fe@db.example:5433/team?sslmode=require"


def test_the_default_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(environ={}).folder == tmp_path / ".fieldpost"
    assert resolve(environ={"FIELDPOST_WORKSPACE": ""}).folder == tmp_path / ".fieldpost"
    assert resolve("~/x", environ={}).folder == tmp_path / "x"


def test_the_variable_names_a_folder(tmp_path: Path) -> None:
    location = resolve(environ={"FIELDPOST_WORKSPACE": str(tmp_path)})
    assert location.folder == location.blobs == tmp_path
    assert location.database_file == tmp_path / "fieldpost.db"
    assert str(location) == str(tmp_path)


def test_a_relative_folder_is_fixed_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("ws", environ={}).folder == tmp_path / "ws"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_with_its_blob_folder(scheme: str) -> None:
    given = URL.replace("postgresql", scheme) + "&blobs=/srv/blobs"
    location = resolve(given, environ={"FIELDPOST_BLOBS": "/other"})
    assert location.blobs == Path("/srv/blobs")
    assert location.folder is None
    assert location.database_file is None
    assert location.secret_url == URL


def test_the_blob_folder_may_come_from_the_environment() -> None:
    assert resolve(URL, environ={"FIELDPOST_BLOBS": "/srv/b"}).blobs == Path("/srv/b")


@pytest.mark.parametrize("suffix", ["", "&blobs=", "&blobs=relative/folder"])
def test_postgresql_needs_a_blob_folder(suffix: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(URL + suffix, environ={})
    assert "fe@" not in caught.value.message
    assert "?blobs=" in caught.value.hint


@pytest.mark.parametrize(
    "place", ["mysql://u:secret@h/db", "http://x/", "sqlite:///x.db", "s3://b"]
)
def test_other_urls_are_refused(place: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(place, environ={})
    assert "secret" not in str(caught.value)


def test_no_text_of_a_location_holds_its_password() -> None:
    location = resolve(URL + "&password=t%20op&blobs=/b", environ={})
    for text in (str(location), repr(location), f"{location}", f"{(location,)}"):
        assert "fe@" not in text
        assert "s%40fe" not in text
        assert "t%20op" not in text
        assert "db.example" in text
    told = location.masked("FATAL: s@fe and s%40fe and t op are wrong")
    assert told == "FATAL: *** and *** and *** are wrong"


@pytest.mark.parametrize(
    "place", [URL + "&blobs=/b%20c/d", "postgresql://h/db?blobs=/b", "/some/folder"]
)
def test_a_location_goes_to_a_child_process_as_text(place: str) -> None:
    location = resolve(place, environ={})
    assert resolve(location.secret_text(), environ={}) == location
    assert resolve(location) is location


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:topsecret@h/d",
        "postgresql://u:topsecret@h",
        "postgresql://u:top/secret@h/d",
        "postgresql://u:top?secret@h/d",
        "postgresql://u:top@secret@h/d",
        "postgresql://u:topsecret@h:port/d",
        "postgresql://h/d?user=u&password=topsecret",
        "postgresql://h/d?PASSWORD=topsecret&x=1",
        "postgresql://h/d?sslpassword=topsecret",
    ],
)
def test_a_password_is_masked_however_it_is_written(url: str) -> None:
    assert "secret" not in mask(url)
    assert "top" not in mask(url)
    with pytest.raises(UsageError) as caught:
        resolve(url, environ={})
    assert "secret" not in caught.value.message


def test_what_has_no_password_is_not_masked() -> None:
    assert mask("postgresql://me@h/d?blobs=/a@b") == "postgresql://me@h/d?blobs=/a@b"
    assert mask("/a/folder@x:y") == "/a/folder@x:y"
