"""Target conditions: which devices, by name, site, tags and reported facts.

    tags.area == 'yard' and facts.memory_mib >= 512 and not device like 'test-*'

Two-valued: what a device does not have equals nothing, so `tags.env != 'prod'` holds for a device
without that tag, and `tags.level < 3` does not. Text that is a number compares as one, text that is
a version (`1.10.2`, `6.1.0-13-amd64`) as one, all else by its characters.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple, NoReturn

from scoring.errors import UsageError

Value = str | int | float | bool


class Decimal(float):
    """A number with the digits that it was written with: as a version, 3.10 is not 3.1."""

    text = ""


MOST_CHARACTERS: Final = 4096
_MOST_DEPTH: Final = 50
_MOST_DIGITS: Final = 64

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<name>[A-Za-z_][\w-]*)
    | (?P<sign>==|!=|<>|<=|>=|[=<>()\[\],.*])
    )""",
    re.VERBOSE | re.ASCII,
)
_VERSION = re.compile(
    r"v?(?P<numbers>\d+(?:\.\d+)+)(?P<rest>(?:[-+~_ ]?[A-Za-z]|[-+~])[^\s]*)?", re.ASCII
)
_BEFORE = re.compile(
    r"[-~_.]?(?:a|alpha|b|beta|c|rc|dev|pre|preview)(?![A-Za-z])|~", re.ASCII | re.IGNORECASE
)
"""What is after a version's numbers and makes it come before them: `1.2.0-rc1`."""
_ORDERS: Final[Mapping[str, Callable[[int], bool]]] = {
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
}
_SINGULAR: Final = {"tag": "tags", "fact": "facts"}
_WORDS: Final = frozenset({"and", "or", "not", "in", "like", "true", "false", "all"})


class Subject(NamedTuple):
    """What a condition may ask of a device.

    Attributes:
        device: Its name.
        site: Where it is.
        tags: Given by people.
        facts: Reported by itself.
    """

    device: str
    site: str
    tags: Mapping[str, str]
    facts: Mapping[str, Value]


Test = Callable[[Subject], bool]
_Read = Callable[[Subject], Value | None]


class Condition:
    """A condition that was understood.

    Attributes:
        text: As it was written.
    """

    def __init__(self, text: str, test: Test) -> None:
        self.text = text
        self._test = test

    def matches(self, subject: Subject) -> bool:
        """Whether a device is meant."""
        return self._test(subject)

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"


@lru_cache(maxsize=1024)
def parse(text: str) -> Condition:
    """Reads a condition; `*` and `all` mean every device.

    Raises:
        UsageError: It is none; `where` says at which column.
    """
    if len(text) > MOST_CHARACTERS:
        raise UsageError(
            f"A condition has {len(text)} characters, and {MOST_CHARACTERS} are the most.",
            hint="Give the devices a tag, and ask for that.",
        )
    return Condition(text, _Parser(text).parse())


class _Token(NamedTuple):
    kind: str
    text: str
    at: int

    @property
    def word(self) -> str:
        """In small letters, where it is a word of the language or a sign; else nothing."""
        word = self.text.lower()
        return word if self.kind == "sign" or word in _WORDS else ""


