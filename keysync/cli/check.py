"""`check`: tests everything that a run needs, without writing."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Container, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Literal, TypeAlias, cast

from keysync.access.permissions import is_written
from keysync.azure.client_factory import ClientFactory
from keysync.azure.credentials import endpoints_of
from keysync.azure.single_flight_credential import SingleFlightCredential
from keysync.calls import Operation
from keysync.cli.compose import open_clients, open_runtime
from keysync.cli.options import Options
from keysync.cli.signals import interruptible
from keysync.cli.streams import console_for
from keysync.config.formats import DEFAULT_LISTEN, split_listen
from keysync.config.model import Config
from keysync.errors import Instruction, UsageError
from keysync.failures import CallFailed, FailureRecord
from keysync.names import natural
from keysync.report.causes import account_name, affected, identity_of, many
from keysync.report.console import Span, to_json
from keysync.report.progress import progress_bar
from keysync.report.text import print_message
from keysync.secret.redact import Redactor
from keysync.sources.discovery import Inventory
from keysync.sources.interface import KeySource
from keysync.sync.inventory import resolve, selected
from keysync.sync.items import Selection
from keysync.sync.model import DONE, Preflight, Result
from keysync.sync.run import run_sync
from keysync.sync.runtime import Runtime, Shared
from keysync.sync.waiting import until_stopped

Level: TypeAlias = Literal["ok", "warning", "problem"]

_STYLES: Final = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}  # in their order
_TOKEN: Final = Operation("entra", "token")
_EXPIRES_SOON: Final = timedelta(days=30)
_PROBE_SECONDS: Final = 2.0
_DONE: Final = cast("Mapping[str, str]", DONE)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One finding: what was tested (`subject`), the outcome, and a hint to fix it.

    `record` is the failure that caused it. Findings of one cause are printed once, with all subjects that are `affected`.
    """

    level: Level
    subject: str
    message: str
    hint: str | None = None
    record: FailureRecord | None = field(default=None, repr=False)
    affected: tuple[str, ...] = ()


_INTERRUPTED: Final = Diagnosis("warning", "check", "interrupted: the rest was not tested")


async def run(options: Options, config: Config, redactor: Redactor) -> int:
    """Prints the findings. Returns 1 if one is a problem, else 0. Raises KeysyncError before the first request."""
    selection = Selection(options=options.options_hint, dry_run=True)
    with interruptible() as interruption, progress_bar() as bar:
        async with AsyncExitStack() as stack:
            clients = await open_clients(stack, config, redactor)
            runtime = await open_runtime(stack, clients, Shared(redactor, (bar,), lambda: interruption.stop, selection))
            inventory = await resolve(runtime.discovery, interruption.stop)
            await runtime.cover(inventory, selected(inventory, options.accounts, options.shard))
            examined = await until_stopped(_examine(clients, runtime), interruption.stop)
            findings = [
                _configuration(runtime, options),
                *await _listen(config.listen),
                *_certificates(clients, datetime.now(UTC)),
                *_discovery(inventory),
                *([_INTERRUPTED] if examined is None else examined),
            ]
    _print_findings(_by_cause(findings), options.output)
    return interruption.exit_code or int(any(each.level == "problem" for each in findings))


async def _examine(clients: ClientFactory, runtime: Runtime) -> list[Diagnosis]:
    config, source_of = runtime.config, runtime.sources.source_of
    findings = await asyncio.gather(
        *(_token(clients, credential) for credential in clients.credentials.opened.values())
    )
    failed = {each.subject: each for each in findings if each.level == "problem"}
    tests = [_account(source_of(account), _account_subject(account.resource_id)) for account in runtime.accounts]
    for name, vault in runtime.targets.items():
        credential = await clients.credential(config.vaults[name].credential)
        test = partial(_test, f"vault {name}", doubt=failed.get(f"credential {credential.name}"))
        tests.append(test("replies", vault.prime()))
        if is_written(config, name):
            tests.append(test("allows keysync to set secrets (tested without writing)", vault.probe_write()))
        else:
            message = "receives no key in this configuration: writing was not tested"
            findings.append(Diagnosis("ok", f"vault {name}", message))
    findings += await asyncio.gather(*tests)
    # `_discovery` has the findings about accounts that are refused.
    report = await run_sync(replace(runtime.make_run(runtime.accounts), orphans=None, preflight=Preflight()))
    problems: dict[str, list[Diagnosis]] = {}
    for each in findings:
        if each.level == "problem":
            problems.setdefault(each.subject, []).append(each)
    # Nothing is "ok" that also has a problem.
    findings = [each for each in findings if each.level != "ok" or each.subject not in problems]
    for result in report.results:
        subjects = (_account_subject(result.ref.account), f"vault {result.ref.vault}")
        if not any(_explains(each, result) for subject in subjects for each in problems.get(subject, ())):
            findings.append(_secret(result, problems))
    return findings


