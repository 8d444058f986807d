"""References: the grammar of engines, and a message for each way to miss it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.errors import InvalidNameError
from serve.distribution.reference import Reference, check_tag, parse_reference

D = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("iris", "docker.io", "library/iris", "", ""),
        ("iris:1", "docker.io", "library/iris", "1", ""),
        ("team/iris", "docker.io", "team/iris", "", ""),
        ("docker.io/iris", "docker.io", "library/iris", "", ""),
        ("index.docker.io/team/iris", "docker.io", "team/iris", "", ""),
        ("localhost/iris", "localhost", "iris", "", ""),
        ("localhost:5000/iris:v1", "localhost:5000", "iris", "v1", ""),
        ("127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000", "a/b/c", "v1", ""),
        ("[::1]:5000/iris", "[::1]:5000", "iris", "", ""),
        ("oci:5000/iris:1", "oci:5000", "iris", "1", ""),
        ("[fe80::1]/iris:x", "[fe80::1]", "iris", "x", ""),
        ("ghcr.io/team/iris", "ghcr.io", "team/iris", "", ""),
        ("Registry/iris", "Registry", "iris", "", ""),
        (f"ghcr.io/iris@{D}", "ghcr.io", "iris", "", D),
        (f"ghcr.io/iris:v1@{D}", "ghcr.io", "iris", "v1", D),
        ("ghcr.io/a__b/c--d/e.f_g", "ghcr.io", "a__b/c--d/e.f_g", "", ""),
        ("ghcr.io/iris:" + "t" * 128, "ghcr.io", "iris", "t" * 128, ""),
        ("ghcr.io/iris:_x-Y.9", "ghcr.io", "iris", "_x-Y.9", ""),
        ("ghcr.io/" + "a" * 255, "ghcr.io", "a" * 255, "", ""),
    ],
)
def test_reads(text: str, registry: str, repository: str, tag: str, digest: str) -> None:
    found = parse_reference(text)
    assert found == Reference(registry, repository, tag, digest)
    assert parse_reference(str(found)) == found


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty"),
        ("docker-archive:iris.tar", "no place in a registry"),
        ("oci:folder/iris:1", "no place in a registry"),
        ("Iris", "upper-case"),
        ("ghcr.io/Team/iris", "upper-case"),
        ("ghcr.io/iris:", "'' is not a tag"),
        ("ghcr.io/iris:.x", "not a tag"),
        ("ghcr.io/iris:-x", "not a tag"),
        ("ghcr.io/iris:a b", "not a tag"),
        ("ghcr.io/iris:ä", "not a tag"),
        ("ghcr.io/iris:1:2", "not a tag"),
        ("ghcr.io/iris:v1/x", "not a tag"),
        ("ghcr.io/iris:" + "t" * 129, "129 characters"),
        ("ghcr.io/" + "a" * 256, "256 characters"),
        ("ghcr.io/", "repository"),
        ("ghcr.io//iris", "repository"),
        ("ghcr.io/a..b", "repository"),
        ("ghcr.io/a___b", "repository"),
        ("ghcr.io/-a", "repository"),
        ("ghcr.io/a_", "repository"),
        ("ghcr.io/../iris", "repository"),
        ("iris\n", "repository"),
        ("-x.io/iris", "registry"),
        ("ghcr.io:port/iris", "registry"),
        ("ghcr.io:0/iris", "port"),
        ("ghcr.io:65536/iris", "port"),
        ("https://ghcr.io/iris", "URL"),
        ("ghcr.io/iris@sha256:abc", "not a digest"),
        ("ghcr.io/iris@", "not a digest"),
        ("ghcr.io/iris@sha512:" + "a" * 128, "no SHA-256"),
        ("a" * 64, "bare number"),
    ],
)
def test_refuses_with_its_own_message(text: str, part: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        parse_reference(text)
    assert part in caught.value.message
    assert caught.value.hint


def test_a_long_reference_is_not_quoted_whole() -> None:
    with pytest.raises(InvalidNameError) as caught:
        parse_reference("ghcr.io/" + "Ä" * 100_000)
    assert len(str(caught.value.to_dict())) < 2000


def test_docker_hub_answers_under_another_name() -> None:
    assert parse_reference("iris").host == "registry-1.docker.io"
    assert parse_reference("ghcr.io/iris").host == "ghcr.io"


def test_asks_by_digest_before_tag_before_latest() -> None:
    assert parse_reference("a/b").target == "latest"
    assert parse_reference("a/b:1").target == "1"
    assert parse_reference(f"a/b:1@{D}").target == D
    assert str(parse_reference(f"x.io/b:1@{D}").tagged("2")) == "x.io/b:2"
    assert str(parse_reference("x.io/b:1").at(D)) == f"x.io/b@{D}"


@given(st.text(max_size=300))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        found = parse_reference(text)
    except InvalidNameError:
        return
    assert parse_reference(str(found)) == found


@given(st.text(st.characters(codec="ascii"), max_size=140))
def test_any_text_is_a_tag_or_refused(text: str) -> None:
    try:
        check_tag(text)
    except InvalidNameError:
        return
    assert 0 < len(text) <= 128
    assert "/" not in text
