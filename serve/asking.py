"""One scoring request, over whichever protocol: what `fieldpost score` and deployments do.

What a protocol needs is imported when it is asked for: an HTTP client costs 0.2 s, gRPC as much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

import orjson

from scoring.errors import MalformedPayloadError, UsageError

if TYPE_CHECKING:
    from serve.oip import OipClient

Protocol = Literal["score", "v2", "grpc"]
_LIVE_S = 60.0
_GRACE_S = 1.0
"""For the server's own word that the time is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a request is sent.

    Attributes:
        protocol: `score` (JSON to `/score`), `v2` or `grpc` (arrays, by the Open Inference
            Protocol; they need the extra `triton`).
        model: Its name, where the server has several.
        headers: Sent along.
        api_key: Sent as bearer token; empty for none.
        timeout_s: The longest wait for an answer; None for 60 s, or for `later` without end.
        retry_s: How long it is tried again while nothing answers, or the server has no room.
        timeout_ms: After that time the server gives the request up; None for never.
        later: Have it answered as a job, and wait for that.
        ca: A PEM file of the authorities that are believed; empty for the usual ones.
        certificate: A PEM file of the server's own certificate, where it is at hand.
        accepted: Called with the URL of the job.
    """

    protocol: Protocol = "score"
    model: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    api_key: str = field(default="", repr=False)
    timeout_s: float | None = None
    retry_s: float = 5.0
    timeout_ms: int | None = None
    later: bool = False
    ca: str = ""
    certificate: str = ""
    accepted: Callable[[str], None] = lambda _url: None

    def sent_headers(self) -> dict[str, str]:
        """All headers; those that were given win."""
        key = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {**key, **{name.lower(): text for name, text in self.headers.items()}}


def ask(url: str, document: object, how: Asking) -> Any:
    """Sends a request and returns the answer, decoded.

    Args:
        url: Of the server; `grpc://` and `grpcs://` choose that protocol.
        document: A JSON document, or its bytes.
        how: See `Asking`.

    Raises:
        UsageError: The choices contradict each other, or a model has to be chosen.
        MissingDependencyError: The protocol's client is not installed.
        FieldpostError: As `serve.client.Client.score` and `serve.oip.OipClient.score` have it.
    """
    if how.protocol == "score" and not url.startswith("grpc"):
        return _score(url, document, how)
    if how.later:
        raise UsageError(
            "Only requests to /score can be answered later by this command.",
            hint="Leave --later or --protocol out.",
            where="later",
        )
    return _infer(url, document, how)


def _score(url: str, document: object, how: Asking) -> Any:
    from serve.client import Client  # noqa: PLC0415 - see above

    if how.model:
        url, document = _model_url(url, how.model), _instances(document)
    headers, live_s = _limits(how)
    with Client(
        url,
        timeout_s=live_s,
        retry_s=how.retry_s,
        headers=headers,
        ca=how.ca,
        certificate=how.certificate,
    ) as client:
        if how.later:
            return client.score_later(document, wait_s=how.timeout_s, accepted=how.accepted)
        return client.score(document)


def _limits(how: Asking, *, grpc: bool = False) -> tuple[dict[str, str], float]:
    """The headers with the server's time, and the longest wait for one answer."""
    headers = how.sent_headers()
    live_s = _LIVE_S if how.timeout_s is None or how.later else how.timeout_s
    if how.timeout_ms is None:
        return headers, live_s
    given_s = how.timeout_ms / 1000
    if grpc:  # which tells the server itself
        return headers, min(live_s, given_s)
    return {**headers, "timeout-ms": str(how.timeout_ms)}, min(live_s, given_s + _GRACE_S)


def _model_url(url: str, model: str) -> str:
    parts = urlsplit(url)
    path = parts.path.removesuffix("/score").rstrip("/")
    return urlunsplit(parts._replace(path=f"{path}/v1/models/{quote(model, safe='')}:predict"))


def _instances(document: object) -> object:
    """The request as the route of a named model takes it."""
    found = parsed(document)
    if isinstance(found, list):
        return {"instances": found}
    if isinstance(found, dict) and set(found) == {"data"}:
        return {"instances": found["data"]}
    return document


def parsed(document: object) -> Any:
    """A document that may be bytes of JSON.

    Raises:
        MalformedPayloadError: They are none.
    """
    if not isinstance(document, bytes):
        return document
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise MalformedPayloadError(f"The request is no JSON: {error}.") from None


def _infer(url: str, document: object, how: Asking) -> Any:
    from serve.oip import OipClient  # noqa: PLC0415 - see above
    from serve.oip_documents import document_of, inputs_of  # noqa: PLC0415

    request = parsed(document)
    address, is_grpc = _oip_url(url, grpc=how.protocol == "grpc")
    headers, timeout_s = _limits(how, grpc=is_grpc)
    with OipClient(
        address,
        timeout_s=timeout_s,
        retry_s=how.retry_s,
        headers=headers,
        ca=how.ca,
        certificate=how.certificate,
    ) as client:
        model = how.model or _only_model(client)
        names = [tensor["name"] for tensor in client.metadata(model)["inputs"]]
        return document_of(client.score(model, inputs_of(request, names)))


def _oip_url(url: str, *, grpc: bool) -> tuple[str, bool]:
    parts = urlsplit(url)
    grpc = grpc or parts.scheme.startswith("grpc")
    secure = parts.scheme in {"https", "grpcs"}
    scheme = ("grpc" if grpc else "http") + ("s" if secure else "")
    path = "" if grpc else parts.path.removesuffix("/score").rstrip("/")
    return urlunsplit((scheme, parts.netloc, path, "", "")), grpc


def _only_model(client: OipClient) -> str:
    names = client.models()
    if len(names) != 1:
        listed = ", ".join(names) or "none that is ready"
        raise UsageError(
            f"The server has several models, or none: {listed}.",
            hint="Choose one with --model.",
            where="model",
        )
    return names[0]