async def _test(subject: str, success: str, attempt: Awaitable[object], *, doubt: Diagnosis | None = None) -> Diagnosis:
    """The finding about `attempt`. `doubt`: the credential of the vault that replies gets no token, so the vault names its own tenant."""
    try:
        await attempt
    except CallFailed as failure:
        return Diagnosis("problem", subject, failure.record.summary, failure.record.hint, failure.record)
    if doubt is None:
        return Diagnosis("ok", subject, success)
    message = "but only with the tenant that the vault names: its credential gets no token for Resource Manager"
    return Diagnosis("warning", subject, f"{success}, {message}", doubt.hint)


async def _token(clients: ClientFactory, credential: SingleFlightCredential) -> Diagnosis:
    scope = endpoints_of(clients.config.cloud).resource_manager_scope
    attempt = clients.caller.call(_TOKEN, scope, partial(credential.get_token_info, scope))
    return await _test(f"credential {credential.name}", "gets a token for Resource Manager", attempt)


async def _account(source: KeySource, subject: str) -> Diagnosis:
    refused: dict[str, str] = {}

    async def read() -> None:
        await source.probe()
        refused.update((await source.get_keys()).refused)

    finding = await _test(subject, "returns its properties and its keys", read())
    if refused:
        message = "; ".join(f"{key}: {reason}" for key, reason in sorted(refused.items()))
        return Diagnosis("problem", subject, message, "check the account's keys in Azure")
    return finding


def _secret(result: Result, problems: Container[str]) -> Diagnosis:
    """The finding about a secret of a dry run. A write to a vault in `problems` is a problem, since the vault refuses it."""
    level: Level = "problem"
    # Beside an error, the reason is the text of Azure and no instruction.
    hint = result.reason if result.error or result.reason is None else Instruction(result.reason)
    match result.outcome:
        case "refused":
            message = "would be refused"
        case "skipped":
            level, message = "warning", "would be skipped"
        case "failed":
            message, hint = result.reason or "would fail", result.error.hint if result.error else None
        case "unchanged" if result.reason:
            level, message = "warning", "has no keysync tags"
        case "unchanged":
            level, message = "ok", "is in sync"
        case write if f"vault {result.ref.vault}" in problems:
            message, hint = f"would be {_DONE[write]}, but the vault refuses it", "see the finding about the vault"
        case write:
            level, message, hint = "ok", f"would be {_DONE[write]}", None
    return Diagnosis(level, f"secret {result.ref.vault}/{result.ref.secret}", message, hint, result.error)


def _configuration(runtime: Runtime, options: Options) -> Diagnosis:
    if not runtime.accounts and runtime.inventory.complete and options.shard is None:
        message = "no entry of `discover` matches an account: nothing is synced"
        hint = "compare the filters of `discover` with the accounts in Azure. To list what they match: keysync accounts"
        return Diagnosis("problem", "configuration", message, hint)
    message = f"{many(len(runtime.accounts), 'account')}, {many(len(runtime.targets), 'vault')}, no name twice"
    return Diagnosis("ok", "configuration", message)


async def _listen(address: str) -> list[Diagnosis]:
    """Whether `run` can listen. Only a warning at the default address, since `sync` does not need it."""
    from keysync.web.healthcheck import unhealthy_reason  # noqa: PLC0415  # only `check` and `run` need a server
    from keysync.web.server import check_free  # noqa: PLC0415  # as above

    host, port = split_listen(address)
    try:
        await check_free(host, port)
    except UsageError as error:
        # If the daemon listens there, all is well.
        if await asyncio.to_thread(unhealthy_reason, host, port, seconds=_PROBE_SECONDS) is not None:
            level: Level = "warning" if address == DEFAULT_LISTEN else "problem"
            message = f"`run` could not start: {error}"
            return [Diagnosis(level, f"listen {address}", message, "set `listen` to a free port")]
    return []


def _account_subject(resource_id: str) -> str:
    return f"account {account_name(resource_id)}"


def _certificates(clients: ClientFactory, now: datetime) -> Iterator[Diagnosis]:
    """Certificates of credentials that have expired or expire within 30 days."""
    for credential in clients.credentials.opened.values():
        expires_at, proof = credential.expires_at, credential.sign_in.proof
        if expires_at is None or expires_at - now > _EXPIRES_SOON:
            continue
        expired = expires_at <= now
        verb = "expired" if expired else "expires"
        message = f"its certificate ({proof}) {verb} on {expires_at:%Y-%m-%d at %H:%M} UTC"
        hint = (
            f"replace it and its private key ({proof}). First add the new one to the application: "
            "az ad app credential reset --id CLIENT_ID --append --cert @NEW.pem"
        )
        yield Diagnosis("problem" if expired else "warning", f"credential {credential.name}", message, hint)


