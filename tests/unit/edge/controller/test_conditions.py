"""Conditions: what they mean, and what is wrong with those that mean nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.controller.conditions import MOST_CHARACTERS, Subject, parse
from scoring.errors import UsageError

CAMERA = Subject(
    "cam-7",
    "berlin",
    {"area": "yard", "floor": "3", "Rack no": "4", "it": "it's", "agent": "1.10.2"},
    {
        "memory_mib": 1024,
        "load": 0.5,
        "gpu": False,
        "runtime.onnx": "1.9",
        "platform": "linux/arm64",
        "kernel": "5.4.0-100-generic",
        "python": "3.11.7",
        "beta": "1.2.0-rc1",
    },
)


@pytest.mark.parametrize(
    "text",
    [
        *("*", "all", "true", "not false", "( * )"),
        *("device == 'cam-7'", 'device = "cam-7"', "DEVICE = 'cam-7'", "site != 'paris'"),
        *("tags.area == 'yard'", "tags['Rack no'] = 4", "tags.it == 'it\\'s'", 'tags.it = "it\'s"'),
        *("facts.memory_mib >= 1024", "facts.memory_mib > 1e3", "facts.load < 0.75"),
        *("facts.memory_mib == '1024'", "tags.floor > 2", "tags.floor = 3.0", "-1 < 0 or *"[9:]),
        *("facts.gpu == false", "facts.gpu = 'False'", "facts.gpu != true"),
        *("facts.runtime.onnx < '1.10'", "tags.agent >= '1.9'", "tags.agent > 'v1.10'"),
        *("tags.area in ['yard', 'hall']", "tags.floor in (1, 2, 3)", "site not in ['paris']"),
        *("device like 'cam-*'", "facts.platform like 'linux/?rm64'", "not device like 'x*'"),
        *("device not like 'x*'", "tags.area", "not tags.env", "tags.env != 'prod'"),
        *("not tags.env = 'prod'", "tags.area='yard' and tags.floor='3' and not tags.env"),
        *("false or false or true", "not (true and false)", "false and true or true"),
        *("facts.kernel < '5.10'", "facts.kernel > '5.4'", "facts.kernel > '5.4.0-099'"),
        *("facts.python >= 3.9", "facts.python > 3.10", "facts.python > 3", "facts.python < 4"),
        *("facts.beta < '1.2'", "facts.beta > 1.1", "facts.beta = '1.2.0-rc1'"),
        *("tags.area == 'yard' AND NOT site IN ['paris', 'rome']", "  *  "),
    ],
)
def test_conditions_that_hold(text: str) -> None:
    assert parse(text).matches(CAMERA)


@pytest.mark.parametrize(
    "text",
    [
        *("false", "not *", "device == 'cam-8'", "site = 'Berlin'", "tags.env = 'prod'"),
        *("tags.env < 3", "tags.env >= ''", "tags.env in ['a']", "tags.env like '*'", "tags.env"),
        *("facts.memory_mib < 1024", "tags.area > 3", "facts.gpu > 0", "facts.gpu = 0"),
        *("facts.gpu < true", "true and false or false", "facts.platform = 'LINUX/arm64'"),
        *("facts.kernel = '5.4.0'", "facts.python = 3.11", "facts.python < 3.9"),
        *("facts.platform like 'linux'", "not (tags.area == 'yard')", "tags.agent < '1.9'"),
    ],
)
def test_conditions_that_do_not(text: str) -> None:
    assert not parse(text).matches(CAMERA)


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("", 1, "'device', 'site', 'tags.NAME'"),
        ("tags.area == yard", 14, "Write text in quotes: 'yard'"),
        ("tags.area == 'yard", 14, "ends with the quote"),
        ("area == 'yard'", 1, "tags.area"),
        ("tags == 'yard'", 6, "tags.NAME"),
        ("tags.area == 'yard' tags.b", 21, "Join tests by 'and'"),
        ("tags.area == ", 13, "a value is missing"),
        ("(tags.area == 'yard'", 21, "')' is missing"),
        ("tags.area in 'yard'", 14, "in ['a', 'b']"),
        ("tags.area in []", 15, "a value is missing"),
        ("tags.area not 'x'", 15, "'in' or 'like'"),
        ("device == 'a' && device == 'b'", 15, "Write 'and'"),
        ("!tags.area", 1, "Write 'not'"),
        ("tags.größe == 1", 8, "tags['any text']"),
        ("tags.['x'] == 1", 6, "after the dot"),
        ("tags.a == 12abc", 11, "in quotes"),
        ("__import__('os').system('x')", 1, "__import__"),
        ("*; drop table", 2, "column 2"),
    ],
)
def test_mistakes_are_shown_where_they_are(text: str, column: int, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.where == f"column {column}"
    assert says in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    "text", ["(" * 500 + "*" + ")" * 500, "not " * 500 + "*", "x" * (MOST_CHARACTERS + 1)]
)
def test_what_is_too_large_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


@given(st.text(max_size=60))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    try:
        condition = parse(text)
    except UsageError:
        return
    assert condition.matches(CAMERA) in {True, False}


words = st.sampled_from(["tags.area", "facts.load", "==", "<", "'yard'", "0.5", "and", "or", "not"])


@given(st.lists(words | st.sampled_from(["(", ")", "in", "[", "]", ",", "*"]), max_size=12))
def test_a_condition_and_its_negation_never_agree(parts: list[str]) -> None:
    text = " ".join(parts)
    try:
        condition = parse(text)
    except UsageError:
        return
    assert condition.matches(CAMERA) is not parse(f"not ({text})").matches(CAMERA)
