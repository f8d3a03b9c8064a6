"""Types of values in the configuration: durations, GUIDs, names, URLs, patterns of names.

A type is annotated with markers. The model uses it as its plain type; pydantic, when it validates or writes the JSON Schema,
asks each marker for its part. So only validation imports pydantic, and a daemon that holds a configuration does not need it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, TypeAlias, get_args
from urllib.parse import SplitResult, urlsplit

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

Location: TypeAlias = tuple[str | int, ...]
"""The path to a value from the top of the file: keys of mappings and indexes of lists."""

MISSING: Final = "the key is required and missing"

_LONGEST = timedelta(days=366)  # a longer one is a mistake; a timer could hold far more
_CRON_FIELDS = {  # the values of each field of a cron expression, in order
    "minute": "0-59",
    "hour": "0-23",
    "day": "1-31 or L for the last",
    "month": "1-12 or jan-dec",
    "weekday": "0-7 (0 and 7 are Sunday) or sun-sat",
}
_DURATION_EXPECTED = "a duration such as 500ms, 30s, 5m, 1h30m or 1d"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the value at `at`, a location below the checked value.

    `keysync.config.validate` adds the position, and "found …" if `is_expectation`. It hides secrets, so that no check can put
    one into a message.
    """

    message: str
    hint: str | None = None
    at: Location = ()
    is_expectation: bool = False


class Invalid(ValueError):  # reads as a sentence: raise Invalid(...)
    """A value breaks one rule or more."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(it.message + (f" ({it.hint})" if it.hint else "") for it in problems))
        self.problems = problems


def expected(expectation: str, hint: str | None = None) -> Invalid:
    """For a value of the wrong form. The message becomes "found …, expected `expectation`"."""
    return Invalid(Problem(expectation, hint, is_expectation=True))


def missing(key: str) -> Problem:
    """A required key is absent."""
    return Problem(MISSING, at=(key,))


def require_none(problems: Iterable[Problem]) -> None:
    """Raises Invalid with all `problems`, if there are any."""
    if found := tuple(problems):
        raise Invalid(*found)


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A marker: `parse` converts the value in the file before the type checks it, and `check` the value of the type.

    Both raise Invalid. `schema` adds to the JSON Schema of the type, and replaces it if there is a `parse`.
    """

    check: Callable[[Any], Any] | None = None
    schema: Mapping[str, Any] = field(default_factory=dict[str, Any])
    parse: Callable[[Any], Any] | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:  # noqa: ANN401  # the types of pydantic
        """Called by pydantic."""
        from pydantic_core import core_schema  # noqa: PLC0415  # see the docstring of the module

        inner = handler(source)
        if self.parse is not None:
            inner = core_schema.no_info_before_validator_function(self.parse, inner)
        return inner if self.check is None else core_schema.no_info_after_validator_function(self.check, inner)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401  # as above
        """Called by pydantic."""
        own: dict[str, Any] = {} if self.parse is not None and self.schema else handler(schema)
        return {**own, **self.schema}


@dataclass(frozen=True, slots=True, eq=False)
class Select:
    """A marker of a union: `select` returns the index of the member that a value belongs to, or raises Invalid."""

    select: Callable[[Any], int]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:  # noqa: ANN401  # the types of pydantic
        """Called by pydantic. In a location of pydantic, ``=2`` stands for the member with the index 2."""
        from pydantic_core import core_schema  # noqa: PLC0415  # see the docstring of the module

        def check(value: object) -> object:
            self.select(value)  # here, because pydantic does not expect a discriminator to raise
            return value

        members = {f"={index}": handler.generate_schema(member) for index, member in enumerate(get_args(source))}
        union = core_schema.tagged_union_schema(members, lambda value: f"={self.select(value)}")
        return core_schema.no_info_before_validator_function(check, union)


class Strict:
    """Base of all mappings of the file: pydantic refuses unknown keys, and its error texts contain no values."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "hide_input_in_errors": True}


class FromEnvironment(str):
    """Text with values of environment variables. `variable` is the name if the file had ``${NAME}`` and nothing else."""

    __slots__ = ("variable",)
    variable: str | None


def matching(pattern: str, expectation: str | None = None, hint: str | None = None) -> Rule:
    """Text that matches a regular expression."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise expected(expectation or f"text that matches {pattern}", hint)
        return value

    return Rule(check, {"pattern": pattern})


def length(lowest: int, highest: int) -> Rule:
    """Text with a number of characters."""

    def check(value: str) -> str:
        if not lowest <= len(value) <= highest:
            raise expected(f"text of {lowest} to {highest} characters")
        return value

    return Rule(check, {"maxLength": highest, **({"minLength": lowest} if lowest else {})})


def between(lowest: int, highest: int | None = None) -> Rule:
    """A whole number in a range."""

    def check(value: int) -> int:
        if value < lowest:
            raise expected(f"{lowest} or more")
        if highest is not None and value > highest:
            raise expected(f"{highest} or less")
        return value

    return Rule(check, {"minimum": lowest, **({} if highest is None else {"maximum": highest})})


