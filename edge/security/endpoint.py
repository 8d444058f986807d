"""The controller's answers to devices over HTTPS, apart from any server: bytes in, bytes out.

None of the routes asks for a certificate: a token, a proof or a signature is in what is sent, and
metadata is public.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from edge.protocol import messages
from edge.security import letters
from edge.security.director import Director
from edge.security.enrol import Enrolment
from edge.security.repository import Repository
from scoring.errors import (
    AlreadyExistsError,
    EnrolmentError,
    FieldpostError,
    InputError,
    NotFoundError,
    PayloadTooLargeError,
    UsageError,
)


class Reply(NamedTuple):
    """An answer.

    Attributes:
        status: Of HTTP.
        body: JSON, or PEM.
        type: Of the content.
    """

    status: int
    body: bytes
    type: str = "application/json"


class Endpoint:
    """The routes of `letters`.

    Args:
        enrolment: Lets devices in.
        repository: The signed metadata.
        director: Tells the time.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        enrolment: Enrolment,
        repository: Repository,
        director: Director,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._enrolment = enrolment
        self._repository = repository
        self._director = director
        self._clock = clock
        self._posts: dict[str, Callable[[bytes], bytes]] = {
            letters.ENROL: self._enrol,
            letters.RENEW: self._renew,
            letters.TIME: self._time,
        }

    def handle(self, method: str, path: str, body: bytes = b"") -> Reply | None:
        """The answer to a request; None for a path that is not of this subject."""
        try:
            return self._handle(method, path, body)
        except FieldpostError as error:
            return Reply(_status(error), msgspec.json.encode({"error": error.to_dict()}))

    def _handle(self, method: str, path: str, body: bytes) -> Reply | None:
        if method == "POST" and path in self._posts:
            return Reply(200, self._posts[path](body))
        if method == "GET" and path == letters.AUTHORITY:
            return Reply(200, self._enrolment.authority.pem, "application/x-pem-file")
        if method == "GET" and path.startswith(letters.METADATA):
            return Reply(200, self._metadata(path.removeprefix(letters.METADATA)))
        if path in {*self._posts, letters.AUTHORITY}:
            return Reply(405, b'{"error":{"code":"method_not_allowed"}}')
        return None

    def _enrol(self, body: bytes) -> bytes:
        answer = self._enrolment.enrol(messages.decode(body, letters.EnrolRequest))
        return msgspec.json.encode(answer)

    def _renew(self, body: bytes) -> bytes:
        answer = self._enrolment.renew(messages.decode(body, letters.RenewRequest))
        return msgspec.json.encode(answer)

    def _time(self, body: bytes) -> bytes:
        request = messages.decode(body, letters.TimeRequest)
        return self._director.tell_time(request.nonce, self._clock())

    def _metadata(self, name: str) -> bytes:
        data = self._repository.get(name)
        if data is None:
            raise NotFoundError("There is no such metadata.")
        return data


def _status(error: FieldpostError) -> int:
    statuses: dict[type[FieldpostError], int] = {
        PayloadTooLargeError: 413,
        InputError: 400,
        UsageError: 400,
        EnrolmentError: 403,
        NotFoundError: 404,
        AlreadyExistsError: 409,
    }
    return next((status for kind, status in statuses.items() if isinstance(error, kind)), 503)
