"""How values are written: patterns of names, durations, addresses. Plain functions, for the file and for what is shown alike."""

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
"""Of durations, in milliseconds."""
DEFAULT_LISTEN: Final = "127.0.0.1:8080"
PLACEHOLDERS: Final = ("account", "subscription_id", "resource_group")
"""What a pattern of a secret's name may hold in braces."""

PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_LISTEN: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[0-9a-zA-Z._-]+):([0-9]{1,5})")


def format_duration(value: timedelta) -> str:
    """A timedelta as the file has it: ``1h30m``."""
    rest = round(value / timedelta(milliseconds=1))
    text = ""
    for unit, size in UNITS.items():
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def render_name(pattern: str, values: dict[str, str]) -> str:
    """A pattern with its placeholders replaced."""
    return PLACEHOLDER.sub(lambda match: values[match.group(1)], pattern)


def batch_account_id(subscription: str, group: str, name: str) -> str:
    """The id by which Resource Manager knows a Batch account; `subscription` is in lower case."""
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Batch/batchAccounts/{name}"


def split_listen(value: str) -> tuple[str, int]:
    """``127.0.0.1:8080`` or ``[::1]:8080`` as a host and a port; port 0 lets the system choose one. Raises ValueError."""
    match = _LISTEN.fullmatch(value)
    if not match or int(match.group(2)) > 65_535:
        raise ValueError(value)
    return match.group(1).strip("[]"), int(match.group(2))


def zone_of(name: str | None) -> tzinfo:
    """The time zone of an IANA name, UTC for None. Only UTC needs no time zone database.

    Raises ZoneInfoNotFoundError, a KeyError, for an unknown name; ValueError or OSError for what cannot be one.
    """
    return UTC if name is None or name == "UTC" else ZoneInfo(name)


def has_zones() -> bool:
    """Whether this machine has a time zone database, of the system or of the package tzdata."""
    try:
        ZoneInfo("Etc/UTC")
    except (KeyError, OSError):
        return False
    return True


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, for a hint."""
    by_fold = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), list(by_fold), n=1, cutoff=0.6)
    return by_fold[close[0]] if close else None
