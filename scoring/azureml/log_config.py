"""What a user's `logging.json` names as `azureml_inference_server_http.log_config`."""

from __future__ import annotations

import logging
import time

__all__ = ["AMLLogFormatter", "RootAccessFilter"]

_FORMAT = "%(asctime)s %(levelname).1s [%(process)d] %(name)s - %(message)s"


class AMLLogFormatter(logging.Formatter):
    """One line with the UTC time, the level's letter, the process and the logger."""

    def __init__(
        self, fmt: str | None = _FORMAT, datefmt: str | None = None, style: str = "%"
    ) -> None:
        super().__init__(fmt, datefmt, style)  # type: ignore[arg-type]
        self.converter = time.gmtime


class RootAccessFilter(logging.Filter):
    """Drops the access lines of the health probe."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is about something else than `GET /`."""
        return "GET / HTTP/1.1" not in record.getMessage()
