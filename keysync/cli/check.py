"""`check`: tries everything that a run needs, writes nothing, and says what to do about each finding."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from keysync import logs
from keysync.access.permissions import is_written
from keysync.azure.clouds import endpoints_of
from keysync.calls import Operation
from keysync.cli.compose import App, open_app
from keysync.cli.options import Options, load
from keysync.cli.progress import ProgressBar
from keysync.cli.signals import Interruption, interruptible
from keysync.config.formats import DEFAULT_LISTEN, split_listen
from keysync.config.settings import Config
from keysync.errors import Instruction, UsageError
from keysync.failures import CallFailed, FailureRecord
from keysync.names import natural
from keysync.report.causes import affected, identity_of, many
from keysync.report.console import Span, console_for, to_json
from keysync.report.text import account_name, print_message
from keysync.secret.redact import Redactor
from keysync.sources.azure_batch import BatchAccount
from keysync.sources.interface import KeyName
from keysync.sync.inventory import Inventory, resolve, selected
from keysync.sync.items import Selection
from keysync.sync.model import WRITES, Result
from keysync.sync.observers import Observers
from keysync.sync.run import run_sync
from keysync.sync.waiting import wait_for
from keysync.targets.key_vault import KeyVault

Level = Literal["ok", "warning", "problem"]

_TOKEN: Final = Operation("entra", "token")
_EXPIRES_SOON: Final = timedelta(days=30)
_PROBE_SECONDS: Final = 2.0
_STYLES: Final = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One finding: what was tried (`subject`), how it went, and the cure where it did not go well.

    `record` is the failure behind it: findings of one cause are printed once, with all that are `affected`.
    """

    level: Level
    subject: str
    message: str
    cure: str | None = None
    record: FailureRecord | None = field(default=None, repr=False)
    affected: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As ``--output json`` prints it."""
        told = {"level": self.level, "subject": self.subject, "message": self.message, "cure": self.cure}
        return {**told, "affected": list(self.affected or (self.subject,))}

    def explains(self, result: Result) -> bool:
        """Whether what became of a secret only follows from this finding, which is about its account or its vault."""
        if result.outcome == "refused":
            return f"{result.ref.key}: {result.reason}" in self.message
        # A summary holds ids that are new at each attempt.
        met = result.error if result.outcome == "failed" else None
        return met is not None and self.record is not None and identity_of(met) == identity_of(self.record)


def _account_subject(resource_id: str) -> str:
    return f"account {account_name(resource_id)}"


_INTERRUPTED: Final = Diagnosis("warning", "check", "interrupted: the rest was not tried")


def run(options: Options) -> int:
    """Prints the findings; 0 where there is no problem, else 1. Raises KeysyncError before the first request."""
    config = load(options)
    redactor = Redactor()
    # What the doctor finds is its result; the log would say it twice.
    logs.configure("error" if options.log_level == "info" else options.log_level, options.log_format, redactor.redact)
    return asyncio.run(_run(options, config, redactor))


async def _run(options: Options, config: Config, redactor: Redactor) -> int:
    with interruptible() as interruption, ProgressBar() as bar:
        async with open_app(config, (), redactor, lambda _operation, _status: None) as app:
            inventory = await resolve(config, app.discovery, interruption.stop)
            await app.cover(selected(inventory, options.accounts, options.shard))
            examination = asyncio.create_task(_examine(options, app, interruption, bar))
            try:
                await wait_for([examination], interruption.stop, None)
                done = examination.done()
            finally:
                examination.cancel()
                await asyncio.gather(examination, return_exceptions=True)
            found = [
                _configuration(app, inventory, options),
                *await _listen(config.listen),
                *_certificates(app, datetime.now(UTC)),
                *_discovery(inventory),
                *(examination.result() if done else [_INTERRUPTED]),
            ]
    found = _by_cause(found)
    _print(options, found)
    problems = any(one.level == "problem" for one in found)
    return interruption.exit_code or int(problems)


async def _examine(options: Options, app: App, interruption: Interruption, bar: ProgressBar) -> list[Diagnosis]:
    source_of = app.sources.snapshot()
    probes = [
        *(_token(app, number) for number in range(len(app.clients.credentials.opened))),
        *(_account(source_of(account), account.resource_id) for account in app.accounts),
        *(_vault_read(vault, name) for name, vault in app.targets.items()),
        *(_vault_write(app, vault, name) for name, vault in app.targets.items()),
    ]
    found = await _doubted(app, await asyncio.gather(*probes))
    asked = Selection(
        options=options.options_hint
    )  # so that the commands of cures are about the same file and accounts
    report = await run_sync(
        app.runs.make_run(app.accounts, Observers([bar]), interruption.stop, selection=asked, dry_run=True)
    )
    closed = {one.subject for one in found if one.level == "problem" and one.subject.startswith("vault ")}
    return [*_without_contradictions(found), *_secrets(_unexplained(report.results, found), closed)]


def _unexplained(results: Iterable[Result], found: Iterable[Diagnosis]) -> Iterator[Result]:
    """Those that have something of their own to tell."""
    problems: dict[str, list[Diagnosis]] = {}
    for one in found:
        if one.level == "problem":
            problems.setdefault(one.subject, []).append(one)
    for result in results:
        about = (_account_subject(result.ref.account), f"vault {result.ref.vault}")
        if not any(one.explains(result) for subject in about for one in problems.get(subject, ())):
            yield result


def _without_contradictions(found: Iterable[Diagnosis]) -> list[Diagnosis]:
    """No run for a subject that also has a problem."""
    found = list(found)
    wrong = {one.subject for one in found if one.level == "problem"}
    return [one for one in found if one.level != "ok" or one.subject not in wrong]


def _by_cause(found: Iterable[Diagnosis]) -> list[Diagnosis]:
    """One finding a cause: runs first, then warnings, problems last; within a level in natural order."""
    groups: dict[object, list[Diagnosis]] = {}
    for number, one in enumerate(found):
        if one.level == "ok":
            key: object = number
        elif one.record is not None:
            key = identity_of(one.record)
        else:
            key = one.level, one.subject.partition(" ")[0], one.message, one.cure
        groups.setdefault(key, []).append(one)
    merged = (_merged(sorted(group, key=lambda one: natural(one.subject))) for group in groups.values())
    levels: tuple[Level, ...] = ("ok", "warning", "problem")
    return sorted(merged, key=lambda one: (levels.index(one.level), natural(one.subject)))


def _merged(group: list[Diagnosis]) -> Diagnosis:
    subjects = list(dict.fromkeys(one.subject for one in group))
    about = group[0].record.about if group[0].record is not None else ""
    own = next((one for one in group if about.startswith("credential ") and one.subject == about), None)
    own = own or next((one for one in group if one.subject.startswith("vault ")), group[0])
    if len(subjects) == 1:
        return own
    others = [subject for subject in subjects if subject != own.subject]
    if own.subject.startswith(("credential ", "vault ")):
        return replace(own, message=f"{own.message}; it also stops {_named(others)}", affected=tuple(subjects))
    cure = own.cure
    if cure is not None and any(one.cure != cure for one in group):
        cure = f"for {own.subject}, and the others in the same way: {cure}"
    return replace(own, subject=_named(subjects), cure=cure, affected=tuple(subjects))


def _named(subjects: Iterable[str]) -> str:
    by_noun: dict[str, list[str]] = {}
    for subject in subjects:
        noun, _, name = subject.partition(" ")
        by_noun.setdefault(noun, []).append(name)
    return "; ".join(affected(names, noun) for noun, names in by_noun.items())


def _configuration(app: App, inventory: Inventory, options: Options) -> Diagnosis:
    if not app.accounts and inventory.complete and options.shard is None:
        cure = "compare the filters of `discover` with the accounts in Azure. To see what is found: keysync accounts"
        return Diagnosis(
            "problem", "configuration", "no entry of `discover` matches an account: nothing is synced", cure
        )
    told = f"{many(len(app.accounts), 'account')}, {many(len(app.targets), 'vault')}, no name twice"
    return Diagnosis("ok", "configuration", told)


async def _listen(address: str) -> Iterable[Diagnosis]:
    """Whether `run` can listen. A warning where `listen` is not set, since `sync` does not need it."""
    from keysync.web.healthcheck import why_unwell  # noqa: PLC0415  # `run` alone needs a server
    from keysync.web.server import check_free  # noqa: PLC0415  # as above

    host, port = split_listen(address)
    try:
        await check_free(host, port)
    except UsageError as error:
        if await asyncio.to_thread(why_unwell, host, port, seconds=_PROBE_SECONDS) is None:
            return []  # the daemon itself
        level: Level = "warning" if address == DEFAULT_LISTEN else "problem"
        return [Diagnosis(level, f"listen {address}", f"`run` could not start: {error}", "set `listen` to a free port")]
    return []


def _certificates(app: App, now: datetime) -> Iterable[Diagnosis]:
    """The certificates of credentials that have expired, or soon will."""
    for one in app.clients.credentials.opened:
        if one.expires_at is None or one.expires_at - now > _EXPIRES_SOON:
            continue
        level: Level = "problem" if one.expires_at <= now else "warning"
        verb = "expired" if one.expires_at <= now else "expires"
        told = f"its certificate ({one.sign_in.proof}) {verb} on {one.expires_at:%Y-%m-%d at %H:%M} UTC"
        cure = (
            f"put a new one with its private key there ({one.sign_in.proof}). To add it to the application first: "
            "az ad app credential reset --id CLIENT_ID --append --cert @NEW.pem"
        )
        yield Diagnosis(level, f"credential {one.name}", told, cure)


async def _doubted(app: App, found: Iterable[Diagnosis]) -> list[Diagnosis]:
    """`found`, without a plain "ok" for a vault whose credential gets no token: the vault's challenge names a tenant of its own."""
    failed = {one.subject: one.cure for one in found if one.level == "problem"}
    doubts: dict[str, str | None] = {}
    for name in app.targets:
        opened = await app.clients.credential(app.config.vaults[name].credential)
        if f"credential {opened.name}" in failed:
            doubts[f"vault {name}"] = failed[f"credential {opened.name}"]
    told = "but only by the tenant that the vault names: its credential gets no token for Resource Manager"
    return [
        replace(one, level="warning", message=f"{one.message}, {told}", cure=doubts[one.subject])
        if one.level == "ok" and one.subject in doubts
        else one
        for one in found
    ]


