"""Prints values.schema.json of the chart: values.schema.in.json with the schema of keysync's configuration as `config`.

    python deploy/helm/schema.py >deploy/helm/keysync/values.schema.json

All versions of Helm validate draft-07 with the regular expressions of Go, which have no look-ahead and in which ``\\w`` matches
ASCII only. Unlike the schema for editors, this one must also accept ``${NAME}`` wherever keysync does.
"""

# ruff: noqa: INP001  # a script

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from keysync.config.schema import json_schema

_OWN = Path(__file__).parent / "values.schema.in.json"
_VARIABLE = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"
_BEYOND_ASCII = "\u00a1-\uffff"


def values_schema() -> dict[str, Any]:
    """The schema of all values. Raises ValueError for a pattern that Go's regular expressions do not support."""
    own: dict[str, Any] = json.loads(_OWN.read_text(encoding="utf-8"))
    config = _adapted(json_schema())
    del config["$schema"]
    own["definitions"] |= config.pop("$defs")
    own["properties"]["config"] = config
    own["required"] = ["config"]
    return own


def render() -> str:
    """The schema as text that ends with a newline. The same models give the same text."""
    return json.dumps(values_schema(), indent=2, sort_keys=True) + "\n"


def _adapted(schema: Any) -> Any:  # noqa: ANN401  # any JSON
    if isinstance(schema, list):
        return [_adapted(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    adapted = {key: _adapted(value) for key, value in schema.items()}
    if isinstance(adapted.get("$ref"), str):
        adapted["$ref"] = adapted["$ref"].replace("#/$defs/", "#/definitions/")
    if isinstance(adapted.get("pattern"), str):
        adapted |= _pattern(adapted["pattern"])
        adapted.pop("format", None)  # it would reject a variable, and adds nothing to the pattern
    return adapted


def _pattern(pattern: str) -> dict[str, Any]:
    """The keywords for Go that express `pattern`."""
    ascii_only = pattern.replace(r"\w", rf"\w{_BEYOND_ASCII}")
    # A duration needs no look-ahead: every part begins with a digit, so text that is not empty does too. The end of the
    # pattern must match, so an m cannot be that of ms.
    plain = ascii_only.replace("(?=[0-9])", "").replace("(?!s)", "")
    if re.search(r"\(\?[^:]|\\[1-9]", plain):
        raise ValueError(f"Go cannot express this pattern: {pattern}")
    not_empty = {"minLength": 1} if "(?=[0-9])" in ascii_only else {}
    return {"pattern": f"{plain}|{_VARIABLE}", **not_empty}


if __name__ == "__main__":
    sys.stdout.write(render())