def _discovery(inventory: Inventory) -> Iterator[Diagnosis]:
    """Problems and warnings of discovery. A skipped account is only a warning."""
    for problem in inventory.problems:
        subject = f"discover[{problem.entry}] {problem.scope}"
        yield Diagnosis("problem", subject, f"was not listed completely: {problem.record.summary}", problem.record.hint)
    for warning in inventory.warnings:
        subject, _, message = warning.partition(": ")
        yield Diagnosis("warning", subject, message, "compare it with the accounts that `keysync accounts` lists")
    for skipped in inventory.skipped:
        subject = _account_subject(skipped.resource_id)
        if skipped.refused:
            yield Diagnosis("problem", subject, f"is refused: {skipped.reason}")
        else:
            yield Diagnosis("warning", subject, f"is skipped: {skipped.reason}")


def _explains(finding: Diagnosis, result: Result) -> bool:
    """Whether a finding about the secret's account or vault is the cause of `result`."""
    if result.outcome == "refused":
        return f"{result.ref.key}: {result.reason}" in finding.message
    # Not by the summary, which has the IDs of one attempt.
    error = result.error if result.outcome == "failed" else None
    return error is not None and finding.record is not None and identity_of(error) == identity_of(finding.record)


def _by_cause(findings: Iterable[Diagnosis]) -> list[Diagnosis]:
    """One finding per cause: "ok" first, then warnings, then problems; within a level in natural order."""
    groups: dict[object, list[Diagnosis]] = {}
    for number, each in enumerate(findings):
        if each.level == "ok":
            key: object = number
        elif each.record is not None:
            key = identity_of(each.record)
        else:
            key = each.level, each.subject.partition(" ")[0], each.message, each.hint
        groups.setdefault(key, []).append(each)
    merged = (_merged(sorted(group, key=lambda each: natural(each.subject))) for group in groups.values())
    return sorted(merged, key=lambda each: (list(_STYLES).index(each.level), natural(each.subject)))


def _merged(group: list[Diagnosis]) -> Diagnosis:
    subjects = list(dict.fromkeys(each.subject for each in group))
    about = group[0].record.about if group[0].record is not None else ""
    main = next((each for each in group if about.startswith("credential ") and each.subject == about), None)
    main = main or next((each for each in group if each.subject.startswith("vault ")), group[0])
    if len(subjects) == 1:
        return main
    others = [subject for subject in subjects if subject != main.subject]
    if main.subject.startswith(("credential ", "vault ")):
        return replace(main, message=f"{main.message}; it also stops {_named(others)}", affected=tuple(subjects))
    hint = main.hint
    if hint is not None and any(each.hint != hint for each in group):
        hint = f"for {main.subject}, and the others in the same way: {hint}"
    return replace(main, subject=_named(subjects), hint=hint, affected=tuple(subjects))


def _named(subjects: Iterable[str]) -> str:
    by_noun: dict[str, list[str]] = {}
    for subject in subjects:
        noun, _, name = subject.partition(" ")
        by_noun.setdefault(noun, []).append(name)
    return "; ".join(affected(names, noun) for noun, names in by_noun.items())


def _print_findings(findings: list[Diagnosis], output: str | None) -> None:
    """Prints the findings to stdout: `output` is ``text`` or ``json``."""
    if output == "json":
        names = ("level", "subject", "message", "hint")
        shown = [
            {**{name: getattr(each, name) for name in names}, "affected": each.affected or (each.subject,)}
            for each in findings
        ]
        sys.stdout.write(to_json({"findings": shown}) + "\n")
        return
    console = console_for(sys.stdout)
    passed = [each.subject for each in findings if each.level == "ok"]
    if passed:
        # As counts, such as `configuration, 1 credential, 300 accounts, 2 vaults`.
        counted = Counter(subject.partition(" ")[0] for subject in dict.fromkeys(passed)).items()
        nouns = ", ".join(noun if noun == "configuration" else many(count, noun) for noun, count in counted)
        console.line(Span("✓ ", "green"), Span(f"{nouns}: ok"), no_wrap=True)
    for each in (each for each in findings if each.level != "ok"):
        mark, style = _STYLES[each.level]
        console.line(Span(f"{mark} ", style), Span(each.subject, "bold"), Span(f": {each.message}"), no_wrap=True)
        if each.hint:
            print_message(console, each.hint, Span("    → ", "cyan"))
    counts = Counter(each.level for each in findings)
    summary = f"{counts['ok']} ok, {many(counts['warning'], 'warning')}, {many(counts['problem'], 'problem')}"
    console.line(Span(summary, "bold red" if counts["problem"] else "bold green"))