def _discovery(inventory: Inventory) -> Iterable[Diagnosis]:
    """What the listing of accounts had to say; accounts that give no keys are no fault of anybody's."""
    for problem in inventory.problems:
        subject = f"discover[{problem.entry}] {problem.scope}"
        yield Diagnosis("problem", subject, f"was not listed whole: {problem.record.summary}", problem.record.hint)
    for warning in inventory.warnings:
        subject, _, told = warning.partition(": ")
        yield Diagnosis("warning", subject, told, "check it against the accounts that `keysync accounts` lists")
    for one in inventory.skipped:
        level: Level = "problem" if one.refused else "warning"
        word = "is refused" if one.refused else "is left out"
        yield Diagnosis(level, _account_subject(one.resource_id), f"{word}: {one.reason}")


async def _token(app: App, number: int) -> Diagnosis:
    credential = app.clients.credentials.opened[number]
    scope = endpoints_of(app.config.cloud).resource_manager_scope
    asked = app.clients.caller.call(_TOKEN, scope, lambda: credential.get_token_info(scope))
    return await _tried(f"credential {credential.name}", "gives a token for Resource Manager", asked)


async def _account(source: BatchAccount, resource_id: str) -> Diagnosis:
    async def both() -> None:
        await source.probe()
        keys = await source.get_keys()
        refused.update(keys.refused)

    refused: dict[KeyName, str] = {}
    found = await _tried(_account_subject(resource_id), "can be read, and gives its keys", both())
    if refused:
        told = "; ".join(f"{key}: {reason}" for key, reason in sorted(refused.items()))
        return Diagnosis("problem", found.subject, told, "look at the account's keys in Azure")
    return found


