"""Names of objects: as a user gave them where they can be, else near to them and never the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.targets.kubernetes import labels
from serve.targets.kubernetes.names import MOST, Names, base_name, content_hash

DEPLOYMENTS = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize("name", ["iris", "a", "iris-2", "x" * MOST])
def test_a_name_that_fits_stays(name: str) -> None:
    assert base_name(name) == name


@pytest.mark.parametrize("name", ["iris.v2", "iris_v2", "2iris", "x" * (MOST + 1), "0"])
def test_another_is_changed_and_marked(name: str) -> None:
    found = base_name(name)
    assert re.fullmatch(r"[a-z][a-z0-9-]*-[0-9a-f]{8}", found)
    assert len(found) <= MOST
    assert found == base_name(name)


@given(one=DEPLOYMENTS, other=DEPLOYMENTS)
def test_two_deployments_never_share_a_name(one: str, other: str) -> None:
    assert (base_name(one) == base_name(other)) == (one == other)
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", base_name(one))


def test_names_that_differ_in_a_dot_alone_are_two() -> None:
    assert len({base_name(name) for name in ("a.b", "a-b", "a_b", "a..b")}) == 4


def test_a_config_map_is_named_by_its_content() -> None:
    names = Names.of("iris")
    first = names.config({"B": "2", "A": "1"})
    assert first == names.config({"A": "1", "B": "2"})
    assert first != names.config({"A": "1", "B": "3"})
    assert re.fullmatch(r"iris-config-[0-9a-f]{10}", first)
    # As `printf 'A=1\nB=2\n' | sha256sum` has it.
    assert content_hash({"B": "2", "A": "1"}) == "beb5f2519a"


def test_the_name_of_a_secret_tells_nothing_of_it() -> None:
    assert Names.of("iris").environment(7) == "iris-env-r7"


@given(st.text(max_size=200))
def test_any_text_becomes_a_label(text: str) -> None:
    found = labels.label_value(text)
    assert len(found) <= 63
    assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?", found, re.ASCII)


def test_long_labels_stay_apart() -> None:
    assert labels.label_value("a" * 70) != labels.label_value("a" * 71)
    assert labels.label_value("iris_v2.1") == "iris_v2.1"


def test_a_digest_is_cut_to_what_a_label_takes() -> None:
    assert labels.package_value(f"sha256:{'0' * 63}f") == "0" * 63


def test_what_leaves_our_hands_says_not_that_we_manage_it() -> None:
    assert labels.APP_MANAGER in labels.owned("w", "iris")
    assert labels.APP_MANAGER not in labels.owned("", "iris")
    assert labels.WORKSPACE not in labels.owned("", "iris")
