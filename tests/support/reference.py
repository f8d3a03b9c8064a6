"""docs/configuration.md: the reference of every key, made from the models and config/full.yaml.

`python -m tests.support.reference` writes the part between the markers; a test compares it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from keysync.config.formats import ACCOUNT_NAME, DURATION, GUID, RESOURCE_GROUP
from keysync.config.schema import json_schema

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "configuration.md"
EXAMPLES: Final = ROOT / "config" / "full.yaml"
BEGIN, END = "<!-- reference: python -m tests.support.reference -->", "<!-- /reference -->"

Schema = Mapping[str, Any]

_PATTERNS: Final = {
    DURATION: "duration",
    GUID: "GUID",
    ACCOUNT_NAME: "name of a Batch account",
    RESOURCE_GROUP: "name of a resource group",
    r"^([0-9a-zA-Z-]|\{(account|subscription_id|resource_group)\}){1,127}$": "name of a secret, placeholders allowed",
    r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$": "`${NAME}`",
    r"^\d{4}-\d{2}-\d{2}(-preview)?$": "version",
    r"^(\d+\.\d+|\d{4}-\d{2}-\d{2})(-preview(\.\d+)?)?$": "version",
    r"^[0-9a-zA-Z._-]{1,256}$": "id",
}


@dataclass
class Section:
    """One model: its possible positions in the file, and its description."""

    schema: Schema
    paths: list[str] = field(default_factory=list)

    @property
    def heading(self) -> str:
        return self.paths[0] or "The file"


def reference() -> str:
    """The complete generated part, without its markers."""
    schema = json_schema()
    sections = {"": Section(schema, [""])}
    _find(schema, "", schema["$defs"], sections)
    examples = _yaml().load(EXAMPLES.read_text(encoding="utf-8"))
    return "\n".join(line for name in sections for line in _section(name, sections, examples)).strip() + "\n"


def _find(schema: Schema, path: str, defs: Schema, sections: dict[str, Section]) -> None:
    """Each model below `schema`, in the order of the file, with all its possible positions."""
    for key, value in schema["properties"].items():
        here = f"{path}.{key}" if path else key
        for name, suffix in _references(value):
            place = f"{here}{suffix}" if not _is_kind(defs[name]) else f"{here}: {{type: {_kind(defs[name])}}}"
            section = sections.setdefault(name, Section(defs[name]))
            section.paths.append(place)
            _find(defs[name], place, defs, sections)


def _references(schema: Schema) -> Iterator[tuple[str, str]]:
    """The possible models of a value, and the name of its position after the key."""
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2], ""
    for union in ("anyOf", "oneOf"):
        for member in schema.get(union, ()):
            yield from _references(member)
    if "items" in schema:
        yield from ((name, "[]" + rest) for name, rest in _references(schema["items"]))
    for item in schema.get("patternProperties", {}).values():
        yield from ((name, ".NAME" + rest) for name, rest in _references(item))


def _is_kind(schema: Schema) -> bool:
    return "const" in schema["properties"].get("type", {})


def _kind(schema: Schema) -> str:
    return str(schema["properties"]["type"]["const"])


def _section(name: str, sections: Mapping[str, Section], examples: Any) -> Iterator[str]:
    section = sections[name]
    yield f"### `{section.heading}`" if section.paths[0] else "### The top level"
    yield ""
    yield _sentence(section.schema.get("description", ""))
    places = [path.partition(":")[0] for path in section.paths[1:]]
    if places:
        yield ""
        yield f"Also as {_listed([f'`{path}`' for path in places])}."
    yield ""
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    required = section.schema.get("required", ())
    for key, value in section.schema["properties"].items():
        meaning = _meaning(value, sections) + ("" if section.paths[0] else _elsewhere(key, sections))
        yield f"| `{key}` | {_type(value, sections)} | {_default(key, value, required)} | {meaning} |"
    yield ""
    example = _example(section.paths[0], examples)
    if example:
        yield from ("```yaml", example.rstrip(), "```", "")


def _type(schema: Schema, sections: Mapping[str, Section]) -> str:
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2], sections)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return _listed([f"`{member}`" for member in schema["enum"]], "or")
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return _union([member for member in schema[union] if member != {"type": "null"}], sections)
    match schema["type"]:
        case "boolean":
            return "`true` or `false`"
        case "integer":
            return _number(schema)
        case "array":
            return f"list of: {_type(schema['items'], sections)}"
        case "object":
            return _mapping(schema, sections)
        case _:
            return _text(schema)


def _union(members: list[Schema], sections: Mapping[str, Section]) -> str:
    if all("$ref" in member for member in members) and len(members) > 1:
        first = sections[members[0]["$ref"].rpartition("/")[2]]
        return f"[mapping, by its `type`](#{anchor(first.heading)})"
    return _listed([_type(member, sections) for member in members], "or")


def _mapping(schema: Schema, sections: Mapping[str, Section]) -> str:
    for member in schema.get("patternProperties", {}).values():
        return f"mapping of names to: {_type(member, sections)}"
    most = f", {schema['maxProperties']} at most" if "maxProperties" in schema else ""
    return f"mapping of text to text{most}"


def _number(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    return f"whole number, {low} to {high}" if high is not None else f"whole number, {low} or more"


def _text(schema: Schema) -> str:
    if schema.get("pattern") in _PATTERNS:
        return _PATTERNS[schema["pattern"]]
    if schema.get("format") == "path":
        return "file"
    if schema.get("format") == "uri":
        return "https URL"
    if "pattern" in schema:
        return f"text like `{schema['pattern']}`".replace("|", r"\|")
    if "maxLength" in schema:
        return f"text, {schema['maxLength']} characters at most"
    return "text"


def _link(name: str, sections: Mapping[str, Section]) -> str:
    return f"[mapping](#{anchor(sections[name].heading)})"


def anchor(heading: str) -> str:
    """The anchor that GitHub makes for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _default(key: str, schema: Schema, required: Any) -> str:
    if key in required:
        return "required"
    value = schema.get("default")
    if isinstance(value, dict) and value:
        shown = {name: item for name, item in value.items() if item is not None}
        return "`{" + ", ".join(f"{name}: {_plain(item)}" for name, item in shown.items()) + "}`" if shown else "`{}`"
    if "default" not in schema:
        return "its own"
    return f"`{_plain(value)}`"


