"""Challenges as registries and proxies write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.distribution.challenges import Challenge, choose, parse_challenges

HUB = (
    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
    'scope="repository:library/iris:pull,push"'
)


def test_reads_a_token_service_with_commas_in_quotes() -> None:
    assert parse_challenges(HUB) == (
        Challenge(
            "bearer",
            {
                "realm": "https://auth.docker.io/token",
                "service": "registry.docker.io",
                "scope": "repository:library/iris:pull,push",
            },
        ),
    )


@pytest.mark.parametrize(
    ("header", "schemes"),
    [
        ("", []),
        ("Basic", ["basic"]),
        ('Basic realm="a \\"b\\" c"', ["basic"]),
        ("BASIC realm=simple", ["basic"]),
        (f'Basic realm="x", {HUB}', ["basic", "bearer"]),
        (f"Negotiate, {HUB}", ["negotiate", "bearer"]),
        ('Bearer realm = "https://x/token" , service="y"', ["bearer"]),
        (f"Negotiate dG9rZW4=, {HUB}", ["negotiate", "bearer"]),
        ("=,=", []),
        ('Bearer realm="https://x', ["bearer"]),
    ],
)
def test_reads_what_there_is(header: str, schemes: list[str]) -> None:
    assert [each.scheme for each in parse_challenges(header)] == schemes


def test_unescapes_quotes() -> None:
    assert parse_challenges('Basic realm="a \\"b\\" c"')[0].get("realm") == 'a "b" c'


def test_a_token_is_chosen_before_a_password() -> None:
    chosen = choose(f'Basic realm="x", {HUB}')
    assert chosen is not None
    assert chosen.scheme == "bearer"
    assert choose("Negotiate") is None


@given(st.text(max_size=400))
def test_any_header_is_read_in_peace(header: str) -> None:
    for each in parse_challenges(header):
        assert each.scheme == each.scheme.lower()
