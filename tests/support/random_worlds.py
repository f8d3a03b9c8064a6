"""Random worlds: accounts, vaults, and in each vault managed and unmanaged secrets."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from keysync.emulator.data import new_account_key
from tests.support.azure import GROUP, SUBSCRIPTION
from tests.support.crash import SecretCase

LONG_AGO = 1_700_000_000
"""The creation time of everything, in seconds since 1970: too old for rules about recent changes."""

KINDS = {
    "current": True,
    "stale": True,
    "absent": True,
    "right": False,
    "adoptable": None,
    "unmanaged": False,
    "of_terraform": False,
    "of_another_account": False,
    "disabled": False,
    "disabled_foreign": False,
    "certificate": False,
    "deleted": False,
}
"""The contents of a name, and whether keysync has to write it (see `SecretCase.mine`)."""

_CHANCES = [8, 4, 3, 1, 2, 1, 1, 1, 1, 1, 1, 1]


@dataclass(frozen=True)
class RandomWorld:
    """The data of the embedded Azure, the configuration for it, and the secrets that the configuration names."""

    accounts: list[dict[str, Any]]
    vaults: list[dict[str, Any]]
    configured: list[dict[str, Any]]
    settings: dict[str, Any]
    cases: Sequence[SecretCase]


def marks_of(account: str, key: str, owner: str | None = None) -> dict[str, str]:
    """The tags that make a secret managed."""
    source = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Batch/batchAccounts/{account}"
    marks = {"managed-by": "keysync", "keysync-source": source, "keysync-key": key}
    return marks if owner is None else {**marks, "keysync-owner": owner}


def random_world(rng: Random) -> RandomWorld:
    """Two to four accounts in one to three vaults. The keys do not come from `rng`, as no result depends on them."""
    names = [f"acct{number}" for number in range(rng.randint(2, 4))]
    accounts = [{"name": name, "primary": new_account_key(), "secondary": new_account_key()} for name in names]
    vaults: dict[str, dict[str, Any]] = {
        f"kv-{number}": {"name": f"kv-{number}", "secrets": _unmanaged_secrets(rng), "deleted": []}
        for number in range(rng.randint(1, 3))
    }
    owner = rng.choice([None, "blue"])
    configured: list[dict[str, Any]] = []
    cases: list[SecretCase] = []
    for account in accounts:
        chosen = sorted(rng.sample(sorted(vaults), rng.randint(1, len(vaults))))
        adopt = rng.random() < 0.5
        configured.append({"name": account["name"], "vaults": chosen, "adopt": adopt})
        for vault in chosen:
            cases += [
                _case(rng, account, key, vaults[vault], adopt=adopt, owner=owner) for key in ("primary", "secondary")
            ]
    return RandomWorld(accounts, list(vaults.values()), configured, {"owner": owner}, cases)


def _case(
    rng: Random, account: dict[str, Any], key: str, vault: dict[str, Any], *, adopt: bool, owner: str | None
) -> SecretCase:
    (kind,) = rng.choices(list(KINDS), _CHANCES)
    if kind in {"right", "adoptable"}:
        kind = "adoptable" if adopt else "right"
    name, marks = f"{account['name']}-{key}-key", marks_of(account["name"], key, owner)
    secret = _secret(rng, name, kind, account[key], marks)
    if kind == "deleted":
        vault["deleted"].append(secret)
    elif kind != "absent":
        vault["secrets"].append(secret)
    return SecretCase(vault["name"], name, account["name"], key, marks, KINDS[kind], patched=kind == "adoptable")


def _secret(rng: Random, name: str, kind: str, live: str, marks: dict[str, str]) -> dict[str, Any]:
    value = live if kind in {"current", "right", "adoptable"} else new_account_key()
    tags = {
        "current": marks,
        "stale": marks,
        "disabled": marks,
        "deleted": marks,
        "of_terraform": {"managed-by": "terraform"},
        "of_another_account": {**marks, "keysync-source": marks["keysync-source"] + "2"},
    }.get(kind, {})
    return {
        "name": name,
        "value": value,
        "tags": {**_others_tags(rng), **tags},
        "content_type": rng.choice([None, "text/plain", "application/vnd.render+key"]),
        "enabled": not kind.startswith("disabled"),
        "managed": kind == "certificate",
        "created": LONG_AGO,
    }


def _unmanaged_secrets(rng: Random) -> list[dict[str, Any]]:
    """Secrets that the configuration does not name, some with similar names."""
    names = [f"acct{number}-primary-key{rng.choice(string.ascii_lowercase)}" for number in range(rng.randint(0, 3))]
    return [
        {"name": name, "value": new_account_key(), "tags": _others_tags(rng), "created": LONG_AGO}
        for name in [*names, "database-password"]
    ]


def _others_tags(rng: Random) -> dict[str, str]:
    count = rng.choice([0, 1, 3, 11])
    return {f"team-{number}": "".join(rng.choices("abc é=/,", k=rng.choice([0, 5, 256]))) for number in range(count)}
