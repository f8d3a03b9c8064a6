"""Types of values in the configuration: durations, GUIDs, names, URLs, patterns of names.

Each is an annotated type. Its validator says what it expects, and its JSON Schema describes the text in the file.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from keysync.config.formats import (
    ACCOUNT_NAME,
    DURATION,
    GUID,
    PLACEHOLDER,
    PLACEHOLDERS,
    RESOURCE_GROUP,
    SECRET_NAME,
    UNITS,
    VAULT_NAME,
    format_duration,
    has_zones,
    render_name,
    split_listen,
    zone_of,
)
from keysync.config.plain_values import is_mapping
from keysync.config.validation_errors import expected, problem

_LONGEST = timedelta(days=366)  # a longer one is a mistake; a timer could hold far more
_CRON_FIELDS = {  # the values of each field of a cron expression, in order
    "minute": "0-59",
    "hour": "0-23",
    "day": "1-31 or L for the last",
    "month": "1-12 or jan-dec",
    "weekday": "0-7 (0 and 7 are Sunday) or sun-sat",
}
_DURATION_EXPECTED = "a duration such as 500ms, 30s, 5m, 1h30m or 1d"


def parse_duration(value: object) -> timedelta:
    """Parses a duration such as ``1h30m``. Units are d, h, m, s, ms, each at most once and in this order; 366d at most.

    Raises a PydanticCustomError, a ValueError, for any other value.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise expected(_DURATION_EXPECTED, f"write a unit: {value}s" if 0 <= value < 1e9 else None)
    if not isinstance(value, str) or not re.fullmatch(DURATION, value):
        raise expected(_DURATION_EXPECTED)
    parts = re.findall(r"([0-9]+)(ms|[dhms])", value)
    total = sum(int(count) * UNITS[unit] for count, unit in parts)
    if total > _LONGEST / timedelta(milliseconds=1):
        raise expected("a duration of 366d or less")
    return timedelta(milliseconds=total)


def _above_zero(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise expected("a duration above 0s")
    return value


_WRITTEN = PlainSerializer(format_duration, return_type=str, when_used="json")
_DURATION_SCHEMA = WithJsonSchema({"type": "string", "pattern": DURATION, "examples": ["500ms", "30s", "1h30m"]})

Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), AfterValidator(_above_zero), _WRITTEN, _DURATION_SCHEMA
]
"""A duration above zero; text such as ``30s`` or ``1h30m`` in the file."""

DurationOrZero = Annotated[timedelta, BeforeValidator(parse_duration), _WRITTEN, _DURATION_SCHEMA]
"""A duration; ``0s`` means none."""


def _guid(value: str) -> str:
    if not re.fullmatch(GUID, value):
        raise expected("a GUID such as 00000000-0000-0000-0000-000000000000")
    return value.lower()


def _account_name(value: str) -> str:
    if not re.fullmatch(ACCOUNT_NAME, value):
        raise expected("the name of a Batch account: 3 to 24 letters and digits, nothing else")
    return value


def _resource_group(value: str) -> str:
    if not re.fullmatch(RESOURCE_GROUP, value):
        raise expected(
            "the name of a resource group: 1 to 90 letters, digits and any of _ - . ( ), without a dot at the end"
        )
    return value


def _vault_name(value: str) -> str:
    if not re.fullmatch(VAULT_NAME, value):
        hint = "choose any name; the address of the vault belongs under `url`"
        raise expected("the name of a vault: 1 to 127 letters, digits and any of . _ -", hint)
    return value


def _whole_number(value: object) -> object:
    # pydantic would accept true as 1.
    if isinstance(value, bool):
        raise expected("a whole number")
    return value


Guid = Annotated[str, AfterValidator(_guid), WithJsonSchema({"type": "string", "pattern": GUID})]
"""A GUID; the model holds it in lower case."""

AccountName = Annotated[str, AfterValidator(_account_name), WithJsonSchema({"type": "string", "pattern": ACCOUNT_NAME})]
"""The name of a Batch account."""

VaultName = Annotated[str, AfterValidator(_vault_name), WithJsonSchema({"type": "string", "pattern": VAULT_NAME})]
"""The name of a vault in the configuration. It need not be its name in Azure."""

ResourceGroup = Annotated[
    str, AfterValidator(_resource_group), WithJsonSchema({"type": "string", "pattern": RESOURCE_GROUP})
]
"""The name of a resource group."""

Percent = Annotated[int, Field(ge=0, le=100), BeforeValidator(_whole_number)]
"""A percentage."""

Count = Annotated[int, Field(ge=0), BeforeValidator(_whole_number)]
"""A number of things, 0 or more."""

Concurrency = Annotated[int, Field(ge=1, le=1024), BeforeValidator(_whole_number)]
"""A number of concurrent requests."""


def _split_url(value: str, example: str) -> SplitResult:
    expectation = f"an https URL such as {example}"
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - a property that raises
    except ValueError:
        raise expected(expectation) from None
    plain = re.fullmatch(r"[!-~]+", value) and not parts.query and not parts.fragment and "@" not in parts.netloc
    if parts.scheme != "https" or not parts.hostname or not plain or "\\" in value or value[-1] in "?#":
        hint = "only https is allowed" if parts.scheme == "http" else None
        raise expected(expectation, hint)
    return parts


