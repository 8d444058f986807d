"""What keeps a container from running, in the words of its kubelet. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from serve.targets.kubernetes.kinds import Object, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Trouble(NamedTuple):
    """What keeps a pod from getting ready.

    Attributes:
        key: The same for the same trouble.
        message: A sentence.
        hint: What to do.
        patience_s: After how long it is given up; None leaves that to the rollout's own limit.
        pod: Whose log may say more; empty for none.
        container: Of the pod.
        previous: The log is that of the container before its restart.
    """

    key: str
    message: str
    hint: str = ""
    patience_s: float | None = None
    pod: str = ""
    container: str = ""
    previous: bool = False


MOMENT_S = 5.0
WHILE_S = 15.0
_FAILED_TO_LOAD = 3
_KILLED, _TERMINATED = 137, 143
_NOT_STARTED = frozenset({126, 127, 128})
_PULLS = frozenset(
    {
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
        *("ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"),
    }
)
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_NOWHERE = re.compile(r"no match for platform|no matching manifest|does not match the .*platform")
_SURE = re.compile(
    r"not ?found|unauthorized|denied|forbidden|unknown|no basic auth|invalid|\b40[134]\b",
    re.IGNORECASE,
)
# An image's own name may hold any of these words, and its digest any number.
_NAMES = re.compile(r"\"[^\"]*\"|\S+@sha256:[0-9a-f]+|\bhttps?://\S+|\bsha256:[0-9a-f]+")
_FORMAT = re.compile(r"exec format error", re.IGNORECASE)
# What a node that is busy, or has just begun to know of a Secret, says for a while.
_PASSING = re.compile(
    r"deadline exceeded|timed out|timeout|is reserved for|failed to sync|not registered|"
    r"connection refused|transport is closing|connection error",
    re.IGNORECASE,
)


def container_trouble(pod: Object, container: Object, events: Sequence[Object]) -> Trouble | None:
    """What keeps a container from running; None where nothing does.

    Args:
        pod: The pod.
        container: Its status.
        events: Warnings about the pod, the newest last.
    """
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason = str(waiting.get("reason") or "")
    if reason in _PULLS:
        return _pull(pod, waiting, events)
    if reason in _CONFIG:
        return _not_made(pod, container, reason, str(waiting.get("message") or reason))
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if ended is not None and not container.get("ready"):
        return _ended(pod, container, dict(ended), events, backs_off=reason == "CrashLoopBackOff")
    return None


def why_restarted(pod: Object, container: Object) -> Trouble | None:
    """Why a container that runs again had ended before; None where it never did."""
    ended = (container.get("lastState") or {}).get("terminated")
    if not ended or not container.get("restartCount"):
        return None
    found = _why_ended(pod, container, dict(ended), (), backs_off=False)
    return found._replace(message=f"{found.message} It has been started again.")


def tidy(text: str) -> str:
    """A message of the cluster as a part of a sentence."""
    return " ".join(text.split()).rstrip(".: ")[:1000]


def probe_message(events: Iterable[Object]) -> str:
    """What a probe that failed last has said; empty for none."""
    said = [str(each.get("message")) for each in events if each.get("reason") == "Unhealthy"]
    return tidy(said[-1]) if said else ""


def _not_made(pod: Object, container: Object, reason: str, said: str) -> Trouble:
    return _not_started(pod, container, said) or Trouble(
        reason,
        f"The container of the pod {name_of(pod)} cannot be made: {tidy(said)}.",
        "Make what it names in the namespace, or leave it out of the settings.",
        None if _PASSING.search(said) else MOMENT_S,
    )


def _pull(pod: Object, waiting: Object, events: Sequence[Object]) -> Trouble:
    told = [str(waiting.get("message") or "")]
    told += [str(each.get("message")) for each in events if "pull" in str(each.get("message"))]
    said = max(told, key=lambda text: (_is_telling(text), len(text)))
    if _NOWHERE.search(said):
        return Trouble(
            "platform",
            f"The image is not for the platform of the node of the pod {name_of(pod)}: "
            f"{tidy(said)}.",
            "Build the package for that platform too: 'fieldpost package build --platform …'.",
            0,
        )
    sure = _is_telling(said) and waiting.get("reason") != "ErrImagePull"
    return Trouble(
        "pull",
        f"The cluster cannot pull the image: {tidy(said or str(waiting.get('reason')))}.",
        "Look whether it is there, and give the cluster a login where the registry wants one: "
        "--set pull_secret=NAME, or --set pull_login=true for this machine's own.",
        0 if sure or waiting.get("reason") == "InvalidImageName" else None,
    )


def _is_telling(text: str) -> bool:
    return bool(_NOWHERE.search(text) or _SURE.search(_NAMES.sub("", text)))


def _ended(
    pod: Object, container: Object, ended: Object, events: Sequence[Object], *, backs_off: bool
) -> Trouble:
    found = _why_ended(pod, container, ended, events, backs_off=backs_off)
    return found._replace(
        pod=name_of(pod),
        container=str(container.get("name") or ""),
        previous="terminated" not in (container.get("state") or {}),
    )


def _why_ended(
    pod: Object, container: Object, ended: Object, events: Sequence[Object], *, backs_off: bool
) -> Trouble:
    code, reason = int(ended.get("exitCode") or 0), str(ended.get("reason") or "")
    name, many = name_of(pod), int(container.get("restartCount") or 0)
    wrong = _not_started(pod, container, str(ended.get("message") or ""))
    if wrong is not None:
        return wrong
    if reason == "OOMKilled":
        message = f"The pod {name} was killed: it needs more memory than it may have."
        return Trouble("memory", message, "Give it more: --set memory_limit=2Gi.", 0)
    probe = probe_message(events)
    if code in (0, _KILLED, _TERMINATED) and probe:
        message = f"The pod {name} was restarted {many} times, since its probe failed: {probe}."
        hint = "Give it more time: --set ready_timeout_s=SECONDS."
        return Trouble("probe", message, hint, 0 if backs_off else None)
    times = f" {many} times" if many > 1 else ""
    message = f"The pod {name} ended with status {code}{times}."
    sure = backs_off or many > 1 or code == _FAILED_TO_LOAD
    return Trouble(f"ended {code}", message, _hint_for(code), 0 if sure else None)


def _hint_for(code: int) -> str:
    if code in _NOT_STARTED:
        return "The image has no interpreter for the package: choose another base."
    if code == _KILLED:
        return "It was killed, most often for want of memory: --set memory_limit=2Gi."
    return "The end of its log says why."


def _not_started(pod: Object, container: Object, said: str) -> Trouble | None:
    """Where an image is for another processor, which shows when it is run."""
    if not _FORMAT.search(said):
        return None
    return Trouble(
        "platform",
        f"The image {container.get('image') or ''} is for another platform than the node of the "
        f"pod {name_of(pod)}: exec format error.",
        "Build the package for that platform too: 'fieldpost package build --platform …'.",
        0,
    )