async def _vault_read(vault: KeyVault, name: str) -> Diagnosis:
    return await _tried(f"vault {name}", "answers", vault.prime())


async def _vault_write(app: App, vault: KeyVault, name: str) -> Diagnosis:
    if not is_written(app.config, name):
        return Diagnosis("ok", f"vault {name}", "gets no key written by the configuration: writing was not tried")
    return await _tried(f"vault {name}", "would let keysync set secrets (tried without writing)", vault.probe_write())


async def _tried(subject: str, success: str, attempt: Awaitable[object]) -> Diagnosis:
    try:
        await attempt
    except CallFailed as failure:
        return Diagnosis("problem", subject, failure.record.summary, failure.record.hint, failure.record)
    return Diagnosis("ok", subject, success)


def _secrets(results: Iterable[Result], closed: Container[str]) -> Iterable[Diagnosis]:
    """What a run would find at each secret; of a vault in `closed` nothing that would have to be written."""
    for result in results:
        subject = f"secret {result.ref.vault}/{result.ref.secret}"
        if result.outcome == "refused":
            yield Diagnosis("problem", subject, "would be refused", _instruction(result))
        elif result.outcome == "skipped":
            yield Diagnosis("warning", subject, "would be left alone", _instruction(result))
        elif result.outcome == "failed":
            hint = result.error.hint if result.error else None
            yield Diagnosis("problem", subject, result.reason or "would fail", hint, result.error)
        elif result.outcome in WRITES and f"vault {result.ref.vault}" in closed:
            told = _EXPECTED[result.outcome]
            yield Diagnosis("problem", subject, f"{told}, but the vault refuses it", "see the finding about the vault")
        elif result.outcome == "unchanged" and result.reason:
            yield Diagnosis("warning", subject, "is not marked as keysync's", _instruction(result))
        else:
            yield Diagnosis("ok", subject, _EXPECTED[result.outcome])


