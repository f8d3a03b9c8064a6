"""Formats of values in the configuration, as types for the model: durations, addresses, time zones, names, URLs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from keysync.config.rules import Invalid, Problem, Rule, expected, length, matching, requiring, within

ACCOUNT_NAME: Final = r"^[a-zA-Z0-9]{3,24}$"
SECRET_NAME: Final = r"^[0-9a-zA-Z-]{1,127}$"  # noqa: S105  # nosec B105  # a pattern of names
GUID: Final = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
RESOURCE_GROUP: Final = r"^[\w.()-]{0,89}[\w()-]$"
DURATION: Final = r"^(?=[0-9])([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m(?!s))?([0-9]{1,9}s)?([0-9]{1,9}ms)?$"
DEFAULT_LISTEN: Final = "127.0.0.1:8080"

_NAME_PATTERN: Final = r"^([0-9a-zA-Z-]|\{(account|subscription_id|resource_group)\}){1,127}$"
_PLACEHOLDERS: Final = dict.fromkeys(("{account}", "{subscription_id}", "{resource_group}"))
_LISTEN: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[0-9a-zA-Z._-]+):([0-9]{1,5})")
_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}  # in milliseconds
_LONGEST: Final = timedelta(days=366)  # a longer one is a mistake; a timer could hold far more
_CRON_FIELDS: Final = (  # the values of each field of a cron expression, in order
    "0-59 in the field minute",
    "0-23 in the field hour",
    "1-31 or L for the last in the field day",
    "1-12 or jan-dec in the field month",
    "0-7 (0 and 7 are Sunday) or sun-sat in the field weekday",
)


def parse_duration(value: object) -> timedelta:
    """Parses a duration such as ``1h30m``. Units are d, h, m, s, ms, each at most once and in this order; 366d at most.

    Raises Invalid, a ValueError, for any other value.
    """
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not re.fullmatch(DURATION, value):
        has_no_unit = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9
        hint = f"write a unit: {value}s" if has_no_unit else None
        raise expected("a duration such as 500ms, 30s, 5m, 1h30m or 1d", hint)
    parts = re.findall(r"([0-9]+)(ms|[dhms])", value)
    total = sum(int(count) * _UNITS[unit] for count, unit in parts)
    if total > _LONGEST / timedelta(milliseconds=1):
        raise expected("a duration of 366d or less")
    return timedelta(milliseconds=total)


def format_duration(value: timedelta) -> str:
    """A timedelta as text for the file: ``1h30m``. Rounds to milliseconds."""
    rest = round(value / timedelta(milliseconds=1))
    text = ""
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def split_listen(value: str) -> tuple[str, int]:
    """Splits ``127.0.0.1:8080`` or ``[::1]:8080`` into host and port; port 0 lets the system choose.

    Raises Invalid, a ValueError.
    """
    match = _LISTEN.fullmatch(value)
    if not match or int(match.group(2)) > 65_535:
        raise expected("an address and a port such as 127.0.0.1:8080")
    return match.group(1).strip("[]"), int(match.group(2))


def zone_of(name: str | None) -> tzinfo:
    """The time zone of an IANA name, UTC for None. Only UTC needs no time zone database.

    Raises ZoneInfoNotFoundError, a KeyError, for an unknown name, and ValueError or OSError for an impossible one.
    """
    return UTC if name is None or name == "UTC" else ZoneInfo(name)


def batch_account_id(subscription: str, group: str, name: str) -> str:
    """The ARM id of a Batch account; `subscription` is in lower case."""
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Batch/batchAccounts/{name}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most similar to `word`, for a hint; None if none is similar."""
    by_fold = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), list(by_fold), n=1, cutoff=0.6)
    return by_fold[close[0]] if close else None


def _https_url(example: str, *, may_have_path: bool = True, exact: bool = False) -> Callable[[str], str]:
    """Checks an https URL, and normalizes it unless `exact`: in lower case, without the default port and a last slash."""
    expectation = f"an https URL such as {example}"

    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise expected(expectation) from None
        unusual = re.search(r"[^!-~]|[\\#]" if exact else r"[^!-~]|[\\#?]", value) or "@" in parts.netloc
        if parts.scheme != "https" or not parts.hostname or unusual:
            raise expected(expectation, "only https is allowed" if parts.scheme == "http" else None)
        if exact:
            return value
        if parts.path.strip("/") and not may_have_path:
            raise expected(f"an https URL without a path, such as {example}")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"https://{host}{'' if port in (None, 443) else f':{port}'}{parts.path.rstrip('/')}"

    return check


