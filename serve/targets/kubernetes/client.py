"""A cluster's API: apply, get, list, watch, delete, logs. Plain objects in and out.

Paths, encodings and kubeconfig are lightkube's; logins, patience and errors are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from lightkube.core.generic_client import BasicRequest
from lightkube.types import PatchType

from serve.targets.kubernetes import faults
from serve.targets.kubernetes.access import Access, find_access
from serve.targets.kubernetes.faults import Asked, MissingError
from serve.targets.kubernetes.kinds import Kind, Object, find_kind, kind_of, name_of, title_of
from serve.targets.kubernetes.transport import TIMEOUT, Transport, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

FIELD_MANAGER = "fieldpost"
PATIENCE_S = 20.0
"""For how long a cluster that does not answer, or not now, is asked again."""

_PAGE = 500
_WATCH_S = 300
_SLACK_S = 15.0


class Event(NamedTuple):
    """A change that a watch tells.

    Attributes:
        type: `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`.
        object: The object after it; of a bookmark only its version.
    """

    type: str
    object: Object


class Listing(NamedTuple):
    """Objects as they were at one moment.

    Attributes:
        items: They, each with its kind.
        version: The moment, from which a watch goes on.
    """

    items: list[Object]
    version: str


class Cluster:
    """One cluster, with one login and a default namespace.

    Args:
        access: Which, and how.
        namespace: The default one; by default that of the context.
        patience_s: By default `PATIENCE_S`.
        warn: Takes warnings that the cluster sends with its answers.
    """

    def __init__(
        self,
        access: Access,
        *,
        namespace: str | None = None,
        patience_s: float | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.access = access
        self.namespace = namespace or access.namespace
        patience_s = PATIENCE_S if patience_s is None else patience_s
        self._transport = Transport(access, patience_s, warn)

    @classmethod
    def connect(
        cls,
        context: str | None = None,
        *,
        namespace: str | None = None,
        patience_s: float | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> Self:
        """The cluster of a context, by default of the current one; nothing is asked of it yet.

        Raises:
            UsageError: There is no such context.
            TargetError: No cluster is configured.
        """
        return cls(find_access(context), namespace=namespace, patience_s=patience_s, warn=warn)

    @property
    def where(self) -> str:
        """The cluster, for messages."""
        return self.access.where

    def version(self) -> str:
        """The version of the cluster: `v1.36.0`.

        Raises:
            UnreachableError: Nothing answers.
        """
        answer = self._path("version", self._asked("tell its version", ""))
        return str(answer.get("gitVersion", ""))

    def apply(
        self,
        item: Object,
        *,
        force: bool = False,
        dry_run: bool = False,
        manager: str = FIELD_MANAGER,
    ) -> Object:
        """Applies an object server-side: what it names becomes ours, what others own stays.

        Args:
            item: The object, as it is to be.
            force: Take over what others own.
            dry_run: Have everything checked and nothing stored.
            manager: The name under which fields are owned.

        Returns:
            The object as the cluster has it now.

        Raises:
            FieldConflictError: Others own fields, with other values.
            ClusterError: The cluster does not take it.
            MissingError: There is no such namespace, or no such kind.
        """
        params = {
            "fieldManager": manager,
            "force": "true" if force else None,
            "dryRun": "All" if dry_run else None,
        }
        headers = {"Content-Type": PatchType.APPLY.value}
        return self._change("patch", item, name_of(item), "apply", params, headers)

    def create(self, item: Object, *, manager: str = FIELD_MANAGER) -> Object:
        """Creates an object; raises `ChangedError` where there is one of its name."""
        return self._change("post", item, None, "create", {"fieldManager": manager}, {})

    def patch(
        self, kind: Kind | str, name: str, body: Object, *, namespace: str | None = None
    ) -> Object:
        """Merges fields into an object, `None` removing one (JSON merge patch)."""
        found = find_kind(kind)
        request = self._transport.request(
            "patch",
            found,
            name=name,
            namespace=namespace or self._space(found),
            headers={"Content-Type": PatchType.MERGE.value},
            params={"fieldManager": FIELD_MANAGER},
            body=body,
        )
        return self._transport.send(request, self._asked(f"change {found.kind} {name}", namespace))

    def get(
        self,
        kind: Kind | str,
        name: str,
        *,
        namespace: str | None = None,
    ) -> Object:
        """An object; raises `MissingError` where there is none."""
        found = find_kind(kind)
        request = self._transport.request(
            "get", found, name=name, namespace=namespace or self._space(found)
        )
        return self._transport.send(request, self._asked(f"read {found.kind} {name}", namespace))

    def find(self, kind: Kind | str, name: str, *, namespace: str | None = None) -> Object | None:
        """An object; None where there is none."""
        try:
            return self.get(kind, name, namespace=namespace)
        except MissingError:
            return None

    def list(
        self,
        kind: Kind | str,
        *,
        labels: Mapping[str, str] | str | None = None,
        fields: str | None = None,
        namespace: str | None = None,
    ) -> Listing:
        """All objects of a kind in a namespace.

        Args:
            kind: The kind.
            labels: Only those with these labels; a text is a selector as kubectl takes it.
            fields: Only those that fit this field selector.
            namespace: The namespace; by default the cluster's.
        """
        found = find_kind(kind)
        items: list[Object] = []
        more: str | None = None
        while True:
            request = self._list_request(found, labels, fields, namespace, {"continue": more})
            try:
                answer = self._transport.send(
                    request, self._asked(f"list {found.resource}", namespace)
                )
            except faults.GoneError:
                if more is None:
                    raise
                items, more = [], None  # the pages are no longer of one moment: from the start
                continue
            items += [
                {**each, "apiVersion": found.api_version, "kind": found.kind}
                for each in answer.get("items") or ()
            ]
            metadata = answer.get("metadata") or {}
            more = metadata.get("continue") or None
            if more is None:
                return Listing(items, str(metadata.get("resourceVersion", "")))

    def watch(
        self,
        kind: Kind | str,
        version: str,
        *,
        labels: Mapping[str, str] | str | None = None,
        namespace: str | None = None,
        timeout_s: float = _WATCH_S,
    ) -> Iterator[Event]:
        """The changes since a version, until the time is up or the connection ends.

        Whoever watches lists again where it ends by `GoneError`, and may go on from the last
        version where it just ends.

        Raises:
            GoneError: The version is too old.
            UnreachableError: The connection broke.
        """
        found = find_kind(kind)
        extra = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(int(timeout_s), 1)),
        }
        request = self._list_request(found, labels, None, namespace, extra)
        asked = self._asked(f"watch {found.resource}", namespace)
        read_s = timeout_s + _SLACK_S
        for line in self._transport.lines(request, asked, read_s):
            event = decode(line, asked)
            if event.get("type") == "ERROR":
                status = event.get("object") or {}
                raise faults.refusal(int(status.get("code") or 500), status, asked)
            yield Event(str(event.get("type")), event.get("object") or {})

    def delete(
        self,
        kind: Kind | str,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        propagation: str = "Background",
    ) -> bool:
        """Deletes an object; whether there was one.

        Args:
            kind: The kind.
            name: Its name.
            namespace: Its namespace.
            uid: Only this very object, and not one that has been made anew since.
            propagation: `Background`, `Foreground` or `Orphan`.
        """
        found = find_kind(kind)
        options: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
        }
        if uid:
            options["preconditions"] = {"uid": uid}
        request = self._transport.request(
            "delete",
            found,
            name=name,
            namespace=namespace or self._space(found),
            options=options,
        )
        try:
            self._transport.send(request, self._asked(f"delete {found.kind} {name}", namespace))
        except (MissingError, faults.ChangedError):
            return False
        return True

    def logs(
        self,
        pod: str,
        *,
        container: str | None = None,
        follow: bool = False,
        tail: int | None = None,
        since: str | None = None,
        previous: bool = False,
        timestamps: bool = False,
        namespace: str | None = None,
    ) -> Iterator[str]:
        """Lines that a pod has written.

        Args:
            pod: Its name.
            container: Which of its containers; not needed where it has one.
            follow: Go on until the container ends, or the iterator is closed.
            tail: Only the last lines.
            since: Only what was written since this time (RFC 3339).
            previous: Of the container that ran before it was restarted.
            timestamps: Put the time before each line.
            namespace: Its namespace.

        Raises:
            MissingError: There is no such pod.
            ClusterError: It has not started yet.
        """
        request = self._transport.request(
            "get", find_kind("Pod"), name=pod, namespace=namespace or self.namespace
        )
        request.url += "/log"
        request.params = {
            key: text
            for key, text in {
                "container": container,
                "follow": "true" if follow else None,
                "tailLines": None if tail is None else str(tail),
                "sinceTime": since,
                "previous": "true" if previous else None,
                "timestamps": "true" if timestamps else None,
            }.items()
            if text is not None
        }
        asked = self._asked(f"read the log of {pod}", namespace)
        return self._transport.lines(request, asked, None if follow else TIMEOUT.read)

    def has(self, kind: Kind | str) -> bool:
        """Whether the cluster knows the kind, at that version."""
        found = find_kind(kind)
        path = f"apis/{found.api_version}" if found.group else f"api/{found.version}"
        try:
            answer = self._path(path, self._asked(f"tell its kinds of {found.api_version}", ""))
        except MissingError:
            return False
        return any(each.get("kind") == found.kind for each in answer.get("resources") or ())

    def close(self) -> None:
        """Closes connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def _change(
        self,
        method: str,
        item: Object,
        name: str | None,
        verb: str,
        params: dict[str, str | None],
        headers: dict[str, str],
    ) -> Object:
        kind = kind_of(item)
        namespace = (item.get("metadata") or {}).get("namespace")
        request = self._transport.request(
            method,
            kind,
            name=name,
            namespace=namespace or self._space(kind),
            params=params,
            headers=headers,
            body=item,
        )
        return self._transport.send(request, self._asked(f"{verb} {title_of(item)}", namespace))

    def _list_request(
        self,
        kind: Kind,
        labels: Mapping[str, str] | str | None,
        fields: str | None,
        namespace: str | None,
        extra: Mapping[str, str | None],
    ) -> BasicRequest:
        selector = labels if isinstance(labels, str) or labels is None else _selector(labels)
        watching = "watch" in extra
        params = {
            "labelSelector": selector,
            "fieldSelector": fields,
            **({} if watching else {"limit": str(_PAGE)}),
            **extra,
        }
        return self._transport.request(
            "list", kind, namespace=namespace or self._space(kind), params=params
        )

    def _space(self, kind: Kind) -> str | None:
        return self.namespace if kind.namespaced else None

    def _asked(self, what: str, namespace: str | None) -> Asked:
        return Asked(what, self.where, self.namespace if namespace is None else namespace)

    def _path(self, path: str, asked: Asked) -> Object:
        return self._transport.send(BasicRequest("GET", path), asked)


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={text}" for key, text in sorted(labels.items()))
