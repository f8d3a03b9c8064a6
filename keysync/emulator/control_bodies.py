"""The bodies of requests to the control address, checked by models."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from keysync.emulator.wire import Call, Refused, error, json_body

_Model = TypeVar("_Model", bound=BaseModel)


def parse(call: Call, model: type[_Model], what: str) -> _Model:
    """The JSON body of a call. Raises Refused with every problem of it; `what` names the body there."""
    try:
        return model.model_validate(json_body(call))
    except ValidationError as failure:
        parts = failure.errors(include_url=False, include_input=False)
        message = f"Invalid {what}: {'; '.join(_describe(part, model) for part in parts)}."
        raise Refused(error(400, "BadRequest", message)) from None


def _describe(part: ErrorDetails, model: type[BaseModel]) -> str:
    path = ".".join(str(step) for step in part["loc"])
    if part["type"] == "extra_forbidden":
        fields = [field.alias or name for name, field in model.model_fields.items()]
        return f"there is no field {path!r}{guess(path, fields)}"
    message = part["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def guess(name: str, known: Collection[str]) -> str:
    """The known name that is most similar, as an addition to a message."""
    from keysync.config.formats import nearest  # noqa: PLC0415  # needed only for an error

    similar = nearest(name, known)
    return f" (did you mean {similar!r}?)" if similar else f" (there are {', '.join(known)})"
