"""Which names mean something of BentoML's. Nothing is imported for it: every command asks."""

from __future__ import annotations

from pathlib import Path

STORE = "bentoml:"
DESCRIPTION = "model.yaml"
BENTO = "bento.yaml"
DESCRIPTION_BYTES = 1 << 20
_FILES = (".bentomodel", ".bento")


def is_bento(source: str | Path) -> bool:
    """Whether a name means something of BentoML's; nothing is read but a folder's entries."""
    if str(source).startswith(STORE):
        return True
    path = Path(source)
    if path.suffix in _FILES:
        return path.is_file()
    return (path / BENTO).is_file() or _is_model_folder(path)


def is_bento_place(to: str, kind: str | None) -> bool:
    """Whether a destination asks for a Bento: `bento:PATH`, or `bentoml:` for BentoML's store."""
    return (kind or to.partition(":")[0]) in {"bento", "bentoml"}


def _is_model_folder(path: Path) -> bool:
    try:
        with (path / DESCRIPTION).open("rb") as stream:
            return b"bentoml_version" in stream.read(DESCRIPTION_BYTES)
    except OSError:
        return False
