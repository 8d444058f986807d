"""What a cluster refuses, and what goes wrong on the way to it, as our errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scoring.errors import FieldpostError, NotFoundError, TargetError, UnreachableError

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, GONE, INVALID = 401, 403, 404, 409, 410, 422
BUSY = frozenset({429, 500, 502, 503, 504})
"""Statuses that may be others in a moment."""

_DENIED = re.compile(
    r'(?:User "(?P<user>[^"]*)" )?cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)"'
    r'(?: in API group "(?P<group>[^"]*)")?(?: in the namespace "(?P<namespace>[^"]*)")?'
)
_QUOTA = re.compile(r"exceeded quota|failed quota|maximum .* usage per|insufficient quota")
_WEBHOOK = re.compile(
    r'admission webhook "(?P<name>[^"]*)" denied the request:? ?(?P<why>.*)', re.DOTALL
)
_POLICY = re.compile(
    r"ValidatingAdmissionPolicy '(?P<name>[^']*)'.*?denied request: (?P<why>.*)", re.DOTALL
)
_CALL = re.compile(r'failed calling webhook "(?P<name>[^"]*)"')
_LONGEST = 2000


class ClusterError(TargetError):
    """The cluster refuses.

    Attributes:
        status: The HTTP status.
        reason: As the API has it: `Invalid`, `Conflict`, …
    """

    status: int = 0
    reason: str = ""


class FieldConflictError(ClusterError):
    """Others own fields that were to be changed.

    Attributes:
        fields: Which: `.spec.replicas`.
        managers: Whose: `kubectl`.
    """

    fields: tuple[str, ...] = ()
    managers: tuple[str, ...] = ()


class ChangedError(ClusterError):
    """The object has changed since it was read, or is there already."""


class GoneError(ClusterError):
    """The cluster no longer knows the version from which changes were asked for."""


class DeniedError(ClusterError):
    """The login is not allowed to do it."""


class MissingError(NotFoundError):
    """The object, its namespace or its kind is not there."""


class TerminatingError(ClusterError):
    """The namespace is being deleted."""


class BusyError(UnreachableError):
    """The cluster does not answer now; a further call may be answered."""

    status: int = 0
    wait_s: float = 0.0


class Asked(NamedTuple):
    """What was asked of the cluster, for messages.

    Attributes:
        what: As of `cannot WHAT`.
        where: The cluster: `The cluster of the context 'kind'`.
        namespace: In which namespace; empty for none.
    """

    what: str
    where: str
    namespace: str = ""


def refusal(status: int, document: Mapping[str, Any], asked: Asked) -> FieldpostError:
    """The error for an answer that is not a success.

    Args:
        status: Of HTTP.
        document: The `Status` object; empty where the answer was none.
        asked: What was asked.
    """
    said = _short(str(document.get("message") or f"HTTP status {status}"))
    error = _refusal(status, document, asked, said)
    if isinstance(error, ClusterError):
        error.status = status
        error.reason = str(document.get("reason") or "")
    return error


def unreachable(error: BaseException, asked: Asked) -> TargetError:
    """The error for a connection that failed; one that is not trusted does not get better."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return TargetError(
            f"{asked.where} shows a certificate that is not trusted: {_short(str(error))}.",
            hint="Correct 'certificate-authority' or 'tls-server-name' in the kubeconfig, or get a "
            "new one from your cluster's provider.",
            where="context",
        )
    return UnreachableError(
        f"{asked.where} does not answer: {_short(str(error) or type(error).__name__)}.",
        hint="Look at 'kubectl cluster-info', then run the command again: it goes on.",
    )


def _refusal(  # noqa: PLR0911 - one for each kind of answer
    status: int, document: Mapping[str, Any], asked: Asked, said: str
) -> FieldpostError:
    if status == UNAUTHORIZED:
        return _unauthorized(asked, status)
    if _is_terminating(document, said):
        return TerminatingError(
            f"{asked.where} cannot {asked.what}: its namespace {asked.namespace!r} is being "
            "deleted.",
            hint="Wait until it is gone and create it anew, or choose another: "
            "--set namespace=NAME.",
            where="namespace",
        )
    refused = _admission(said, asked)
    if refused is not None:
        return refused
    if status == FORBIDDEN:
        return _forbidden(said, asked)
    if status == NOT_FOUND:
        return _missing(document, said, asked)
    if status == CONFLICT:
        return _conflict(document, said, asked)
    if status == GONE:
        return GoneError(f"{asked.where} cannot {asked.what}: {said}.")
    if status in BUSY:
        return _busy(status, document, said, asked)
    return _invalid(document, said, asked)


def _unauthorized(asked: Asked, status: int) -> DeniedError:
    return DeniedError(
        f"{asked.where} does not accept the login: it is unknown or has expired ({status}).",
        hint="Log in to the cluster again, so that 'kubectl auth whoami' answers, or choose "
        "another: --set context=NAME.",
        where="context",
    )


