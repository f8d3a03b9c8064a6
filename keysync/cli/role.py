"""`role`: prints the least-privilege roles of a configuration. It makes no request."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from keysync.access.roles import plan_roles, render_json
from keysync.access.script import render_script
from keysync.config.files import find_config
from keysync.config.formats import GUID
from keysync.config.load import load_config
from keysync.errors import UsageError


def run(config: Path | None, output: str, object_ids: Sequence[str]) -> int:
    """Prints roles and assignments, and returns 0. Raises ConfigError, and UsageError for invalid object IDs."""
    loaded = load_config(find_config(config, os.environ), os.environ)
    for object_id in object_ids:
        if not re.fullmatch(GUID, object_id):
            raise UsageError(f"--principal-id {object_id!r}: expected the object ID of an identity, a GUID")
    identities = len(plan_roles(loaded).principals)
    if len(object_ids) > identities:
        raise UsageError(
            f"--principal-id: given {len(object_ids)} times, but the configuration has identities: {identities}"
        )
    plan = plan_roles(loaded, object_ids)
    sys.stdout.write(render_json(plan) if output == "json" else render_script(plan))
    return 0
