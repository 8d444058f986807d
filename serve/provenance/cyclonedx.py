"""CycloneDX 1.6: what is in a package, as JSON whose bytes depend on the package alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scoring import __version__
from scoring.packages.documents import canonical_json
from serve.provenance.about import SHARED
from serve.provenance.names import hexadecimal, oci_purl, pypi_purl

if TYPE_CHECKING:
    from serve.provenance.about import About
    from serve.provenance.inventory import Component, Inventory

_PROPERTY = "fieldpost:"
_SIMPLE = frozenset(" ()")  # an expression has one of these, an identifier has none


def cyclonedx_document(about: About) -> bytes:
    """The SBOM."""
    root = _root(about)
    components = _components(about.inventory)
    return canonical_json(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{about.uuid}",
            "version": 1,
            "metadata": {
                "component": root,
                "tools": {"components": [_tool()]},
            },
            "components": components,
            "dependencies": [
                {"ref": root["bom-ref"], "dependsOn": [each["bom-ref"] for each in components]},
            ],
        }
    )


def _tool() -> dict[str, Any]:
    return {"type": "application", "name": "fieldpost", "version": __version__}


def _root(about: About) -> dict[str, Any]:
    inventory = about.inventory
    properties = {
        "package": inventory.package,
        "platform": inventory.platform,
        "python": inventory.python,
        "environment": inventory.environment,
    }
    ref, more = about.purl, {"purl": about.purl}
    if about.shared:
        ref, more = "software", {"description": SHARED}
    return _component("container", ref, inventory.name, inventory.version, about.subject.digest) | {
        **more,
        "properties": [
            {"name": _PROPERTY + name, "value": value}
            for name, value in properties.items()
            if value
        ],
    }


def _components(inventory: Inventory) -> list[dict[str, Any]]:
    found = [_distribution(each) for each in inventory.components]
    runtime = inventory.layers.get("runtime")
    if runtime is not None:
        found.append(
            _component("application", "runtime", "fieldpost", inventory.fieldpost, runtime.digest)
            | {"licenses": [{"license": {"id": "Apache-2.0"}}]}
        )
    found += _model(inventory)
    if inventory.base is not None:
        base = inventory.base
        document = _component("container", "base", base.name, "", base.digest)
        if base.digest:
            document["purl"] = oci_purl(base.name, base.digest)
        found.append(document)
    return found


def _model(inventory: Inventory) -> list[dict[str, Any]]:
    files = [
        _component("file", f"model/{file.path}", file.path, "", file.digest)
        for file in inventory.model_files
    ]
    if not inventory.model_digest:
        return files
    model = _component(
        "machine-learning-model",
        "model",
        inventory.name,
        inventory.version,
        inventory.model_digest,
    )
    properties = {"format": inventory.format, "runtime": inventory.runtime}
    model["properties"] = [
        {"name": _PROPERTY + name, "value": value} for name, value in properties.items() if value
    ]
    return [model | ({"components": files} if files else {})]


def _distribution(component: Component) -> dict[str, Any]:
    purl = pypi_purl(component.name, component.version, component.url)
    document = _component("library", purl, component.name, component.version, component.sha256) | {
        "purl": purl
    }
    licences = _licences(component)
    if licences:
        document["licenses"] = licences
    return document


def _licences(component: Component) -> list[dict[str, Any]]:
    if component.licence:
        if _SIMPLE & set(component.licence) or component.licence.startswith("LicenseRef-"):
            return [{"expression": component.licence}]
        return [{"license": {"id": component.licence}}]
    if component.licence_text:
        return [{"license": {"name": component.licence_text}}]
    return []


def _component(kind: str, ref: str, name: str, version: str, digest: str) -> dict[str, Any]:
    document: dict[str, Any] = {"type": kind, "bom-ref": ref, "name": name}
    if version:
        document["version"] = version
    if digest:
        value = hexadecimal(digest) or digest
        document["hashes"] = [{"alg": "SHA-256", "content": value}]
    return document
