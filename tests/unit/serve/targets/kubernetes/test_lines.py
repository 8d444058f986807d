"""Lines of YAML mean what the object says."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serve.targets.kubernetes.lines import yaml_lines

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.text(st.characters(max_codepoint=0xD7FF), max_size=12),
    st.sampled_from(
        ["on", "No", "~", "1e3", "0x1F", "017", "1:30", "- a", "a: b", "a #b", "", "="]
    ),
    st.sampled_from(["2026-11-21", "!x", "&x", "*x", "?", "a:", ".inf", "{", "%", "@", "`", "|"]),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text("abc/.-", min_size=1), inner, max_size=3),
    ),
    max_leaves=12,
)


@given(DOCUMENTS)
def test_a_reader_of_yaml_gets_the_document_back(document: Any) -> None:
    assert yaml.safe_load("\n".join(yaml_lines(document))) == document


@pytest.mark.parametrize(
    ("document", "lines"),
    [
        ({"a": {"b": [1, {"c": "d", "e": []}]}}, ["a:", "  b:", "  - 1", "  - c: d", "    e: []"]),
        ({"image": "r.io:5000/x@sha256:ab"}, ["image: r.io:5000/x@sha256:ab"]),
        ({"a": "3", "b": "25%", "c": "y", "d": {}}, ['a: "3"', 'b: "25%"', 'c: "y"', "d: {}"]),
    ],
)
def test_lines_are_those_that_people_write(document: Any, lines: list[str]) -> None:
    assert yaml_lines(document) == lines