def _admission(said: str, asked: Asked) -> ClusterError | None:
    """The error where the cluster's own rules refuse an object."""
    found = _WEBHOOK.search(said) or _POLICY.search(said)
    if found is not None:
        kind = "admission webhook" if found.re is _WEBHOOK else "admission policy"
        return ClusterError(
            f"{asked.where} cannot {asked.what}: its {kind} {found['name']!r} refuses it: "
            f"{found['why'].strip() or 'no reason given'}.",
            hint="Change what it objects to, or ask whoever runs the cluster.",
        )
    if "violates PodSecurity" in said:
        return ClusterError(
            f"{asked.where} cannot {asked.what}: {said}.",
            hint="The namespace's Pod Security standard refuses it: leave out the settings that "
            "it names.",
        )
    if _QUOTA.search(said):
        return ClusterError(
            f"{asked.where} cannot {asked.what}: {said}.",
            hint="Ask for less (--set cpu=…, memory=…, replicas=…), or have the quota of the "
            "namespace raised.",
        )
    return None


def _forbidden(said: str, asked: Asked) -> DeniedError:
    found = _DENIED.search(said)
    if found is None:
        return DeniedError(f"{asked.where} cannot {asked.what}: {said}.")
    if found["user"] == "system:anonymous":  # the login shows nothing that the cluster knows
        return _unauthorized(asked, FORBIDDEN)
    space = found["namespace"] or asked.namespace
    group = f".{found['group']}" if found["group"] else ""
    user = f" as {found['user']!r}" if found["user"] else ""
    place = f" in the namespace {space!r}" if space else ""
    return DeniedError(
        f"{asked.where} does not allow{user} to {found['verb']} "
        f"{found['resource']}{group}{place} (403).",
        hint="Have the rights granted that 'fieldpost target kubernetes rbac"
        f"{f' --namespace {space}' if space else ''}' prints.",
    )


def _missing(document: Mapping[str, Any], said: str, asked: Asked) -> MissingError:
    details = document.get("details") or {}
    if details.get("kind") == "namespaces":
        name = details.get("name") or asked.namespace
        return MissingError(
            f"{asked.where} has no namespace {name!r}.",
            hint=f"Create it ('kubectl create namespace {name}'), or choose another: "
            "--set namespace=NAME.",
            where="namespace",
        )
    if "page not found" in said or "the requested resource" in said:
        return MissingError(
            f"{asked.where} cannot {asked.what}: it does not know that kind of object.",
            hint="Install what brings it (Gateway API, Prometheus operator, KEDA), or leave out "
            "the setting that asks for it.",
        )
    return MissingError(f"{asked.where} cannot {asked.what}: {said}.")


def _conflict(document: Mapping[str, Any], said: str, asked: Asked) -> ClusterError:
    causes = [each for each in _causes(document) if each.get("reason") == "FieldManagerConflict"]
    if not causes:
        return ChangedError(f"{asked.where} cannot {asked.what}: {said}.")
    fields = tuple(str(each.get("field", "")) for each in causes)
    managers = tuple(_manager(str(each.get("message", ""))) for each in causes)
    listed = ", ".join(f"{f} ({m})" for f, m in zip(fields, managers, strict=True))
    error = FieldConflictError(
        f"{asked.where} cannot {asked.what}: others own what would be changed: {listed}.",
        hint="Let them give these fields up, or take them over: 'fieldpost deploy …' with "
        "--force-conflicts.",
    )
    error.fields, error.managers = fields, managers
    return error


def _manager(message: str) -> str:
    found = re.search(r'conflict with "(?P<manager>.*?)"(?= |:|$)', message)
    return found["manager"] if found else message


def _busy(status: int, document: Mapping[str, Any], said: str, asked: Asked) -> UnreachableError:
    found = _CALL.search(said)
    hint = "Run the command again in a moment: it goes on."
    if found is not None:
        hint = f"Its admission webhook {found['name']!r} does not answer: ask whoever runs it."
    error = BusyError(f"{asked.where} cannot {asked.what} now: {said} ({status}).", hint=hint)
    error.status = status
    error.wait_s = float((document.get("details") or {}).get("retryAfterSeconds") or 0)
    return error


def _invalid(document: Mapping[str, Any], said: str, asked: Asked) -> ClusterError:
    causes = _causes(document)
    where = str(causes[0].get("field", "")) if causes else ""
    return ClusterError(f"{asked.where} cannot {asked.what}: {said}.", where=where)


def _is_terminating(document: Mapping[str, Any], said: str) -> bool:
    named = any(each.get("reason") == "NamespaceTerminating" for each in _causes(document))
    return named or "because it is being terminated" in said


def _causes(document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (document.get("details") or {}).get("causes") or ()


def _short(text: str) -> str:
    return " ".join(text.split()).rstrip(".")[:_LONGEST]
