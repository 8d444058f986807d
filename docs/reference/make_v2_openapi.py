"""Writes `v2-openapi.json`, the description of the Open Inference Protocol's routes.

python docs/reference/make_v2_openapi.py
"""

from __future__ import annotations

import json
from pathlib import Path

from serve.server.v2.openapi import document

PAGE = Path(__file__).with_name("v2-openapi.json")


def page() -> str:
    """The file's text."""
    return json.dumps(document(), indent=2) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
