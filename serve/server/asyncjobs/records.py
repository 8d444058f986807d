"""What is kept of a job, and how it is told. Pure."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal

import msgspec

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINISHED: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})
RETRY_AFTER_S = 1

_ID = re.compile(r"[0-9a-f]{32}")
_TIME_DIGITS = 12
_RANDOM_BYTES = 10
# Credentials, what is said to a proxy or about this connection, and what has been heeded already.
_NOT_KEPT = frozenset(
    {
        *("authorization", "proxy-authorization", "x-api-key", "cookie"),
        *("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect"),
        *("prefer", "idempotency-key", "timeout-ms"),
    }
)

Headers = list[tuple[str, str]]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it is kept; its body stands behind it in the file.

    Attributes:
        method: Of HTTP.
        target: As the client sent it, credentials in it included: the file is for its user alone.
        headers: Without credentials.
    """

    method: str
    target: str
    headers: Headers


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it is kept; its body stands behind it in the file."""

    status: int
    headers: Headers


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of a job.

    Attributes:
        id: Its name, which begins with when it was created.
        status: Where it stands.
        created: Seconds since the epoch.
        target: What was asked.
        principal: Who asked; empty where nobody is asked for that.
        fingerprint: Of the request: one idempotency key is for one request.
        request_bytes: Of the body.
        key: The digest of the idempotency key; empty without one.
        deadline: Seconds since the epoch; not begun after that.
        started: When the last attempt began.
        finished: When it ended.
        attempts: How often it was begun.
        http_status: Of the result.
        result_bytes: Of the result's body.
        reason: Why it failed.
        progress: What is known of a streamed result.
    """

    id: str
    status: Status
    created: float
    target: str
    principal: str = ""
    fingerprint: str = ""
    request_bytes: int = 0
    key: str = ""
    deadline: float | None = None
    started: float | None = None
    finished: float | None = None
    attempts: int = 0
    http_status: int | None = None
    result_bytes: int = 0
    reason: str = ""
    progress: dict[str, int] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.status in FINISHED

    @property
    def total_bytes(self) -> int:
        """What it takes of the room for jobs."""
        return self.request_bytes + self.result_bytes

    def document(self) -> dict[str, Any]:
        """The job as its owner is told."""
        told: dict[str, Any] = {
            "id": self.id,
            "status": self.status,
            "target": self.target.partition("?")[0],
            "created": _time(self.created),
            "started": _time(self.started),
            "finished": _time(self.finished),
            "attempts": self.attempts,
        }
        if self.progress:
            told["progress"] = self.progress
        if self.http_status is not None:
            told["http_status"] = self.http_status
        if self.reason:
            told["reason"] = self.reason
        return told | {"links": {"self": f"/jobs/{self.id}", "result": f"/jobs/{self.id}/result"}}


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def new_id(now: float) -> str:
    """A name nobody can guess, that sorts by time."""
    return f"{int(now * 1000):0{_TIME_DIGITS}x}{secrets.token_hex(_RANDOM_BYTES)}"


def is_id(text: str) -> bool:
    """Whether a text has the form of a job's name."""
    return _ID.fullmatch(text) is not None


def created_at(job_id: str) -> float:
    """When a job of this name was created."""
    return int(job_id[:_TIME_DIGITS], 16) / 1000


def kept_headers(headers: list[tuple[bytes, bytes]]) -> Headers:
    """The headers that the request has when it is run."""
    texts = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
    return [(name, value) for name, value in texts if name not in _NOT_KEPT]


def digest(*parts: bytes) -> str:
    """One name for several values, wherever one ends and the next begins."""
    whole = sha256()
    for part in parts:
        whole.update(b"%d:" % len(part))
        whole.update(part)
    return whole.hexdigest()
