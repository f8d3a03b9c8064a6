"""Validates manifests against the schemas of Kubernetes: kubernetes_schemas.py "VERSION VERSION" FILE…

Strict: an unknown field is an error, and so is an unknown kind. The kinds of the Prometheus operator are checked for the fields
that keysync's chart writes. Ends with 1 if anything is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-not-found]  # in an environment of its own
import yaml  # type: ignore[import-untyped]  # as above

_OPERATOR = "monitoring.coreos.com/v1"


def _faults(document: dict[str, Any], version: str) -> Iterator[str]:
    if document["apiVersion"] == _OPERATOR:
        yield from _operator_faults(document["kind"], document["spec"])
        return
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(str(part) for part in error.path)}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        yield error.message


def _operator_faults(kind: str, spec: dict[str, Any]) -> Iterator[str]:
    match kind:
        case "ServiceMonitor":
            (endpoint,) = spec["endpoints"]
            if set(spec) != {"selector", "endpoints"} or set(endpoint) != {"port", "path", "interval", "relabelings"}:
                yield "other fields than expected"
            if [set(one) for one in endpoint.get("relabelings", [])] != [{"targetLabel", "replacement"}]:
                yield "other relabelings than expected"
        case "PrometheusRule":
            if set(spec) != {"groups"} or not all(group["name"] and group["rules"] for group in spec["groups"]):
                yield "no groups of rules"
        case _:
            yield f"unknown kind {kind}"


def main(versions: list[str], paths: list[str]) -> int:
    """The exit code."""
    wrong = 0
    for path in paths:
        for document in filter(None, yaml.safe_load_all(Path(path).read_text(encoding="utf-8"))):
            for version in versions:
                for fault in _faults(document, version):
                    wrong = 1
                    name = f"{document['kind']} {document['metadata']['name']}"
                    print(f"{path}: {name}, Kubernetes {version}: {fault}", file=sys.stderr)  # noqa: T201
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].split(), sys.argv[2:]))
