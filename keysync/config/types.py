"""Types of values in the configuration: durations, GUIDs, names, URLs, patterns of names."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from urllib.parse import urlsplit

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
    has_zones,
    render_name,
    split_listen,
    zone_of,
)
from keysync.config.rules import Invalid, Problem, Rule, at_least, at_most, expected, length, matching, requiring

_LONGEST = timedelta(days=366)  # a longer one is a mistake; a timer could hold far more
_CRON_FIELDS = {  # the values of each field of a cron expression, in order
    "minute": "0-59",
    "hour": "0-23",
    "day": "1-31 or L for the last",
    "month": "1-12 or jan-dec",
    "weekday": "0-7 (0 and 7 are Sunday) or sun-sat",
}
_DURATION_EXPECTED = "a duration such as 500ms, 30s, 5m, 1h30m or 1d"


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):  # pydantic would accept true as 1
        raise expected("a whole number")
    return value


def parse_duration(value: object) -> timedelta:
    """Parses a duration such as ``1h30m``. Units are d, h, m, s, ms, each at most once and in this order; 366d at most.

    Raises Invalid, a ValueError, for any other value.
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


def _https_url(example: str, *, may_have_path: bool = True, exact: bool = False) -> Callable[[str], str]:
    """Checks an https URL, and normalizes it unless `exact`: in lower case, without the default port and a last slash."""
    expectation = f"an https URL such as {example}"

    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise expected(expectation) from None
        plain = re.fullmatch(r"[!-~]+", value) and "\\" not in value and "@" not in parts.netloc and not parts.fragment
        if parts.scheme != "https" or not parts.hostname or not plain:
            raise expected(expectation, "only https is allowed" if parts.scheme == "http" else None)
        if exact:
            return value
        if parts.query or value[-1] in "?#":
            raise expected(expectation)
        if parts.path.strip("/") and not may_have_path:
            raise expected(f"an https URL without a path, such as {example}")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"https://{host}{'' if port in (None, 443) else f':{port}'}{parts.path.rstrip('/')}"

    return check


def _name_pattern(value: str) -> str:
    for name in PLACEHOLDER.findall(value):
        if name not in PLACEHOLDERS:
            allowed = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise expected(f"a pattern whose placeholders are among {allowed}")
    if not re.fullmatch(SECRET_NAME, render_name(value, dict.fromkeys(PLACEHOLDERS, "a"))):
        raise expected("a pattern that gives 1 to 127 letters, digits and dashes, such as {account}-primary-key")
    return value


def _cron(cron: str) -> str:
    from cronsim import CronSim, CronSimError  # noqa: PLC0415  # only needed for a cron expression

    fields = cron.split()
    if len(fields) != len(_CRON_FIELDS):
        raise expected('a cron expression of five fields such as "*/5 * * * *"', "minute, hour, day, month, weekday")
    now = datetime.now(UTC)
    for index, (name, values) in enumerate(_CRON_FIELDS.items()):
        try:
            CronSim(" ".join(item if position == index else "*" for position, item in enumerate(fields)), now)
        except (CronSimError, ValueError):  # ValueError: more digits than Python converts
            raise expected(f"{values} in the field {name}") from None
    try:
        next(CronSim(cron, now))
    except (CronSimError, StopIteration):
        hint = "check its day and its month: the third and the fourth field"
        raise Invalid(Problem(f"{cron!r} never fires", hint)) from None
    return cron


def _timezone(name: str) -> str:
    try:
        zone_of(name)
    except (ValueError, OSError, KeyError):
        if has_zones():
            raise expected("a time zone such as UTC or Asia/Tokyo") from None
        message = "this machine has no time zone database, so only UTC can be used"
        hint = "install the system's package tzdata or Python's (pip install tzdata), or use UTC"
        raise Invalid(Problem(message, hint)) from None
    return name


def _listen(value: str) -> str:
    try:
        split_listen(value)
    except ValueError:
        raise expected("an address and a port such as 127.0.0.1:8080") from None
    return value


_DURATION_SCHEMA: Final = {"type": "string", "pattern": DURATION, "examples": ["500ms", "30s", "1h30m"]}
_URL_SCHEMA: Final = {"format": "uri", "pattern": "^https://"}
_VAULT_URL_SCHEMA: Final = {"format": "uri", "pattern": r"^https://[^/?#@\s]+/?$"}
_PATTERN_SCHEMA: Final = {"pattern": r"^([0-9a-zA-Z-]|\{(account|subscription_id|resource_group)\}){1,127}$"}

NOT_EMPTY: Final = requiring(bool, "at least 1 in it", minItems=1)

# The types. Each says more than its plain type about what a file may contain.
DurationOrZero = Annotated[timedelta, Rule(parse=parse_duration, schema=_DURATION_SCHEMA)]
Duration = Annotated[DurationOrZero, requiring(lambda value: value > timedelta(0), "a duration above 0s")]
Interval = Annotated[Duration, requiring(lambda value: value >= timedelta(seconds=1), "a duration of 1s or more")]
Integer = Annotated[int, Rule(parse=_no_boolean)]
Percent = Annotated[Integer, at_least(0), at_most(100)]
Count = Annotated[Integer, at_least(0)]
Text = Annotated[str, length(1, 256)]
Identifier = Annotated[str, matching(r"^[0-9a-zA-Z._-]{1,256}$")]  # of a tenant or an application
Guid = Annotated[str, matching(GUID, "a GUID such as 00000000-0000-0000-0000-000000000000"), Rule(str.lower)]
AccountName = Annotated[
    str, matching(ACCOUNT_NAME, "the name of a Batch account: 3 to 24 letters and digits, nothing else")
]
VaultName = Annotated[  # in the configuration; it need not be the vault's name in Azure
    str,
    matching(
        VAULT_NAME,
        "the name of a vault: 1 to 127 letters, digits and any of . _ -",
        "choose any name; the address of the vault belongs under `url`",
    ),
]
ResourceGroup = Annotated[
    str,
    matching(
        RESOURCE_GROUP,
        "the name of a resource group: 1 to 90 letters, digits and any of _ - . ( ), without a dot at the end",
    ),
]
NamePattern = Annotated[str, Rule(_name_pattern, _PATTERN_SCHEMA)]  # of a secret; with placeholders in braces
VaultUrl = Annotated[str, Rule(_https_url("https://kv-render.vault.azure.net", may_have_path=False), _VAULT_URL_SCHEMA)]
HttpsUrl = Annotated[str, Rule(_https_url("https://management.azure.com"), _URL_SCHEMA)]
# Exactly as written, since a trailing slash and a query matter to a receiver.
WebhookUrl = Annotated[str, Rule(_https_url("https://hooks.example.com/keysync", exact=True), _URL_SCHEMA)]
Cron = Annotated[str, Rule(_cron)]
Timezone = Annotated[str, Rule(_timezone)]
Listen = Annotated[str, Rule(_listen)]
