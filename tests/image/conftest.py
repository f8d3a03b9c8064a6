"""The storage of the image's tests. `.ci/image` runs them, as root, in namespaces that end with them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.image.store import Store


@pytest.fixture(scope="session")
def store() -> Store:
    """podman and buildah. The files that they keep elsewhere are in the scratch folder too."""
    scratch = Path(os.environ["IMAGE_SCRATCH"])
    subprocess.run(["mount", "--bind", str(scratch / "var"), "/var/lib/containers"], check=True)
    return Store(scratch)
