"""Generates the JSON Schema of the configuration file from the model."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from datetime import timedelta
from typing import Any, Final, cast

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from keysync.config.formats import format_duration
from keysync.config.model import Config
from keysync.config.rules import Strict

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


def _some(key: str, **schema: object) -> dict[str, Any]:
    return {"required": [key], "properties": {key: schema}}


# What the rules of the model say about several keys.
_TOP: Final = {"anyOf": [_some("accounts", minItems=1), _some("discover", minItems=1)]}
_DISCOVER: Final = {
    "allOf": [
        {"oneOf": [_some("subscription_id", type="string"), _some("subscriptions", minItems=1)]},
        {"anyOf": [{"required": ["vaults"]}, _some("vaults_by_tag", type="string")]},
    ]
}


class _Generator(GenerateJsonSchema):
    """Writes defaults in the format of the file, and omits titles that only repeat a key."""

    def encode_default(self, dft: Any) -> Any:  # noqa: ANN401  # the signature of pydantic
        if isinstance(dft, timedelta):
            return format_duration(dft)
        if is_dataclass(dft):
            return {item.name: self.encode_default(getattr(dft, item.name)) for item in fields(dft)}
        return super().encode_default(dft)

    def get_default_value(self, schema: Any) -> Any:  # noqa: ANN401  # as above
        return schema["default_factory"]() if "default_factory" in schema else super().get_default_value(schema)

    def dataclass_schema(self, schema: Any) -> JsonSchemaValue:  # noqa: ANN401  # as above
        return {"description": schema["cls"].__doc__, **super().dataclass_schema(schema)}  # pydantic 2.11 has none

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002  # as above
        return False


def json_schema() -> dict[str, Any]:
    """The schema of the file (draft 2020-12). It describes the text in the file: a duration, for example, is a string."""
    Strict.__pydantic_config__["use_attribute_docstrings"] = True  # not always: pydantic then parses the source
    schema = TypeAdapter(Config).json_schema(schema_generator=_Generator)
    for definition in schema["$defs"].values():
        kind = definition["properties"].get("type", {})
        if kind.pop("const", None):
            # The `type` of a credential: it has a default in the code, and must be in the file.
            kind["const"] = kind.pop("default")
            definition["required"] = ["type", *definition.get("required", [])]
    schema["$defs"]["Discover"] |= _DISCOVER
    schema["properties"]["vaults"]["additionalProperties"] = False
    described: dict[str, Any] = _on_one_line({"$schema": _DRAFT, **schema, "title": "keysync configuration", **_TOP})
    return described


def _on_one_line(schema: Any) -> Any:  # noqa: ANN401  # any JSON
    if isinstance(schema, dict):
        return {key: _on_one_line(value) for key, value in cast("dict[str, object]", schema).items()}
    if isinstance(schema, list):
        return [_on_one_line(value) for value in cast("list[object]", schema)]
    return " ".join(schema.split()) if isinstance(schema, str) else schema


def render_schema() -> str:
    """The schema as text that ends with a newline. The same model gives the same text."""
    return json.dumps(json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