def _instruction(result: Result) -> str | None:
    """What to do about `result`; with an error the reason is the service's text, and no instruction."""
    return result.reason if result.error or result.reason is None else Instruction(result.reason)


_EXPECTED: Final = {
    "unchanged": "is in sync",
    "create": "would be created",
    "update": "would be updated",
    "adopt": "would be marked as keysync's",
    "recover": "would be recovered",
    "disable": "would be disabled",
    "delete": "would be deleted",
}


def _print(options: Options, found: list[Diagnosis]) -> None:
    if options.output == "json":
        sys.stdout.write(to_json({"findings": [one.to_dict() for one in found]}) + "\n")
        return
    console = console_for(sys.stdout)
    runs = [one.subject for one in found if one.level == "ok"]
    if runs:
        console.line(Span("✓ ", "green"), Span(_counted(runs)), whole=True)
    for one in (one for one in found if one.level != "ok"):
        mark, style = _STYLES[one.level]
        console.line(Span(f"{mark} ", style), Span(one.subject, "bold"), Span(f": {one.message}"), whole=True)
        if one.cure:
            print_message(console, one.cure, Span("    → ", "cyan"))
    counts = {level: sum(one.level == level for one in found) for level in ("ok", "warning", "problem")}
    told = f"{counts['ok']} ok, {many(counts['warning'], 'warning')}, {many(counts['problem'], 'problem')}"
    console.line(Span(told, "bold red" if counts["problem"] else "bold green"))


def _counted(subjects: Iterable[str]) -> str:
    """What passed, as counts: `configuration, 1 credential, 300 accounts, 2 vaults`."""
    counts = Counter(noun for noun, _, _ in (subject.partition(" ") for subject in dict.fromkeys(subjects)))
    return ", ".join(noun if noun == "configuration" else many(count, noun) for noun, count in counts.items()) + ": ok"
