"""The id by which Resource Manager knows a Batch account."""

from __future__ import annotations

import re
from dataclasses import dataclass
from sys import intern
from typing import Final, Self

_ARM_ID: Final = re.compile(
    r"/subscriptions/(?P<subscription>[0-9a-f-]{36})/resourceGroups/(?P<group>[^/]{1,90})"
    r"/providers/Microsoft\.Batch/batchAccounts/(?P<name>[0-9a-z]{3,24})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class AccountId:
    """The parts of an id, as they were spelt."""

    subscription: str
    group: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The id that `text` is, None where it is no Batch account's."""
        found = _ARM_ID.fullmatch(text)
        # A fleet has few subscriptions and groups, and each account's id is in many places: one string does for all of them.
        return None if found is None else cls(intern(found["subscription"]), intern(found["group"]), found["name"])

    @property
    def resource_id(self) -> str:
        """The id in one piece."""
        group = f"/subscriptions/{self.subscription.lower()}/resourceGroups/{self.group}"
        return intern(f"{group}/providers/Microsoft.Batch/batchAccounts/{self.name}")
