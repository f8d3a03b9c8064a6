"""`check`: tests everything that a run needs, without writing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Container, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from keysync import logs
from keysync.access.permissions import is_written
from keysync.azure.client_factory import ClientFactory
from keysync.azure.clouds import endpoints_of
from keysync.azure.single_flight_credential import SingleFlightCredential
from keysync.calls import Operation
from keysync.cli.compose import open_clients, open_runtime
from keysync.cli.diagnosis import (
    Diagnosis,
    Level,
    account_subject,
    by_cause,
    print_findings,
    unexplained,
    without_contradictions,
)
from keysync.cli.options import Options, load
from keysync.cli.signals import interruptible
from keysync.config.formats import DEFAULT_LISTEN, split_listen
from keysync.config.model import Config
from keysync.errors import Instruction, UsageError
from keysync.failures import CallFailed
from keysync.report.causes import many
from keysync.report.progress import ProgressBar
from keysync.secret.redact import Redactor
from keysync.sources.discovery import Inventory
from keysync.sources.interface import KeyName, KeySource
from keysync.sync.inventory import resolve, selected
from keysync.sync.items import Selection
from keysync.sync.model import WRITES, Preflight, Result
from keysync.sync.observers import Observers
from keysync.sync.run import run_sync
from keysync.sync.runtime import Runtime, Shared
from keysync.sync.waiting import wait_for
from keysync.targets.interface import SecretTarget

_TOKEN: Final = Operation("entra", "token")
_EXPIRES_SOON: Final = timedelta(days=30)
_PROBE_SECONDS: Final = 2.0
_INTERRUPTED: Final = Diagnosis("warning", "check", "interrupted: the rest was not tested")


def run(options: Options) -> int:
    """Prints the findings. Returns 1 if one is a problem, else 0. Raises KeysyncError before the first request."""
    config = load(options)
    redactor = Redactor()
    # The findings already say what the log would.
    logs.configure("error" if options.log_level == "info" else options.log_level, options.log_format, redactor.redact)
    return asyncio.run(_run(options, config, redactor))


async def _run(options: Options, config: Config, redactor: Redactor) -> int:
    with interruptible() as interruption, ProgressBar() as bar:
        selection = Selection(options=options.options_hint, dry_run=True)
        shared = Shared(redactor, Observers([bar]), lambda: interruption.stop, selection)
        async with AsyncExitStack() as stack:
            clients = await open_clients(stack, config, redactor)
            runtime = await open_runtime(stack, clients, shared)
            inventory = await resolve(runtime.discovery, interruption.stop)
            await runtime.cover(inventory, selected(inventory, options.accounts, options.shard))
            examination = asyncio.create_task(_examine(clients, runtime))
            try:
                await wait_for([examination], interruption.stop, None)
                done = examination.done()
            finally:
                examination.cancel()
                await asyncio.gather(examination, return_exceptions=True)
            findings = [
                _configuration(runtime, options),
                *await _listen(config.listen),
                *_certificates(clients, datetime.now(UTC)),
                *_discovery(inventory),
                *(examination.result() if done else [_INTERRUPTED]),
            ]
    findings = by_cause(findings)
    print_findings(findings, options.output)
    problems = any(each.level == "problem" for each in findings)
    return interruption.exit_code or int(problems)


async def _examine(clients: ClientFactory, runtime: Runtime) -> list[Diagnosis]:
    source_of = runtime.sources.snapshot()
    probes = [
        *(_token(clients, credential) for credential in clients.credentials.opened),
        *(_account(source_of(account), account.resource_id) for account in runtime.accounts),
        *(_vault_read(vault, name) for name, vault in runtime.targets.items()),
        *(_vault_write(runtime.config, vault, name) for name, vault in runtime.targets.items()),
    ]
    findings = await _with_doubts(clients, runtime.targets, await asyncio.gather(*probes))
    # `_discovery` has the findings about accounts that are refused.
    run = replace(runtime.make_run(runtime.accounts), orphans=None, preflight=Preflight())
    report = await run_sync(run)
    closed = {each.subject for each in findings if each.level == "problem" and each.subject.startswith("vault ")}
    return [*without_contradictions(findings), *_secrets(unexplained(report.results, findings), closed)]


def _configuration(runtime: Runtime, options: Options) -> Diagnosis:
    if not runtime.accounts and runtime.inventory.complete and options.shard is None:
        hint = "compare the filters of `discover` with the accounts in Azure. To list what they match: keysync accounts"
        return Diagnosis(
            "problem", "configuration", "no entry of `discover` matches an account: nothing is synced", hint
        )
    message = f"{many(len(runtime.accounts), 'account')}, {many(len(runtime.targets), 'vault')}, no name twice"
    return Diagnosis("ok", "configuration", message)


async def _listen(address: str) -> Iterable[Diagnosis]:
    """Whether `run` can listen. Only a warning at the default address, since `sync` does not need it."""
    from keysync.web.healthcheck import unhealthy_reason  # noqa: PLC0415  # only `check` and `run` need a server
    from keysync.web.server import check_free  # noqa: PLC0415  # as above

    host, port = split_listen(address)
    try:
        await check_free(host, port)
    except UsageError as error:
        if await asyncio.to_thread(unhealthy_reason, host, port, seconds=_PROBE_SECONDS) is None:
            return []  # the daemon listens there
        level: Level = "warning" if address == DEFAULT_LISTEN else "problem"
        return [Diagnosis(level, f"listen {address}", f"`run` could not start: {error}", "set `listen` to a free port")]
    return []


def _certificates(clients: ClientFactory, now: datetime) -> Iterable[Diagnosis]:
    """Certificates of credentials that have expired or expire within 30 days."""
    for credential in clients.credentials.opened:
        expires_at, proof = credential.expires_at, credential.sign_in.proof
        if expires_at is None or expires_at - now > _EXPIRES_SOON:
            continue
        level: Level = "problem" if expires_at <= now else "warning"
        verb = "expired" if expires_at <= now else "expires"
        message = f"its certificate ({proof}) {verb} on {expires_at:%Y-%m-%d at %H:%M} UTC"
        hint = (
            f"replace it and its private key ({proof}). First add the new one to the application: "
            "az ad app credential reset --id CLIENT_ID --append --cert @NEW.pem"
        )
        yield Diagnosis(level, f"credential {credential.name}", message, hint)


async def _with_doubts(clients: ClientFactory, vaults: Iterable[str], findings: Iterable[Diagnosis]) -> list[Diagnosis]:
    """`findings`, with a warning for each vault that replies though its credential gets no token: the vault names its own tenant."""
    failed = {each.subject: each.hint for each in findings if each.level == "problem"}
    doubts: dict[str, str | None] = {}
    for name in vaults:
        opened = await clients.credential(clients.config.vaults[name].credential)
        if f"credential {opened.name}" in failed:
            doubts[f"vault {name}"] = failed[f"credential {opened.name}"]
    doubt = "but only with the tenant that the vault names: its credential gets no token for Resource Manager"
    return [
        replace(each, level="warning", message=f"{each.message}, {doubt}", hint=doubts[each.subject])
        if each.level == "ok" and each.subject in doubts
        else each
        for each in findings
    ]


def _discovery(inventory: Inventory) -> Iterable[Diagnosis]:
    """Problems and warnings of discovery. A skipped account is only a warning."""
    for problem in inventory.problems:
        subject = f"discover[{problem.entry}] {problem.scope}"
        yield Diagnosis("problem", subject, f"was not listed completely: {problem.record.summary}", problem.record.hint)
    for warning in inventory.warnings:
        subject, _, message = warning.partition(": ")
        yield Diagnosis("warning", subject, message, "compare it with the accounts that `keysync accounts` lists")
    for skipped in inventory.skipped:
        level: Level = "problem" if skipped.refused else "warning"
        state = "is refused" if skipped.refused else "is skipped"
        yield Diagnosis(level, account_subject(skipped.resource_id), f"{state}: {skipped.reason}")


async def _token(clients: ClientFactory, credential: SingleFlightCredential) -> Diagnosis:
    scope = endpoints_of(clients.config.cloud).resource_manager_scope
    token = clients.caller.call(_TOKEN, scope, lambda: credential.get_token_info(scope))
    return await _test(f"credential {credential.name}", "gets a token for Resource Manager", token)


async def _account(source: KeySource, resource_id: str) -> Diagnosis:
    async def read() -> None:
        await source.probe()
        keys = await source.get_keys()
        refused.update(keys.refused)

    refused: dict[KeyName, str] = {}
    finding = await _test(account_subject(resource_id), "returns its properties and its keys", read())
    if refused:
        message = "; ".join(f"{key}: {reason}" for key, reason in sorted(refused.items()))
        return Diagnosis("problem", finding.subject, message, "check the account's keys in Azure")
    return finding


async def _vault_read(vault: SecretTarget, name: str) -> Diagnosis:
    return await _test(f"vault {name}", "replies", vault.prime())


async def _vault_write(config: Config, vault: SecretTarget, name: str) -> Diagnosis:
    if not is_written(config, name):
        return Diagnosis("ok", f"vault {name}", "receives no key in this configuration: writing was not tested")
    return await _test(f"vault {name}", "allows keysync to set secrets (tested without writing)", vault.probe_write())


async def _test(subject: str, success: str, attempt: Awaitable[object]) -> Diagnosis:
    try:
        await attempt
    except CallFailed as failure:
        return Diagnosis("problem", subject, failure.record.summary, failure.record.hint, failure.record)
    return Diagnosis("ok", subject, success)


def _secrets(results: Iterable[Result], closed: Container[str]) -> Iterable[Diagnosis]:
    """A finding for each secret of a dry run. Writes to a vault in `closed` are problems, since it refuses them."""
    for result in results:
        subject = f"secret {result.ref.vault}/{result.ref.secret}"
        if result.outcome == "refused":
            yield Diagnosis("problem", subject, "would be refused", _instruction(result))
        elif result.outcome == "skipped":
            yield Diagnosis("warning", subject, "would be skipped", _instruction(result))
        elif result.outcome == "failed":
            hint = result.error.hint if result.error else None
            yield Diagnosis("problem", subject, result.reason or "would fail", hint, result.error)
        elif result.outcome in WRITES and f"vault {result.ref.vault}" in closed:
            change = _EXPECTED[result.outcome]
            yield Diagnosis(
                "problem", subject, f"{change}, but the vault refuses it", "see the finding about the vault"
            )
        elif result.outcome == "unchanged" and result.reason:
            yield Diagnosis("warning", subject, "has no keysync tags", _instruction(result))
        else:
            yield Diagnosis("ok", subject, _EXPECTED[result.outcome])


def _instruction(result: Result) -> str | None:
    """How to fix `result`, from its reason. Beside an error, the reason is the text of Azure and no instruction."""
    return result.reason if result.error or result.reason is None else Instruction(result.reason)


_EXPECTED: Final = {
    "unchanged": "is in sync",
    "create": "would be created",
    "update": "would be updated",
    "adopt": "would be adopted",
    "recover": "would be recovered",
    "disable": "would be disabled",
    "delete": "would be deleted",
}
