"""XGBoost and LightGBM in the files that they write themselves."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from scoring.errors import UnsupportedModelError
from scoring.formats.base import Detection

if TYPE_CHECKING:
    from scoring.formats.source import Source

_XGBOOST_JSON = re.compile(rb'\s*\{.{0,3000}?"(?:learner|Learner)"\s*:\s*\{', re.DOTALL)
_XGBOOST_PARTS = (
    b'"attributes"',
    b'"gradient_booster"',
    b'"feature_names"',
    b'"learner_model_param"',
)
_XGBOOST_UBJ = re.compile(rb"\{(?:\$.)?(?:#.{1,9}?)?[iUILlu].{1,8}?learner\{", re.DOTALL)
_JSON_VERSION = re.compile(rb'"version"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]')
_UBJ_VERSION = re.compile(rb"version\[#L.{8}i(.)i(.)i(.)", re.DOTALL)
# The old binary form: 136 bytes of numbers, then the objective and the booster's name.
_OLD_HEADER = 136
_OLD_BOOSTERS = (b"gbtree", b"gblinear", b"dart")
_LIGHTGBM = re.compile(rb"tree\r?\n(?:version=|num_class=|label_index=)")
_VERSION_BYTES = 65_536


def detect(source: Source) -> Detection | None:
    """A booster's own file, or None where the bytes are something else.

    Raises:
        UnsupportedModelError: XGBoost's old binary form, which it no longer reads.
        CorruptModelError: The file is cut off.
    """
    _refuse_old_xgboost(source)
    if _LIGHTGBM.match(source.head):
        return _lightgbm(source)
    if _is_xgboost_json(source.head):
        return _xgboost(source, b"}", _json_version(source))
    if _XGBOOST_UBJ.match(source.head[:64]):
        return _xgboost(source, b"}", _ubj_version(source))
    return None


def _is_xgboost_json(head: bytes) -> bool:
    return bool(_XGBOOST_JSON.match(head)) and any(part in head for part in _XGBOOST_PARTS)


def _xgboost(source: Source, end: bytes, version: str) -> Detection:
    if not source.tail(64).rstrip().endswith(end):
        raise source.corrupt("is an XGBoost model that is cut off")
    made_with = {"xgboost": version} if version else {}
    return Detection(format="xgboost", runtime="xgboost", path=source.path, made_with=made_with)


def _json_version(source: Source) -> str:
    found = _JSON_VERSION.findall(source.head + source.tail(_VERSION_BYTES))
    return ".".join(part.decode() for part in found[-1]) if found else ""


def _ubj_version(source: Source) -> str:
    found = _UBJ_VERSION.findall(source.tail(_VERSION_BYTES))
    return ".".join(str(part[0]) for part in found[-1]) if found else ""


def _lightgbm(source: Source) -> Detection:
    if not any(b"end of trees" in window for window in _backwards(source)):
        raise source.corrupt("is a LightGBM model that is cut off: it has no 'end of trees'")
    return Detection(format="lightgbm", runtime="lightgbm", path=source.path)


def _backwards(source: Source, step: int = 1 << 20) -> list[bytes]:
    """The file's windows from its end, each overlapping the next by some bytes.

    The mark stands before the parameters and importances, which are long for many features; a
    model whose last 64 MiB lack it is cut off.
    """
    stop = max(0, source.size - 64 * step)
    offsets = range(max(0, source.size - step), max(-1, stop - step), -step)
    starts = list(offsets) if source.size > step else [0]
    return [source.read_at(max(0, start), step + 32) for start in [*starts, stop]]


def _refuse_old_xgboost(source: Source) -> None:
    head = source.head
    for start in (0, 4) if head.startswith(b"binf") else (0,):
        if _old_names(head[start + _OLD_HEADER :]):
            break
    else:
        if not head.startswith(b"CONFIG-offset:"):
            return
    raise UnsupportedModelError(
        f"{source.path} is an XGBoost model in the old binary form, which XGBoost no longer reads.",
        hint="Load it with XGBoost before 3.1 and save it again: booster.save_model('model.ubj').",
        where=str(source.path),
    )


def _old_names(data: bytes) -> bool:
    """Whether two strings with 64-bit lengths follow: an objective, and a booster."""
    objective, rest = _counted(data)
    booster, _ = _counted(rest)
    return booster in _OLD_BOOSTERS and re.fullmatch(rb"[a-z]+:[a-z0-9_]+", objective) is not None


def _counted(data: bytes) -> tuple[bytes, bytes]:
    if len(data) < struct.calcsize("<Q"):
        return b"", b""
    (length,) = struct.unpack_from("<Q", data)
    end = 8 + min(length, len(data))
    return data[8:end], data[end:]