def _host(parts: SplitResult) -> str:
    name = parts.hostname or ""
    name = f"[{name}]" if ":" in name else name
    return name if parts.port in (None, 443) else f"{name}:{parts.port}"


def _vault_url(value: str) -> str:
    example = "https://kv-render.vault.azure.net"
    parts = _split_url(value, example)
    if parts.path not in ("", "/"):
        raise expected(f"an https URL without a path, such as {example}")
    return f"https://{_host(parts)}"


def _https_url(value: str) -> str:
    parts = _split_url(value, "https://management.azure.com")
    return f"https://{_host(parts)}{parts.path.rstrip('/')}"


_URL_SCHEMA = {"type": "string", "format": "uri", "pattern": "^https://"}

VaultUrl = Annotated[
    str, AfterValidator(_vault_url), WithJsonSchema({**_URL_SCHEMA, "pattern": r"^https://[^/?#@\s]+/?$"})
]
"""The URL of a vault; the model holds it in lower case and without a trailing slash."""

HttpsUrl = Annotated[str, AfterValidator(_https_url), WithJsonSchema(_URL_SCHEMA)]
"""An https URL; the model holds it without a trailing slash."""


def _webhook_url(value: str) -> str:
    expectation = "an https URL such as https://hooks.example.com/keysync"
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - a property that raises
    except ValueError:
        raise expected(expectation) from None
    plain = re.fullmatch(r"[!-~]+", value) and not parts.fragment and "@" not in parts.netloc
    if parts.scheme != "https" or not parts.hostname or not plain or "\\" in value:
        raise expected(expectation, "only https is allowed" if parts.scheme == "http" else None)
    return value


WebhookUrl = Annotated[str, AfterValidator(_webhook_url), WithJsonSchema(_URL_SCHEMA)]
"""An https URL exactly as written, since a trailing slash and a query matter to a receiver."""


def _name_pattern(value: str) -> str:
    for name in PLACEHOLDER.findall(value):
        if name not in PLACEHOLDERS:
            allowed = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise expected(f"a pattern whose placeholders are among {allowed}")
    if not re.fullmatch(SECRET_NAME, render_name(value, dict.fromkeys(PLACEHOLDERS, "a"))):
        raise expected("a pattern that gives 1 to 127 letters, digits and dashes, such as {account}-primary-key")
    return value


NamePattern = Annotated[
    str,
    AfterValidator(_name_pattern),
    WithJsonSchema(
        {"type": "string", "pattern": r"^([0-9a-zA-Z-]|\{(account|subscription_id|resource_group)\}){1,127}$"}
    ),
]
"""The name of a secret; it may contain placeholders in braces."""


def check_cron(cron: str) -> None:
    """Raises a PydanticCustomError unless `cron` is a cron expression of five fields that has a fire time."""
    from cronsim import CronSim, CronSimError  # noqa: PLC0415  # only needed for a cron expression

    fields = cron.split()
    if len(fields) != len(_CRON_FIELDS):
        raise expected('a cron expression of five fields such as "*/5 * * * *"', "minute, hour, day, month, weekday")
    now = datetime.now(UTC)
    for index, (name, values) in enumerate(_CRON_FIELDS.items()):
        try:
            CronSim(" ".join(field if field_index == index else "*" for field_index, field in enumerate(fields)), now)
        except (CronSimError, ValueError):  # ValueError: more digits than Python converts
            raise expected(f"{values} in the field {name}") from None
    try:
        next(CronSim(cron, now))
    except (CronSimError, StopIteration):
        raise problem(f"{cron!r} never fires", "check its day and its month: the third and the fourth field") from None


def check_timezone(name: str) -> str:
    """`name`, if it is a time zone that this machine knows. Raises a PydanticCustomError otherwise."""
    try:
        zone_of(name)
    except (ValueError, OSError, KeyError):
        if has_zones():
            raise expected("a time zone such as UTC or Asia/Tokyo") from None
        raise problem(
            "this machine has no time zone database, so only UTC can be used",
            "install the system's package tzdata or Python's (pip install tzdata), or use UTC",
        ) from None
    return name


def check_listen(value: str) -> str:
    """`value`, if it is an address and a port. Raises a PydanticCustomError otherwise."""
    try:
        split_listen(value)
    except ValueError:
        raise expected("an address and a port such as 127.0.0.1:8080") from None
    return value


def check_tag_count(tags: dict[str, str], limit: int) -> None:
    """Raises a PydanticCustomError for more than `limit` tags of the user: keysync needs the others."""
    if len(tags) > limit:
        raise problem(
            f"found {len(tags)} tags, expected at most {limit}: a secret can have 15, and keysync writes the others"
        )


def is_reserved(tag: str) -> bool:
    """Whether a name of a tag is reserved for keysync."""
    return tag.casefold() == "managed-by" or tag.casefold().startswith("keysync-")


def kind_of(value: object) -> str | None:
    """The `type` of a credential, which is a mapping of the file or a model."""
    kind = value.get("type") if is_mapping(value) else getattr(value, "type", None)
    return kind if isinstance(kind, str) else None
