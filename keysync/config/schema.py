"""Generates the JSON Schema of the configuration file from the models."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from keysync.config.formats import format_duration
from keysync.config.models import Config

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    """Writes defaults in the format of the file, and omits titles that only repeat a key."""

    def encode_default(self, dft: Any) -> Any:  # noqa: ANN401  # the signature of pydantic
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)

    def field_title_should_be_set(self, schema: CoreSchema | Any) -> bool:  # noqa: ANN401, ARG002  # the signature of pydantic
        return False


def json_schema() -> dict[str, Any]:
    """The schema of the file (draft 2020-12). It describes the text in the file: a duration, for example, is a string."""
    return {"$schema": _DRAFT, **Config.model_json_schema(mode="validation", schema_generator=_Generator)}


def render_schema() -> str:
    """The schema as text that ends with a newline. The same models give the same text."""
    return json.dumps(json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
