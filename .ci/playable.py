"""Converts a Kubernetes manifest for `podman kube play`: .ci/playable.py MANIFEST IMAGE FOLDER

Prints its ConfigMaps, with the files of FOLDER as their data, and its Deployments and Pods, with IMAGE. A CronJob or Job becomes
the pod that it would start. `ports` are removed; everything else is unchanged. Other kinds are skipped.
"""

import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


def playable(document: dict[str, Any], image: str, data: dict[str, str]) -> dict[str, Any] | None:
    """The document for podman; None if it is skipped."""
    match document["kind"]:
        case "ConfigMap":
            return {**document, "data": data}
        case "Pod":
            return with_image(document, document["spec"], image)
        case "Deployment":
            return with_image(document, document["spec"]["template"]["spec"], image)
        case "Job":
            return as_pod(document, document["spec"]["template"], image)
        case "CronJob":
            return as_pod(document, document["spec"]["jobTemplate"]["spec"]["template"], image)
        case _:
            return None


def as_pod(document: dict[str, Any], template: dict[str, Any], image: str) -> dict[str, Any]:
    """The pod of a template, with the name of its owner."""
    metadata = {**template.get("metadata", {}), "name": document["metadata"]["name"]}
    return with_image({"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}, template["spec"], image)


def with_image(document: dict[str, Any], spec: dict[str, Any], image: str) -> dict[str, Any]:
    """The document with containers that run the local `image`. `spec` is the pod's specification in it."""
    for container in spec["containers"]:
        container.update(image=image, imagePullPolicy="Never")
        container.pop("ports", None)  # podman would map them, which its network does not need
    return document


def main(manifest: str, image: str, folder: str) -> None:
    """Prints the converted manifest."""
    yaml = YAML()
    data = {file.name: file.read_text(encoding="utf-8") for file in sorted(Path(folder).iterdir())}
    documents = [one for one in yaml.load_all(Path(manifest).read_text(encoding="utf-8")) if one]
    made = [one for one in (playable(document, image, data) for document in documents) if one is not None]
    if not any(one["kind"] in {"Pod", "Deployment"} for one in made):
        sys.exit(f"{manifest}: it has no pod that podman can run")
    yaml.dump_all(made, sys.stdout)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
