"""Objects as YAML that every reader understands alike, PyYAML's and Go's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

Files = dict[str, bytes]
"""Path below the folder, with `/`, to content."""

# What begins with anything else might be a number, a date or an octal for one of them; `y` and `n`
# are truth values for some.
_PLAIN = re.compile(r"[A-Za-z/*].+|[A-MO-XZa-mo-xz]", re.ASCII | re.DOTALL)
_WIDTH = 4096


class _Dumper(yaml.SafeDumper):
    """Without anchors, which nobody expects in objects."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _PLAIN.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(document: Any) -> str:
    """One document, keys in their order."""
    text: str = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH
    )
    return text


def stream(documents: Iterable[Any], comment: str = "") -> bytes:
    """Several documents in one file.

    Args:
        documents: In their order.
        comment: For people, at the top.
    """
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return (head + "---\n".join(map(to_yaml, documents))).encode()