def _not_empty(values: tuple[object, ...]) -> tuple[object, ...]:
    if not values:
        raise expected("at least 1 in it")
    return values


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


def _above_zero(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise expected("a duration above 0s")
    return value


def _one_second(value: timedelta) -> timedelta:
    if value < timedelta(seconds=1):
        raise expected("a duration of 1s or more")
    return value


def _split_url(value: str, example: str) -> SplitResult:
    expectation = f"an https URL such as {example}"
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - a property that raises
    except ValueError:
        raise expected(expectation) from None
    plain = re.fullmatch(r"[!-~]+", value) and "\\" not in value and "@" not in parts.netloc and not parts.fragment
    if parts.scheme != "https" or not parts.hostname or not plain:
        raise expected(expectation, "only https is allowed" if parts.scheme == "http" else None)
    return parts


def _normalized_url(value: str, example: str) -> str:
    parts = _split_url(value, example)
    if parts.query or value[-1] in "?#":
        raise expected(f"an https URL such as {example}")
    name = parts.hostname or ""
    name = f"[{name}]" if ":" in name else name
    host = name if parts.port in (None, 443) else f"{name}:{parts.port}"
    return f"https://{host}{parts.path.rstrip('/')}"


def _vault_url(value: str) -> str:
    example = "https://kv-render.vault.azure.net"
    url = _normalized_url(value, example)
    if url.count("/") > 2:  # those after the scheme
        raise expected(f"an https URL without a path, such as {example}")
    return url


def _https_url(value: str) -> str:
    return _normalized_url(value, "https://management.azure.com")


def _webhook_url(value: str) -> str:
    _split_url(value, "https://hooks.example.com/keysync")
    return value


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
_PATTERN_SCHEMA: Final = r"^([0-9a-zA-Z-]|\{(account|subscription_id|resource_group)\}){1,127}$"

DurationOrZero = Annotated[timedelta, Rule(parse=parse_duration, schema=_DURATION_SCHEMA)]
"""A duration; text such as ``30s`` or ``1h30m`` in the file."""

Duration = Annotated[DurationOrZero, Rule(_above_zero)]
"""A duration above zero."""

Interval = Annotated[Duration, Rule(_one_second)]
"""A duration of a second or more."""

Guid = Annotated[
    str,
    matching(GUID, "a GUID such as 00000000-0000-0000-0000-000000000000"),
    Rule(str.lower),
]
"""A GUID; the model holds it in lower case."""

AccountName = Annotated[
    str, matching(ACCOUNT_NAME, "the name of a Batch account: 3 to 24 letters and digits, nothing else")
]
"""The name of a Batch account."""

VaultName = Annotated[
    str,
    matching(
        VAULT_NAME,
        "the name of a vault: 1 to 127 letters, digits and any of . _ -",
        "choose any name; the address of the vault belongs under `url`",
    ),
]
"""The name of a vault in the configuration. It need not be its name in Azure."""

ResourceGroup = Annotated[
    str,
    matching(
        RESOURCE_GROUP,
        "the name of a resource group: 1 to 90 letters, digits and any of _ - . ( ), without a dot at the end",
    ),
]
"""The name of a resource group."""

Text = Annotated[str, length(1, 256)]
"""Text with 1 to 256 characters."""

Identifier = Annotated[str, matching(r"^[0-9a-zA-Z._-]{1,256}$")]
"""The id of a tenant or of an application."""

NOT_EMPTY: Final = Rule(_not_empty, {"minItems": 1})

Integer = Annotated[int, Rule(parse=_no_boolean)]
"""A whole number."""

Percent = Annotated[Integer, between(0, 100)]
"""A percentage."""

Count = Annotated[Integer, between(0)]
"""A number of things, 0 or more."""

VaultUrl = Annotated[str, Rule(_vault_url, {**_URL_SCHEMA, "pattern": r"^https://[^/?#@\s]+/?$"})]
"""The URL of a vault; the model holds it in lower case and without a trailing slash."""

HttpsUrl = Annotated[str, Rule(_https_url, _URL_SCHEMA)]
"""An https URL; the model holds it without a trailing slash."""

WebhookUrl = Annotated[str, Rule(_webhook_url, _URL_SCHEMA)]
"""An https URL exactly as written, since a trailing slash and a query matter to a receiver."""

NamePattern = Annotated[str, Rule(_name_pattern, {"pattern": _PATTERN_SCHEMA})]
"""The name of a secret; it may contain placeholders in braces."""

Cron = Annotated[str, Rule(_cron)]
"""A cron expression of five fields that has a fire time."""

Timezone = Annotated[str, Rule(_timezone)]
"""An IANA time zone that this machine knows."""

Listen = Annotated[str, Rule(_listen)]
"""An address and a port."""
