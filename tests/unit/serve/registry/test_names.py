from __future__ import annotations

import pytest

from scoring.errors import InvalidNameError, UsageError
from serve.registry import names


@pytest.mark.parametrize("name", ["a", "0", "iris", "iris-2.1_x", "a" * 128, "a..b"])
def test_valid_names(name: str) -> None:
    assert names.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "-a", "a-", ".", "..", "a/b", "A", "a b", "a:b", "a\n", "é", "a" * 129),
        *("../../etc/passwd", "a\0", "٣", "sha256", "latest", "\udcff"),
    ],
)
def test_invalid_names(name: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        names.check_name(name)
    assert caught.value.hint
    caught.value.message.encode()  # can be printed


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(InvalidNameError) as caught:
        names.check_name("My Iris!")
    assert "'my-iris'" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [("iris", ("iris", None)), ("iris:latest", ("iris", None)), ("iris:3", ("iris", 3))],
)
def test_references(text: str, expected: tuple[str, int | None]) -> None:
    assert names.parse_reference(text) == expected
    assert names.is_reference(text)


@pytest.mark.parametrize(
    "text",
    ["iris:", "iris:0", "iris:-1", "iris:01", "iris:x", "iris:1:2", ":1", "iris:9" + "9" * 30],
)
def test_what_is_no_reference(text: str) -> None:
    assert not names.is_reference(text)
    with pytest.raises(InvalidNameError):
        names.parse_reference(text)


def test_tags_may_hold_any_text() -> None:
    tags = {"Team": "Bücher 📚\n", "a/b.c-d_e": ""}
    assert names.check_tags(tags) == tags


@pytest.mark.parametrize(
    "tags",
    [{"": "x"}, {"a b": "x"}, {"a=b": "x"}, {"k" * 129: "x"}, {"k": "\0"}, {"k": "\udcff"}],
)
def test_tags_that_no_database_can_hold(tags: dict[str, str]) -> None:
    with pytest.raises(InvalidNameError):
        names.check_tags(tags)


def test_a_text_has_a_limit() -> None:
    with pytest.raises(InvalidNameError, match="longer than 3"):
        names.check_text("four", "It", max_length=3)


def test_a_tag_is_not_set_and_removed_at_once() -> None:
    names.check_tag_changes({"a": "1"}, ["b"])
    with pytest.raises(UsageError, match="'a'"):
        names.check_tag_changes({"a": "1"}, ["a"])