class _Parser:
    """Recursive descent; each method reads one level of precedence."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0

    def parse(self) -> Test:
        test = self._or()
        if self._next.kind != "end":
            self._fail(f"{self._next.text!r} is not expected here", "Join tests by 'and' or 'or'.")
        return test

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, *words: str) -> str:
        """The next word if it is one of these; else nothing, and nothing is taken."""
        word = self._next.word
        if word not in words:
            return ""
        self._at += 1
        return word

    def _need(self, word: str) -> None:
        if not self._take(word):
            self._fail(f"{word!r} is missing", "")

    def _fail(self, problem: str, hint: str) -> NoReturn:
        column = self._next.at + 1
        raise UsageError(
            f"The condition {_shown(self._text)} cannot be read: {problem} (column {column}).",
            hint=hint or _EXAMPLE,
            where=f"column {column}",
        )

    def _or(self) -> Test:
        tests = [self._and()]
        while self._take("or"):
            tests.append(self._and())
        return tests[0] if len(tests) == 1 else lambda one: any(test(one) for test in tests)

    def _and(self) -> Test:
        tests = [self._not()]
        while self._take("and"):
            tests.append(self._not())
        return tests[0] if len(tests) == 1 else lambda one: all(test(one) for test in tests)

    def _not(self) -> Test:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            self._fail("it is nested too deep", "")
        try:
            if self._take("not"):
                test = self._not()
                return lambda one: not test(one)
            return self._single()
        finally:
            self._depth -= 1

    def _single(self) -> Test:
        if self._take("("):
            test = self._or()
            self._need(")")
            return test
        if self._take("*", "all", "true"):
            return lambda _one: True
        if self._take("false"):
            return lambda _one: False
        return self._comparison(self._attribute())

    def _attribute(self) -> _Read:
        if self._next.kind != "name" or self._next.word:
            self._fail("a test begins with 'device', 'site', 'tags.NAME' or 'facts.NAME'", "")
        token = self._next
        name = token.text.lower()
        if name in {"device", "site"}:
            self._at += 1
            return (lambda one: one.device) if name == "device" else (lambda one: one.site)
        name = _SINGULAR.get(name, name)
        if name not in {"tags", "facts"}:
            self._fail(
                f"{token.text!r} is nothing that devices have",
                f"Write 'tags.{token.text}' or 'facts.{token.text}'.",
            )
        self._at += 1
        key = self._key(name)
        if name == "tags":
            return lambda one: one.tags.get(key)
        return lambda one: one.facts.get(key)

    def _key(self, of: str) -> str:
        """`.NAME` (which may have dots itself) or `['any text']`."""
        if self._take("["):
            key = self._literal()
            self._need("]")
            return str(key)
        parts = []
        while self._take("."):
            if self._next.kind != "name":
                self._fail("a name is missing after the dot", f"Or write {of}['any text'].")
            parts.append(self._next.text)
            self._at += 1
        if not parts:
            self._fail(f"a name is missing after {of!r}", f"Write '{of}.NAME'.")
        return ".".join(parts)

    def _comparison(self, read: _Read) -> Test:
        sign = self._take("==", "=", "!=", "<>", "<", "<=", ">", ">=")
        if sign in _ORDERS:
            return _ordered(read, self._literal(), _ORDERS[sign])
        if sign:
            test = _equal(read, self._literal())
            return (lambda one: not test(one)) if sign in {"!=", "<>"} else test
        negated = bool(self._take("not"))
        if self._take("in"):
            test = _any_of(read, self._list())
        elif self._take("like"):
            test = _like(read, str(self._literal()))
        elif negated:
            self._fail("'in' or 'like' is missing after 'not'", "")
        else:
            return lambda one: read(one) is not None
        return (lambda one: not test(one)) if negated else test

    def _list(self) -> list[Value]:
        opening = self._take("[", "(")
        if not opening:
            self._fail("a list is missing after 'in'", "Write in ['a', 'b'].")
        values = [self._literal()]
        while self._take(","):
            values.append(self._literal())
        self._need("]" if opening == "[" else ")")
        return values

    def _literal(self) -> Value:
        token = self._next
        if token.word in {"true", "false"}:
            self._at += 1
            return token.word == "true"
        if token.kind == "text":
            self._at += 1
            return re.sub(r"\\(.)", r"\1", token.text[1:-1])
        if token.kind == "number":
            self._at += 1
            return _number(token.text)
        hint = f"Write text in quotes: '{token.text}'." if token.kind == "name" else ""
        return self._fail("a value is missing", hint)


_EXAMPLE: Final = "For example: tags.area == 'yard' and facts.memory_mib >= 512."


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            column = at + len(text[at:]) - len(text[at:].lstrip()) + 1
            raise UsageError(
                f"The condition {_shown(text)} cannot be read at column {column}.",
                hint=f"{_strange(text[column - 1 :])} {_EXAMPLE}",
                where=f"column {column}",
            )
        kind = match.lastgroup or ""
        tokens.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
    return [*tokens, _Token("end", "", end)]


def _strange(rest: str) -> str:
    """What to write in place of what begins here and is nothing."""
    for sign, word in _OTHERS.items():
        if rest.startswith(sign):
            return f"Write {word} for {sign}."
    if rest[0] in "'\"":
        return "A text ends with the quote that it begins with."
    if rest[0] in "+-.0123456789":
        return "A number has digits, and one dot; text stands in quotes."
    return "A name with other signs than letters, digits, '-' and '_' is written tags['any text']."


_OTHERS: Final = {"&": "'and'", "|": "'or'", "!": "'not'", "~": "'like'"}


def _shown(text: str) -> str:
    most = 100
    return repr(text if len(text) <= most else text[:most] + "…")


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = Decimal(text)
        number.text = text
        return number


def _equal(read: _Read, wanted: Value) -> Test:
    def test(one: Subject) -> bool:
        value = read(one)
        return value is not None and _compare(value, wanted) == 0

    return test


def _any_of(read: _Read, wanted: list[Value]) -> Test:
    def test(one: Subject) -> bool:
        value = read(one)
        return value is not None and any(_compare(value, each) == 0 for each in wanted)

    return test


def _ordered(read: _Read, wanted: Value, fits: Callable[[int], bool]) -> Test:
    def test(one: Subject) -> bool:
        value = read(one)
        order = None if value is None else _compare(value, wanted)
        return order is not None and fits(order)

    return test


def _like(read: _Read, pattern: str) -> Test:
    fits = re.compile(fnmatch.translate(pattern)).match

    def test(one: Subject) -> bool:
        value = read(one)
        return value is not None and fits(_text(value)) is not None

    return test


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _compare(one: Value, other: Value) -> int | None:
    """Below, equal or above; None where the two have no order."""
    if isinstance(one, bool) or isinstance(other, bool):
        return 0 if _text(one).lower() == _text(other).lower() else None
    if isinstance(one, str) and isinstance(other, str):
        return _order(*_as_versions(one, other))
    if isinstance(one, str) and _VERSION.fullmatch(one) and _as_number(one) is None:
        return _order(*_as_versions(one, _written(other)))
    numbers = _as_number(one), _as_number(other)
    if numbers[0] is None or numbers[1] is None:
        return None
    return _order(numbers[0], numbers[1])


def _written(number: Value) -> str:
    """A number as a version: `3` as `3.0`."""
    text = number.text if isinstance(number, Decimal) else str(number)
    return text if "." in text else f"{text}.0"


def _order(one: object, other: object) -> int | None:
    if one == other:
        return 0
    try:
        return -1 if one < other else 1  # type: ignore[operator]
    except TypeError:
        return None


def _as_versions(one: str, other: str) -> tuple[object, object]:
    found = _VERSION.fullmatch(one), _VERSION.fullmatch(other)
    if found[0] and found[1]:
        return _parts(found[0]), _parts(found[1])
    return one, other


def _parts(version: re.Match[str]) -> tuple[tuple[int, ...], int, str]:
    """Numbers, then whether what is after them comes before nothing at all, then that."""
    numbers = [int(part[:18]) for part in version["numbers"].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    rest = version["rest"] or ""
    place = (-1 if _BEFORE.match(rest) else 1) if rest else 0
    return tuple(numbers), place, rest


def _as_number(value: Value) -> float | None:
    if isinstance(value, str):
        try:
            number = float(value[:_MOST_DIGITS])
        except ValueError:
            return None
        return None if math.isnan(number) else number
    return value