def _plain(value: object) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"[\w.:-]+", value) else json.dumps(value)


def _meaning(schema: Schema, sections: Mapping[str, Section]) -> str:
    of_model = next((sections[name].schema.get("description", "") for name, _ in _references(schema)), "")
    text = _sentence(schema.get("description", of_model))
    known = [member for member in schema.get("examples", ()) if schema.get("pattern") != DURATION]
    return text + (f" Such as {_listed([f'`{item}`' for item in known], 'or')}." if known else "")


def _elsewhere(key: str, sections: Mapping[str, Section]) -> str:
    """The other positions of a top-level key: one vault or one account."""
    narrower = [item for item in ("Vault", "Account", "Discover") if key in sections[item].schema["properties"]]
    sections_text = _listed([f"`{sections[item].paths[0]}`" for item in narrower if key != "vaults"] or [""])
    return f" Also on {sections_text}." if sections_text else ""


def _sentence(text: str) -> str:
    text = " ".join(text.split()).replace("|", r"\|")
    # Escapes text that Markdown would read as emphasis or as an HTML placeholder.
    return re.sub(r"(?<!`)\*(?!`)", r"\\*", text)


def _listed(words: list[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _example(path: str, examples: Any) -> str:
    """The example of config/full.yaml at this position, under its key; the longest if there are several. A short one
    shows too little.
    """
    if not path or ": {" in path or path.removesuffix(".NAME").count("."):
        return ""
    value = _pick(examples, path.split("."))
    if value is None:
        return ""
    stream = io.StringIO()
    _yaml().dump(value, stream)
    # A comment on its own line describes the next key, which is not in the example.
    return "".join(line for line in stream.getvalue().splitlines(keepends=True) if not re.match(r"\s*(#|$)", line))


def _yaml() -> YAML:
    """Reads and writes YAML, and keeps quotes, styles and comments."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 200
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda it, _: it.represent_scalar("tag:yaml.org,2002:null", "null"))
    return yaml


def _pick(value: Any, path: list[str]) -> Any:
    key, *rest = path
    name = key.removesuffix("[]")
    if not isinstance(value, dict) or (name != "NAME" and name not in value):
        return None
    if name == "NAME":
        name = max(value, key=lambda item: len(value[item]))
    found = value[name]
    if key.endswith("[]"):
        chosen = max(found, key=lambda item: (_pick(item, rest) is not None if rest else True, len(item)))
        below = _pick(chosen, rest) if rest else chosen
        return None if below is None else {name: [below]}
    below = _pick(found, rest) if rest else found
    return {name: below} if isinstance(below, dict) else None


def written(text: str) -> str:
    """The page with its generated part up to date. Raises ValueError if it has no markers."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/configuration.md needs the lines {BEGIN} and {END}")
    return f"{head}{begin}\n\n{reference()}\n{end}{tail}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
