"""What workers tell their supervisor."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import ModelFileError
from scoring.workercontract import Contract
from scoring.workerreports import report_failure, report_ready

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


def told(report: Callable[[Contract], None]) -> dict[str, Any]:
    reading, writing = os.pipe()
    report(Contract(status_fd=writing))
    with os.fdopen(reading, "rb") as pipe:
        line, end = pipe.readline(), pipe.read()
    assert end == b""
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_worker_that_is_ready_says_where() -> None:
    found = told(lambda contract: report_ready(contract, "http://127.0.0.1:5001", logger))
    assert found == {"state": "ready", "url": "http://127.0.0.1:5001", "pid": os.getpid()}


def test_an_error_of_ours_is_told_whole(caplog: pytest.LogCaptureFixture) -> None:
    error = ModelFileError("m\udcff.onnx is cut off.", hint="Copy it again.", where="model")
    found = told(lambda contract: report_failure(contract, error, logger))
    assert found["state"] == "failed"
    assert found["error"] == error.to_dict(), "with half a character in a file's name, too"
    assert "is cut off." in caplog.text


def test_whatever_a_script_raises_is_told_with_its_traceback() -> None:
    with pytest.raises(SystemExit) as raised:
        sys.exit("no licence")
    found = told(lambda contract: report_failure(contract, raised.value, logger))
    assert found["error"] == {"code": "internal", "message": "SystemExit: no licence"}
    assert "test_workerreports.py" in found["detail"]


def test_without_a_supervisor_the_log_is_told_alone(caplog: pytest.LogCaptureFixture) -> None:
    report_failure(Contract(), ValueError("wrong"), logger)
    assert "ValueError: wrong" in caplog.text
