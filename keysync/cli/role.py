"""`role`: prints the least-privilege roles of a configuration. It makes no request."""

from __future__ import annotations

import os
import re
import sys

from keysync.access.roles import plan_roles, render_json
from keysync.access.script import render_script
from keysync.cli.options import Options
from keysync.config.formats import GUID
from keysync.config.isolated import find_config
from keysync.config.load import load_config
from keysync.errors import UsageError


def run(options: Options) -> None:
    """Prints roles and assignments. Raises ConfigError, and UsageError for invalid object IDs."""
    config, object_ids = load_config(find_config(options.config, os.environ), os.environ), options.principal_ids
    for object_id in object_ids:
        if not re.fullmatch(GUID, object_id):
            raise UsageError(f"--principal-id {object_id!r}: expected the object ID of an identity, a GUID")
    identities = len(plan_roles(config).principals)
    if len(object_ids) > identities:
        given = f"given {len(object_ids)} times, but the configuration has identities: {identities}"
        raise UsageError(f"--principal-id: {given}")
    plan = plan_roles(config, object_ids)
    sys.stdout.write(render_json(plan) if options.output == "json" else render_script(plan))
