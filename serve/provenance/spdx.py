"""SPDX 2.3: what is in a package, as JSON whose bytes depend on the package alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from scoring.packages.documents import canonical_json
from serve.provenance.about import SHARED, TOOL
from serve.provenance.names import hexadecimal, oci_purl, pypi_purl

if TYPE_CHECKING:
    from serve.provenance.about import About
    from serve.provenance.inventory import Component, Inventory

# A document's time would make its digest another one each time; packages have none either.
_CREATED = "1970-01-01T00:00:00Z"
_UNKNOWN = "NOASSERTION"
_ROOT = "SPDXRef-Package"
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9.-]")


def spdx_document(about: About) -> bytes:
    """The SBOM."""
    parts = _parts(about.inventory)
    return canonical_json(
        {
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": about.name,
            "documentNamespace": f"urn:uuid:{about.uuid}",
            "creationInfo": {"created": _CREATED, "creators": [f"Tool: {TOOL}"]},
            "packages": [_root(about), *parts],
            "relationships": [
                _relation("SPDXRef-DOCUMENT", "DESCRIBES", _ROOT),
                *(_relation(_ROOT, _how(part), part["SPDXID"]) for part in parts),
            ],
        }
    )


def _how(part: dict[str, Any]) -> str:
    return "DESCENDANT_OF" if part["SPDXID"] == "SPDXRef-Base" else "CONTAINS"


def _relation(one: str, how: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}


def _root(about: About) -> dict[str, Any]:
    root = _package(
        _ROOT,
        about.inventory.name,
        about.inventory.version,
        about.subject.digest,
        purpose="CONTAINER",
        purl=about.purl,
    )
    return root | ({"comment": SHARED} if about.shared else {})


def _parts(inventory: Inventory) -> list[dict[str, Any]]:
    parts = [_distribution(each) for each in inventory.components]
    runtime = inventory.layers.get("runtime")
    if runtime is not None:
        parts.append(
            _package(
                "SPDXRef-Runtime",
                "fieldpost",
                inventory.fieldpost,
                runtime.digest,
                purpose="APPLICATION",
                licence="Apache-2.0",
            )
        )
    parts += _model(inventory)
    if inventory.base is not None:
        digest = inventory.base.digest
        purl = oci_purl(inventory.base.name, digest) if digest else ""
        parts.append(
            _package(
                "SPDXRef-Base", inventory.base.name, "", digest, purpose="CONTAINER", purl=purl
            )
        )
    return parts


def _model(inventory: Inventory) -> list[dict[str, Any]]:
    found = []
    if inventory.model_digest:
        comment = f"format: {inventory.format}; runtime: {inventory.runtime}"
        model = _package(
            "SPDXRef-Model",
            inventory.name,
            inventory.version,
            inventory.model_digest,
            purpose="OTHER",
        )
        found.append(model | {"comment": comment})
    for number, file in enumerate(inventory.model_files, 1):
        found.append(
            _package(f"SPDXRef-ModelFile-{number}", file.path, "", file.digest, purpose="FILE")
        )
    return found


def _distribution(component: Component) -> dict[str, Any]:
    document = _package(
        f"SPDXRef-PyPI-{_NOT_IN_IDS.sub('-', component.name)}",
        component.name,
        component.version,
        component.sha256,
        purpose="LIBRARY",
        licence=component.licence,
        purl=pypi_purl(component.name, component.version, component.url),
        location=component.url,
    )
    if component.licence_text:
        document["licenseComments"] = f"The wheel says: {component.licence_text}"
    return document


def _package(
    identity: str,
    name: str,
    version: str,
    digest: str,
    *,
    purpose: str,
    licence: str = "",
    purl: str = "",
    location: str = "",
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "SPDXID": identity,
        "name": name,
        "downloadLocation": location or _UNKNOWN,
        "filesAnalyzed": False,
        "licenseDeclared": licence or _UNKNOWN,
        "primaryPackagePurpose": purpose,
    }
    if version:
        document["versionInfo"] = version
    if digest:
        value = hexadecimal(digest) or digest
        document["checksums"] = [{"algorithm": "SHA256", "checksumValue": value}]
    if purl:
        document["externalRefs"] = [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl,
            }
        ]
    return document
