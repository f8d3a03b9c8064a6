"""Completes a CycloneDX document that cyclonedx-py made of an environment, and validates it.

    python sbom.py ENVIRONMENT.json SITE_PACKAGES WHEEL PYTHON >SBOM.json

cyclonedx-py knows neither keysync's version, which is dynamic, nor the hashes of what was installed, and passes on whatever a
package calls its licence. Added here: version, purl and hash of the wheel, the hashes that requirements/image.txt pins, and
licences as SPDX expressions. Its own version is the only thing of the tools that stays. Ends with 1, and says why, where a
component lacks a version, a purl, a licence or a hash, or where the result is not valid.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from dependencies import ROOT, installed, licence_of, normal

_VERSION: Final = SchemaVersion.V1_6


def pinned(file: Path) -> dict[str, list[str]]:
    """SHA-256 of every file that may be installed for a package, by normal name."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in file.read_text(encoding="utf-8").splitlines():
        head = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==", line)
        name = normal(head[1]) if head else name
        found.setdefault(name, []).extend(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    return found


def complete(document: dict[str, Any], packages: Mapping[str, Distribution], wheel: Path, python: str) -> None:
    """Adds the fields that cyclonedx-py omits."""
    hashes = pinned(ROOT / "requirements" / "image.txt")
    hashes["keysync"] = [hashlib.sha256(wheel.read_bytes()).hexdigest()]
    root = document["metadata"]["component"]
    root["version"] = packages["keysync"].version
    root["purl"] = f"pkg:pypi/keysync@{root['version']}"
    tools = document["metadata"]["tools"]["components"]
    document["metadata"]["tools"]["components"] = [
        {key: tool[key] for key in ("type", "name", "version") if key in tool} for tool in tools
    ]
    document["metadata"].setdefault("properties", []).append({"name": "keysync:python", "value": python})
    for component in (root, *document["components"]):
        name = normal(component["name"])
        expression = licence_of(name, packages)
        if expression is not None:
            component["licenses"] = [_licence(expression)]
        else:
            component.pop("licenses", None)
        files = [{"alg": "SHA-256", "content": each} for each in sorted(hashes.get(name, ()))]
        if files:
            # A component represents several files of which one is installed, so the hashes are those of its distribution.
            references = component.setdefault("externalReferences", [])
            references.append({"type": "distribution", "url": component["purl"], "hashes": files})


def _licence(expression: str) -> dict[str, Any]:
    if re.search(r"\s(AND|OR|WITH)\s", expression):
        return {"expression": expression, "acknowledgement": "declared"}
    return {"license": {"id": expression, "acknowledgement": "declared"}}


def problems(document: dict[str, Any]) -> list[str]:
    """What a reader of the document would miss."""
    found = []
    for component in (document["metadata"]["component"], *document["components"]):
        missing = [key for key in ("version", "purl", "licenses") if not component.get(key)]
        if not any(reference.get("hashes") for reference in component.get("externalReferences", ())):
            missing.append("hashes")
        found += [f"{component['name']} has no {key}" for key in missing]
    if "serialNumber" in document:
        found.append("there is a serial number, which is another at each run")
    error = JsonStrictValidator(_VERSION).validate_str(json.dumps(document))
    return [*found, *([f"not valid: {error}"] if error else [])]


def main(made: str, site_packages: str, wheel: str, python: str) -> int:
    """Prints the completed document on stdout, what is wrong on stderr."""
    document = json.loads(Path(made).read_text(encoding="utf-8"))
    complete(document, installed([site_packages]), Path(wheel), python)
    json.dump(document, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")
    found = problems(document)
    sys.stderr.writelines(f"SBOM: {each}\n" for each in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
