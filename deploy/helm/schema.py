"""Prints values.schema.json of the chart: values.schema.in.json, with the schema of keysync's own configuration as `config`.

    python deploy/helm/schema.py >deploy/helm/keysync/values.schema.json

Helm's validators read draft-07 in every version, and their regular expressions are those of Go, which know no look-ahead
and no letter beyond ASCII in ``\\w``. Unlike a person's editor, a chart must also take ``${NAME}`` wherever keysync does.
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
    """The schema as text, the same for the same models, with a newline at its end."""
    return json.dumps(values_schema(), indent=2, sort_keys=True) + "\n"


def _adapted(schema: Any) -> Any:  # noqa: ANN401  # any JSON
    if isinstance(schema, list):
        return [_adapted(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    adapted = {key: _adapted(value) for key, value in schema.items()}
    if isinstance(adapted.get("$ref"), str):
        adapted["$ref"] = adapted["$ref"].replace("#/$defs/", "#/definitions/")
    if isinstance(adapted.get("pattern"), str):
        adapted |= _pattern(adapted["pattern"])
        adapted.pop("format", None)  # which would not take a variable, and says no more than the pattern
    return adapted


def _pattern(pattern: str) -> dict[str, Any]:
    """The keywords that say of a text what `pattern` says."""
    ascii_only = pattern.replace(r"\w", rf"\w{_BEYOND_ASCII}")
    # Of a duration: that it begins with a digit follows from its not being empty, since all of its parts do; and that
    # an m is not that of ms follows from the end, which has to match.
    plain = ascii_only.replace("(?=[0-9])", "").replace("(?!s)", "")
    if re.search(r"\(\?[^:]|\\[1-9]", plain):
        raise ValueError(f"not for Go: {pattern}")
    some = {"minLength": 1} if "(?=[0-9])" in ascii_only else {}
    return {"pattern": f"{plain}|{_VARIABLE}", **some}


if __name__ == "__main__":
    sys.stdout.write(render())
