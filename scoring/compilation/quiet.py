"""Runs a converter so that nothing it prints, warns or raises reaches the user."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_LOGGERS = ("skl2onnx", "onnxmltools", "onnxconverter-common", "xgboost", "lightgbm")
_MAX_REASON = 200
_ADVICE = re.compile(r"You may raise an? is+ue at\s+\S+")
_NO_CONVERTER = re.compile(r"Unable to find .{0,60}type '+<class '(?:[\w.]*\.)?(\w+)'>")


class ConversionError(Exception):
    """A converter cannot convert the model; the text is one sentence for `Compilation.reason`."""


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Discards what the code inside prints through Python, warns, and logs as a converter."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def convert_quietly(convert: Callable[[], T]) -> T:
    """Calls a converter.

    Raises:
        ConversionError: It failed, for whatever reason; the text is cleaned for a reader.
    """
    with silenced():
        try:
            return convert()
        except ConversionError:
            raise
        except (Exception, SystemExit) as error:
            raise ConversionError(describe(error)) from error


def describe(error: BaseException) -> str:
    """One sentence, without line breaks and of bounded length, for a converter's exception."""
    absent = _NO_CONVERTER.search(str(error))
    if absent:
        return f"There is no ONNX converter for {absent[1]}."
    if isinstance(error, ModuleNotFoundError):
        return f"The package {error.name} is not installed, which compiling needs."
    missing = re.search(
        r"Unable to find a (?:shape calculator|converter) for type '([^']+)'", str(error)
    )
    if missing:
        class_name = missing.group(1).removeprefix("<class '").rsplit(".", 1)[-1]
        return f"There is no ONNX converter for {class_name}."
    text = " ".join(_ADVICE.sub("", str(error)).split()) or type(error).__name__
    if len(text) > _MAX_REASON:
        text = text[: _MAX_REASON - 1].rstrip() + "…"
    return f"The converter failed: {text}" + ("" if text.endswith((".", "…", "!")) else ".")