def _cron(cron: str) -> str:
    from cronsim import CronSim, CronSimError  # noqa: PLC0415  # only needed for a cron expression

    fields = cron.split()
    if len(fields) != len(_CRON_FIELDS):
        raise expected('a cron expression of five fields such as "*/5 * * * *"', "minute, hour, day, month, weekday")
    now = datetime.now(UTC)
    for index, values in enumerate(_CRON_FIELDS):
        try:
            CronSim(" ".join(["*"] * index + [fields[index]] + ["*"] * (4 - index)), now)
        except (CronSimError, ValueError):  # ValueError: more digits than Python converts
            raise expected(values) from None
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
        if available_timezones():
            raise expected("a time zone such as UTC or Asia/Tokyo") from None
        message = "this machine has no time zone database, so only UTC can be used"
        hint = "install the system's package tzdata or Python's (pip install tzdata), or use UTC"
        raise Invalid(Problem(message, hint)) from None
    return name


def _listen(value: str) -> str:
    split_listen(value)
    return value


_DURATION_SCHEMA: Final = {"type": "string", "pattern": DURATION, "examples": ["500ms", "30s", "1h30m"]}
_URL_SCHEMA: Final = {"format": "uri", "pattern": "^https://"}
_VAULT_URL_SCHEMA: Final = {"format": "uri", "pattern": r"^https://[^/?#@\s]+/?$"}

NOT_EMPTY: Final = requiring(bool, "at least 1 in it", minItems=1)

# The types. Each says more than its plain type about what a file may contain.
DurationOrZero = Annotated[timedelta, Rule(parse=parse_duration, schema=_DURATION_SCHEMA)]
Duration = Annotated[DurationOrZero, requiring(lambda value: value > timedelta(0), "a duration above 0s")]
Interval = Annotated[Duration, requiring(lambda value: value >= timedelta(seconds=1), "a duration of 1s or more")]
_NO_BOOLEAN: Final = requiring(lambda value: not isinstance(value, bool), "a whole number")
Integer = Annotated[int, Rule(parse=_NO_BOOLEAN.check)]  # pydantic would accept true as 1
Percent = Annotated[Integer, within(0, 100)]
Count = Annotated[Integer, requiring(lambda value: value >= 0, "0 or more", minimum=0)]
Text = Annotated[str, length(1, 256)]
Identifier = Annotated[str, matching(r"^[0-9a-zA-Z._-]{1,256}$")]  # of a tenant or an application
Guid = Annotated[str, matching(GUID, "a GUID such as 00000000-0000-0000-0000-000000000000"), Rule(str.lower)]
_ACCOUNT: Final = "the name of a Batch account: 3 to 24 letters and digits, nothing else"
AccountName = Annotated[str, matching(ACCOUNT_NAME, _ACCOUNT)]
_VAULT: Final = "the name of a vault: 1 to 127 letters, digits and any of . _ -"
_VAULT_HINT: Final = "choose any name; the address of the vault belongs under `url`"
VaultName = Annotated[str, matching(r"^[0-9a-zA-Z._-]{1,127}$", _VAULT, _VAULT_HINT)]  # its name in Azure may differ
_GROUP: Final = "the name of a resource group: 1 to 90 letters, digits and any of _ - . ( ), without a dot at the end"
ResourceGroup = Annotated[str, matching(RESOURCE_GROUP, _GROUP)]
NamePattern = Annotated[  # of a secret; with placeholders in braces
    str,
    requiring(
        lambda pattern: {*re.findall(r"\{[^{}]*\}", pattern)} <= _PLACEHOLDERS.keys(),
        f"a pattern whose placeholders are among {', '.join(_PLACEHOLDERS)}",
    ),
    matching(_NAME_PATTERN, "a pattern that gives 1 to 127 letters, digits and dashes, such as {account}-primary-key"),
]
VaultUrl = Annotated[str, Rule(_https_url("https://kv-render.vault.azure.net", may_have_path=False), _VAULT_URL_SCHEMA)]
HttpsUrl = Annotated[str, Rule(_https_url("https://management.azure.com"), _URL_SCHEMA)]
# Exactly as written, since a trailing slash and a query matter to a receiver.
WebhookUrl = Annotated[str, Rule(_https_url("https://hooks.example.com/keysync", exact=True), _URL_SCHEMA)]
Cron = Annotated[str, Rule(_cron)]
Timezone = Annotated[str, Rule(_timezone)]
Listen = Annotated[str, Rule(_listen)]
