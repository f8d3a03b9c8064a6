"""`check`: tests everything that a run needs, without writing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Container, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, cast

from keysync.access.permissions import is_written
from keysync.azure.client_factory import ClientFactory
from keysync.azure.clouds import endpoints_of
from keysync.azure.single_flight_credential import SingleFlightCredential
from keysync.calls import Operation
from keysync.cli.compose import open_clients, open_runtime
from keysync.cli.diagnosis import Diagnosis, Level, account_subject, by_cause, print_findings, unexplained
from keysync.cli.options import Options
from keysync.cli.signals import interruptible
from keysync.config.formats import DEFAULT_LISTEN, split_listen
from keysync.config.model import Config
from keysync.errors import Instruction, UsageError
from keysync.failures import CallFailed
from keysync.report.causes import many
from keysync.report.progress import ProgressBar
from keysync.secret.redact import Redactor
from keysync.sources.discovery import Inventory
from keysync.sources.interface import KeySource
from keysync.sync.inventory import resolve, selected
from keysync.sync.items import Selection
from keysync.sync.model import DONE, Preflight, Result
from keysync.sync.run import run_sync
from keysync.sync.runtime import Runtime, Shared
from keysync.sync.waiting import wait_for

_TOKEN: Final = Operation("entra", "token")
_EXPIRES_SOON: Final = timedelta(days=30)
_PROBE_SECONDS: Final = 2.0
_DONE: Final = cast("Mapping[str, str]", DONE)
_INTERRUPTED: Final = Diagnosis("warning", "check", "interrupted: the rest was not tested")


async def run(options: Options, config: Config, redactor: Redactor) -> int:
    """Prints the findings. Returns 1 if one is a problem, else 0. Raises KeysyncError before the first request."""
    selection = Selection(options=options.options_hint, dry_run=True)
    with interruptible() as interruption, ProgressBar() as bar:
        async with AsyncExitStack() as stack:
            clients = await open_clients(stack, config, redactor)
            runtime = await open_runtime(stack, clients, Shared(redactor, bar, lambda: interruption.stop, selection))
            inventory = await resolve(runtime.discovery, interruption.stop)
            await runtime.cover(inventory, selected(inventory, options.accounts, options.shard))
            examination = asyncio.create_task(_examine(clients, runtime))
            try:
                await wait_for([examination], interruption.stop, None)
                examined = examination.result() if examination.done() else [_INTERRUPTED]
            finally:
                examination.cancel()
                await asyncio.gather(examination, return_exceptions=True)
            findings = [
                _configuration(runtime, options),
                *await _listen(config.listen),
                *_certificates(clients, datetime.now(UTC)),
                *_discovery(inventory),
                *examined,
            ]
    print_findings(by_cause(findings), options.output)
    return interruption.exit_code or int(any(each.level == "problem" for each in findings))


async def _examine(clients: ClientFactory, runtime: Runtime) -> list[Diagnosis]:
    config, source_of = runtime.config, runtime.sources.snapshot()
    findings = await asyncio.gather(
        *(_token(clients, credential) for credential in clients.credentials.opened.values())
    )
    failed = {each.subject: each for each in findings if each.level == "problem"}
    tests = [_account(source_of(account), account_subject(account.resource_id)) for account in runtime.accounts]
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
    problems = {each.subject for each in findings if each.level == "problem"}
    # Nothing is "ok" that also has a problem.
    findings = [each for each in findings if each.level != "ok" or each.subject not in problems]
    return [*findings, *(_secret(result, problems) for result in unexplained(report.results, findings))]


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
        subject = account_subject(skipped.resource_id)
        if skipped.refused:
            yield Diagnosis("problem", subject, f"is refused: {skipped.reason}")
        else:
            yield Diagnosis("warning", subject, f"is skipped: {skipped.reason}")
