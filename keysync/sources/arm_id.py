"""The ARM id of a Batch account."""

from __future__ import annotations

import re
from dataclasses import dataclass
from sys import intern
from typing import Final, Self

from keysync.config.formats import batch_account_id
from keysync.names import fold

_ID: Final = re.compile(
    r"/subscriptions/([0-9a-f-]{36})/resourceGroups/([^/]{1,90})/providers/Microsoft\.Batch/batchAccounts/([0-9a-z]{3,24})",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class AccountId:
    """The parts of an ARM id, in their original spelling."""

    subscription: str
    group: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The parts of `text`, None if it is not the id of a Batch account."""
        match = _ID.fullmatch(text)
        # Interned: a fleet has few subscriptions and groups, and many accounts in each.
        return None if match is None else cls(intern(match[1]), intern(match[2]), match[3])

    @property
    def resource_id(self) -> str:
        """The whole id."""
        return batch_account_id(fold(self.subscription), self.group, self.name)

    @property
    def key(self) -> str:
        """The whole id in lower case: equal for two spellings of one account."""
        return fold(self.resource_id)
