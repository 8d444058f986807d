"""Settings that hold several things in one text: `KEY=VALUE,…`, `CLAIM:/folder,…`. Pure."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from scoring.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PART = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_LABEL = re.compile(_PART, re.ASCII)
_NAME = re.compile(rf"{_PART}(?:\.{_PART})*", re.ASCII)
_DNS_NAME = re.compile(rf"(?:\*\.)?{_PART}(?:\.{_PART})*", re.ASCII)
_ADDRESS = re.compile(r"[0-9.]+", re.ASCII)
_KEY_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_MOST_NAME = 253
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_VOLUME_PARTS = (2, 3)
_TAKEN = (PurePosixPath("/tmp"),)  # noqa: S108 - of a pod
_KERNELS = (PurePosixPath("/proc"), PurePosixPath("/sys"), PurePosixPath("/dev"))
_OURS = (PurePosixPath("/opt/fieldpost"), PurePosixPath("/etc/fieldpost"))


def parts(text: str | None) -> list[str]:
    """What stands between commas, each once."""
    return list(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def require_name(setting: str, text: str) -> str:
    """The name of an object, where it is one.

    Raises:
        UsageError: No object can have it.
    """
    if len(text) > _MOST_NAME or not _NAME.fullmatch(text):
        raise _wrong(setting, text, f"{setting}=some-name (lower-case letters, digits, '-', '.')")
    return text


def require_label(setting: str, text: str) -> str:
    """The name of a namespace; raises `UsageError` where it cannot be one."""
    if not _LABEL.fullmatch(text):
        raise _wrong(setting, text, f"{setting}=some-name (lower-case letters, digits, '-')")
    return text


def names(setting: str, text: str | None) -> list[str]:
    """Names of objects; raises `UsageError` where one is none."""
    return [require_name(setting, part) for part in parts(text)]


def require_host(setting: str, text: str) -> str:
    """A host name, `*.` before it allowed; raises `UsageError` for anything else."""
    fits = len(text) <= _MOST_NAME and _DNS_NAME.fullmatch(text)
    if not fits or _ADDRESS.fullmatch(text):
        raise _wrong(setting, text, f"{setting}=iris.example.org")
    return text


def mapping(setting: str, text: str | None, *, values: bool = True) -> dict[str, str]:
    """`KEY=VALUE` pairs.

    Args:
        setting: For messages.
        text: With commas between.
        values: Values have to be those of labels; annotations may hold anything.

    Raises:
        UsageError: One is no pair, or not one that Kubernetes takes.
    """
    found = {}
    for part in parts(text):
        key, separator, value = part.partition("=")
        if not separator or not _is_key(key) or (values and not _VALUE.fullmatch(value)):
            raise _wrong(setting, part, f"{setting}=team=forecast,stage=test")
        found[key] = value
    return found


def _is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    fine = not slash or (len(prefix) <= _MOST_NAME and bool(_NAME.fullmatch(prefix)))
    return fine and bool(_KEY_NAME.fullmatch(name))


def tolerations(setting: str, text: str | None) -> list[dict[str, Any]]:
    """`KEY[=VALUE][:EFFECT]`, several with commas; raises `UsageError` where one is not."""
    return [_toleration(setting, part) for part in parts(text)]


def _toleration(setting: str, part: str) -> dict[str, Any]:
    rest, _, effect = part.partition(":")
    key, equals, value = rest.partition("=")
    fine = _is_key(key) and _VALUE.fullmatch(value) and effect in ("", *_EFFECTS)
    if not fine:
        raise _wrong(setting, part, f"{setting}=nvidia.com/gpu:NoSchedule,pool=models:NoExecute")
    found = {"key": key, "operator": "Equal" if equals else "Exists"}
    return found | ({"value": value} if equals else {}) | ({"effect": effect} if effect else {})


def claims(setting: str, text: str | None) -> Iterator[tuple[str, str, bool]]:
    """`CLAIM:/folder[:ro]`: claims of volumes, where they are mounted, and whether read-only.

    Raises:
        UsageError: One is not of this form.
    """
    seen: set[PurePosixPath] = set()
    for part in parts(text):
        cut = part.split(":")
        fine = len(cut) in _VOLUME_PARTS and cut[2:] in ([], ["ro"], ["rw"])
        if not fine or (folder := _folder(cut[1])) in seen or not _is_free(folder):
            raise _wrong(setting, part, f"{setting}=models-claim:/models:ro")
        seen.add(folder)
        yield require_name(setting, cut[0]), str(folder), cut[2:] == ["ro"]


def _folder(text: str) -> PurePosixPath:
    """A folder, told once however it is written: `//a`, `/a/`."""
    return PurePosixPath(re.sub("//+", "/", text))


def _is_free(path: PurePosixPath) -> bool:
    """Whether a volume may be there: it hides neither the package nor what others mount."""
    if not path.is_absolute() or ".." in path.parts or path in _TAKEN:
        return False
    if any(path.is_relative_to(each) for each in _KERNELS):
        return False
    return not any(path.is_relative_to(each) or each.is_relative_to(path) for each in _OURS)


def _wrong(setting: str, text: str, example: str) -> UsageError:
    return UsageError(
        f"The setting {setting!r} has {text!r}, which Kubernetes does not take.",
        hint=f"Write {example}.",
        where=setting,
    )
