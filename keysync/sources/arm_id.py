"""The ARM id of a Batch account."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from keysync.config.formats import batch_account_id
from keysync.names import fold

_FOLDER: Final = re.compile(
    r"/subscriptions/(?P<subscription>[0-9a-f-]{36})/resourceGroups/(?P<group>[^/]{1,90})"
    r"/providers/Microsoft\.Batch/batchAccounts",
    re.IGNORECASE | re.ASCII,
)
_NAME: Final = re.compile(r"[0-9a-z]{3,24}", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class AccountId:
    """The parts of an ARM id, in their original spelling."""

    subscription: str
    group: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The parts of `text`, None if it is not the id of a Batch account."""
        folder, _, name = text.rpartition("/")
        group = _group(folder)
        return None if group is None or _NAME.fullmatch(name) is None else cls(*group, name)

    @property
    def folder(self) -> str:
        """The part that all accounts of a resource group share, in lower case. Sorting by it and the name sorts by id."""
        return fold(f"{self.subscription}/{self.group}/")

    @property
    def folded_name(self) -> str:
        """The name in lower case; the same object if it already is."""
        folded = fold(self.name)
        return self.name if folded == self.name else folded

    @property
    def resource_id(self) -> str:
        """The whole id."""
        return batch_account_id(fold(self.subscription), self.group, self.name)


# A fleet has few subscriptions and groups, and many accounts in each.
@lru_cache(maxsize=4096)
def _group(folder: str) -> tuple[str, str] | None:
    """Subscription and resource group of the part before the name."""
    match = _FOLDER.fullmatch(folder)
    return None if match is None else (match["subscription"], match["group"])
