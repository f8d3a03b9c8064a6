"""Checks that the names in identities, roles and policies of the data file exist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from keysync.config.formats import nearest
from keysync.config.rules import Location, Problem
from keysync.emulator.built_in_roles import NAMES

if TYPE_CHECKING:
    from keysync.emulator.data import EmulatorData


def reference_problems(data: EmulatorData) -> Iterator[Problem]:
    """Each name that nothing in the data has, at its place."""
    names = [identity.name for identity in data.identities]
    yield from _twice("identities", names)
    yield from _twice("role_definitions", [role.name for role in data.role_definitions])
    if data.identities:
        for key in {"client_id", "client_secret"} & data.model_fields_set:
            yield Problem(
                "an identity has this key when there are `identities`", f"move it to identities[0].{key}", (key,)
            )
    places = [*(account.name for account in data.accounts), *(vault.name for vault in data.vaults)]
    places += [queue.name for queue in data.queues]
    yield from _role_problems(data, places)
    for index, denial in enumerate(data.deny_assignments):
        at: Location = ("deny_assignments", index)
        yield from _unknown_scope(denial.scope, places, (*at, "scope"))
        for key, members in (("identities", denial.identities), ("excluded", denial.excluded)):
            for number, name in enumerate(members):
                yield from _unknown("identity", name, names, (*at, key, number))
    for index, vault in enumerate(data.vaults):
        for number, policy in enumerate([] if isinstance(vault.access_policies, bool) else vault.access_policies):
            at = ("vaults", index, "access_policies", number, "identity")
            yield from _unknown("identity", policy.identity, names, at)


def _role_problems(data: EmulatorData, places: list[str]) -> Iterator[Problem]:
    roles = (*NAMES, *(role.name for role in data.role_definitions))
    for index, identity in enumerate(data.identities):
        for number, role in enumerate(identity.roles):
            at: Location = ("identities", index, "roles", number)
            yield from _unknown("role", role.role, roles, (*at, "role"))
            yield from _unknown_scope(role.scope, places, (*at, "scope"))


def _unknown_scope(scope: str, places: list[str], at: Location) -> Iterator[Problem]:
    if not scope.startswith("/"):
        yield from _unknown("account, vault or queue", scope, places, at)


def _twice(key: str, names: list[str]) -> Iterator[Problem]:
    counts = Counter(name.lower() for name in names)
    for index, name in enumerate(names):
        if counts[name.lower()] > 1 and name.lower() in {each.lower() for each in names[:index]}:
            yield Problem(
                f"the name {name!r} is used twice", "names are compared without regard to case", (key, index, "name")
            )


def _unknown(what: str, name: str, known: Collection[str], at: Location) -> Iterator[Problem]:
    if name.lower() in {each.lower() for each in known}:
        return
    similar = nearest(name, known)
    hint = f"did you mean {similar!r}?" if similar else f"there are {', '.join(known)}" if known else "there is none"
    yield Problem(f"there is no {what} {name!r}", hint, at)
