"""Text formats of names, durations, addresses and time zones. Used to read the file and to show values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import UTC, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

ACCOUNT_NAME: Final = r"^[a-zA-Z0-9]{3,24}$"
SECRET_NAME: Final = r"^[0-9a-zA-Z-]{1,127}$"  # noqa: S105  # nosec B105  # a pattern of names
GUID: Final = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
VAULT_NAME: Final = r"^[0-9a-zA-Z._-]{1,127}$"
RESOURCE_GROUP: Final = r"^[\w.()-]{0,89}[\w()-]$"
DURATION: Final = r"^(?=[0-9])([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m(?!s))?([0-9]{1,9}s)?([0-9]{1,9}ms)?$"
UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
"""Units of durations, in milliseconds."""
DEFAULT_LISTEN: Final = "127.0.0.1:8080"
PLACEHOLDERS: Final = ("account", "subscription_id", "resource_group")
"""Names of placeholders in a pattern of a secret's name."""

PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_LISTEN: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[0-9a-zA-Z._-]+):([0-9]{1,5})")


def format_duration(value: timedelta) -> str:
    """A timedelta as text for the file: ``1h30m``. Rounds to milliseconds."""
    rest = round(value / timedelta(milliseconds=1))
    text = ""
    for unit, size in UNITS.items():
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def render_name(pattern: str, values: dict[str, str]) -> str:
    """`pattern` with its placeholders replaced by `values`."""
    return PLACEHOLDER.sub(lambda match: values[match.group(1)], pattern)


def batch_account_id(subscription: str, group: str, name: str) -> str:
    """The ARM id of a Batch account; `subscription` is in lower case."""
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Batch/batchAccounts/{name}"


def split_listen(value: str) -> tuple[str, int]:
    """Splits ``127.0.0.1:8080`` or ``[::1]:8080`` into host and port; port 0 lets the system choose. Raises ValueError."""
    match = _LISTEN.fullmatch(value)
    if not match or int(match.group(2)) > 65_535:
        raise ValueError(value)
    return match.group(1).strip("[]"), int(match.group(2))


def zone_of(name: str | None) -> tzinfo:
    """The time zone of an IANA name, UTC for None. Only UTC needs no time zone database.

    Raises ZoneInfoNotFoundError, a KeyError, for an unknown name, and ValueError or OSError for an impossible one.
    """
    return UTC if name is None or name == "UTC" else ZoneInfo(name)


def has_zones() -> bool:
    """Whether this machine has a time zone database: the system's, or the package tzdata."""
    try:
        ZoneInfo("Etc/UTC")
    except (KeyError, OSError):
        return False
    return True


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most similar to `word`, for a hint; None if none is similar."""
    by_fold = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), list(by_fold), n=1, cutoff=0.6)
    return by_fold[close[0]] if close else None
