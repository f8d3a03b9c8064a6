"""The kinds of values that the configuration is made of: durations, GUIDs, names, addresses, patterns of names.

Each is an annotated type whose validator says what it expects, and whose JSON Schema describes what is written in
the file (a duration is text there).
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

_LONGEST = timedelta(days=366)  # longer than this is a slip of the pen, and far from what a timer can hold
_CRON_FIELDS = {  # what each field of a crontab takes, in order
    "minute": "0-59",
    "hour": "0-23",
    "day": "1-31 or L for the last",
    "month": "1-12 or jan-dec",
    "weekday": "0-7 (0 and 7 are Sunday) or sun-sat",
}
_DURATION_EXPECTED = "a duration such as 500ms, 30s, 5m, 1h30m or 1d"


def parse_duration(value: object) -> timedelta:
    """``1h30m`` as a timedelta. Units d, h, m, s, ms, each at most once and in this order; 366d at most."""
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
"""A span of time above zero; text such as ``30s`` or ``1h30m`` in the file."""

DurationOrZero = Annotated[timedelta, BeforeValidator(parse_duration), _WRITTEN, _DURATION_SCHEMA]
"""A span of time, where ``0s`` means "none"."""


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
        hint = "the name is of your own choice; where the vault is goes under `url`"
        raise expected("the name of a vault: 1 to 127 letters, digits and any of . _ -", hint)
    return value


def _whole_number(value: object) -> object:
    # pydantic takes true for 1, and nobody means that.
    if isinstance(value, bool):
        raise expected("a whole number")
    return value


Guid = Annotated[str, AfterValidator(_guid), WithJsonSchema({"type": "string", "pattern": GUID})]
"""A GUID, in lower case once read."""

AccountName = Annotated[str, AfterValidator(_account_name), WithJsonSchema({"type": "string", "pattern": ACCOUNT_NAME})]
"""The name of a Batch account."""

VaultName = Annotated[str, AfterValidator(_vault_name), WithJsonSchema({"type": "string", "pattern": VAULT_NAME})]
"""The name of a vault in the configuration, which is not its name in Azure."""

ResourceGroup = Annotated[
    str, AfterValidator(_resource_group), WithJsonSchema({"type": "string", "pattern": RESOURCE_GROUP})
]
"""The name of a resource group."""

Percent = Annotated[int, Field(ge=0, le=100), BeforeValidator(_whole_number)]
"""A share of a hundred."""

Count = Annotated[int, Field(ge=0), BeforeValidator(_whole_number)]
"""A number of things, none included."""

Concurrency = Annotated[int, Field(ge=1, le=1024), BeforeValidator(_whole_number)]
"""A number of requests at once."""


def _address(value: str, example: str) -> SplitResult:
    wanted = f"an https URL such as {example}"
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - a property that raises
    except ValueError:
        raise expected(wanted) from None
    bare = re.fullmatch(r"[!-~]+", value) and not parts.query and not parts.fragment and "@" not in parts.netloc
    if parts.scheme != "https" or not parts.hostname or not bare or "\\" in value or value[-1] in "?#":
        hint = "only https is allowed" if parts.scheme == "http" else None
        raise expected(wanted, hint)
    return parts


def _host(parts: SplitResult) -> str:
    name = parts.hostname or ""
    name = f"[{name}]" if ":" in name else name
    return name if parts.port in (None, 443) else f"{name}:{parts.port}"


def _vault_url(value: str) -> str:
    example = "https://kv-render.vault.azure.net"
    parts = _address(value, example)
    if parts.path not in ("", "/"):
        raise expected(f"an https URL without a path, such as {example}")
    return f"https://{_host(parts)}"


def _https_url(value: str) -> str:
    parts = _address(value, "https://management.azure.com")
    return f"https://{_host(parts)}{parts.path.rstrip('/')}"


_URL_SCHEMA = {"type": "string", "format": "uri", "pattern": "^https://"}

VaultUrl = Annotated[
    str, AfterValidator(_vault_url), WithJsonSchema({**_URL_SCHEMA, "pattern": r"^https://[^/?#@\s]+/?$"})
]
"""The address of a vault, in lower case and without a slash at the end once read."""

HttpsUrl = Annotated[str, AfterValidator(_https_url), WithJsonSchema(_URL_SCHEMA)]
"""An https address without a slash at the end once read."""


def _webhook_url(value: str) -> str:
    wanted = "an https URL such as https://hooks.example.com/keysync"
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - a property that raises
    except ValueError:
        raise expected(wanted) from None
    bare = re.fullmatch(r"[!-~]+", value) and not parts.fragment and "@" not in parts.netloc
    if parts.scheme != "https" or not parts.hostname or not bare or "\\" in value:
        raise expected(wanted, "only https is allowed" if parts.scheme == "http" else None)
    return value


WebhookUrl = Annotated[str, AfterValidator(_webhook_url), WithJsonSchema(_URL_SCHEMA)]
"""An https address exactly as written: to a receiver, a slash at the end and a query mean something."""


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
"""The name of a secret, with placeholders in braces."""


def check_cron(cron: str) -> None:
    """Raises what a validator raises where `cron` is no crontab of five fields, or has no fire time."""
    from cronsim import CronSim, CronSimError  # noqa: PLC0415  # only needed where a crontab is used

    fields = cron.split()
    if len(fields) != len(_CRON_FIELDS):
        raise expected('five fields of a crontab such as "*/5 * * * *"', "minute, hour, day, month, weekday")
    now = datetime.now(UTC)
    for at, (name, values) in enumerate(_CRON_FIELDS.items()):
        try:
            CronSim(" ".join(fields[at] if at == other else "*" for other in range(len(fields))), now)
        except (CronSimError, ValueError):  # ValueError: more digits than Python converts
            raise expected(f"{values} in the field {name}") from None
    try:
        next(CronSim(cron, now))
    except (CronSimError, StopIteration):
        raise problem(
            f"{cron!r} never comes", "look at its day and its month: the third and the fourth field"
        ) from None


def check_timezone(name: str) -> str:
    """A time zone that this machine knows."""
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
    """An address and a port."""
    try:
        split_listen(value)
    except ValueError:
        raise expected("an address and a port such as 127.0.0.1:8080") from None
    return value


def check_room(tags: dict[str, str], room: int) -> None:
    """Raises what a validator raises where the user's tags take the room of those that keysync writes."""
    if len(tags) > room:
        raise problem(
            f"found {len(tags)} tags, expected at most {room}: a secret has 15, and keysync writes the others"
        )


def reserved(tag: str) -> bool:
    """Whether keysync writes a tag of this name itself."""
    return tag.casefold() == "managed-by" or tag.casefold().startswith("keysync-")


def kind_of(value: object) -> str | None:
    """The `type` of a credential, which is a mapping of the file or a model."""
    kind = value.get("type") if is_mapping(value) else getattr(value, "type", None)
    return kind if isinstance(kind, str) else None
