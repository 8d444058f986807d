from __future__ import annotations

import logging
import sys
import warnings

import pytest

from scoring.compilation.quiet import ConversionError, convert_quietly, describe


def test_nothing_that_a_converter_says_is_heard(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def noisy() -> int:
        print("out")
        print("err", file=sys.stderr)
        warnings.warn("warned", stacklevel=1)
        logging.getLogger("skl2onnx").warning("logged")
        return 3

    assert convert_quietly(noisy) == 3
    assert capsys.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger("skl2onnx").level == logging.NOTSET


@pytest.mark.parametrize("error", [ValueError("a\n  b"), SystemExit("a b"), AssertionError("a b")])
def test_whatever_it_raises_becomes_one_sentence(error: BaseException) -> None:
    def failing() -> None:
        raise error

    with pytest.raises(ConversionError) as caught:
        convert_quietly(failing)
    assert str(caught.value) == "The converter failed: a b."


def test_an_interrupt_passes() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_quietly(interrupted)


def test_a_missing_package_is_named() -> None:
    error = ModuleNotFoundError("No module named 'x'", name="x")
    assert describe(error) == "The package x is not installed, which compiling needs."


def test_an_error_without_text_is_named_by_its_class() -> None:
    assert describe(ZeroDivisionError()) == "The converter failed: ZeroDivisionError."


def test_a_long_text_is_cut() -> None:
    assert len(describe(ValueError("long " * 1000))) < 250
    assert describe(ValueError("long " * 1000)).endswith("…")
