"""The id by which Resource Manager knows a Batch account."""

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
    """The parts of an id, as they were spelt."""

    subscription: str
    group: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The id that `text` is, None where it is no Batch account's."""
        folder, _, name = text.rpartition("/")
        place = _place(folder)
        return None if place is None or _NAME.fullmatch(name) is None else cls(*place, name)

    @property
    def folder(self) -> str:
        """What the ids of a group's accounts have in common, in lower case; sorted by it and the name, ids are in their order."""
        return fold(f"{self.subscription}/{self.group}/")

    @property
    def folded_name(self) -> str:
        """The name in lower case; where it is so already, the same object."""
        folded = fold(self.name)
        return self.name if folded == self.name else folded

    @property
    def resource_id(self) -> str:
        """The id in one piece."""
        return batch_account_id(fold(self.subscription), self.group, self.name)


# A fleet has few subscriptions and groups, and many accounts in each.
@lru_cache(maxsize=4096)
def _place(folder: str) -> tuple[str, str] | None:
    found = _FOLDER.fullmatch(folder)
    return None if found is None else (found["subscription"], found["group"])
