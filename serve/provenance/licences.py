"""Licences as wheels tell them, brought to SPDX expressions where that can be done for certain."""

from __future__ import annotations

from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.utils import canonicalize_name

from serve.provenance.facts import Distribution

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHOWN = 200
# Classifiers that mean one licence; those that leave its version open ("BSD License") are not here.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
}
# What people write into the old field for text; compared without regard to case.
_SPELLINGS = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "mit license": "MIT",
    "the mit license": "MIT",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "mpl 2.0": "MPL-2.0",
    "psf": "PSF-2.0",
}


def read_metadata(content: bytes) -> Distribution:
    """Reads a `METADATA` file; what it lacks is empty."""
    headers = BytesHeaderParser().parsebytes(content)
    classifiers = [str(each) for each in headers.get_all("Classifier", [])]
    text = " ".join(str(headers.get("License", "")).split())
    licence = (
        _expression(str(headers.get("License-Expression", "")))
        or _expression(_SPELLINGS.get(text.lower(), text))
        or _from_classifiers(classifiers)
    )
    return Distribution(
        name=canonicalize_name(str(headers.get("Name", ""))),
        version=str(headers.get("Version", "")).strip(),
        licence=licence,
        licence_text="" if licence else (text or _spoken(classifiers))[:_SHOWN],
    )


def _expression(text: str) -> str:
    if not text.strip() or len(text) > _SHOWN:
        return ""
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        return ""


def _from_classifiers(classifiers: Iterable[str]) -> str:
    """The licence of the classifiers, where there is one and it is certain."""
    names = {
        each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License :: OSI")
    }
    known = {_CLASSIFIERS[name] for name in names if name in _CLASSIFIERS}
    return known.pop() if len(names) == len(known) == 1 else ""


def _spoken(classifiers: Iterable[str]) -> str:
    names = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License :: ")]
    return ", ".join(sorted(set(names)))
