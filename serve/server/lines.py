"""Lines of workers' output, with the name of the worker that wrote them. Pure."""

from __future__ import annotations

_JSON_BEGIN, _JSON_END = '{"time":"', "}"


def is_json(text: str) -> bool:
    """Whether a line is one of the access log, which has to stay a line of JSON."""
    return text.startswith(_JSON_BEGIN) and text.endswith(_JSON_END)


def with_source(source: str, text: str) -> str:
    """The same line of JSON with one more member: `"source": "w0"`.

    Args:
        source: Plain letters, digits and slashes.
        text: See `is_json`.
    """
    return f'{text[: -len(_JSON_END)]},"source":"{source}"{_JSON_END}'
