"""Hints for failures to get a token."""

from __future__ import annotations

from typing import Final

from keysync.azure.hints.failed_call import FailedCall

_NO_FEDERATION: Final = (
    "no federated credential of the application (client_id: {client}) matches the token in {proof}{presented}: "
    "add one with this issuer, subject and audience (case-sensitive)"
)
_NEW_SIGN_IN: Final = "the user's sign-in has expired: az login"
_SECOND_FACTOR: Final = (
    "Entra requires a second factor of this user, which a program cannot provide: sign in with a service principal or a "
    "managed identity, set by `type` under `credential`"
)
_ENTRA_FAULT: Final = "Entra has an internal error: the next run tries again"

TEXTS: Final = {
    "aadsts7000222": (
        "the client secret has expired. It comes from {proof}: put the value of a new one there. To create one: "
        "az ad app credential reset --append --id {app}"
    ),
    "aadsts7000215": (
        "the client secret is wrong (its id instead of its value?). It comes from {proof}: put the secret's value there"
    ),
    "aadsts700016": "the tenant ({tenant}) knows no such application ({client}): correct one of the two",
    "aadsts7000112": (
        "the application ({client}) is disabled in its tenant. To enable it: az ad sp update --id {app} --set accountEnabled=true"
    ),
    "aadsts90002": "no such tenant in this cloud: correct {tenant}, or `cloud`",
    "aadsts900023": "this is not the id or the domain of a tenant: correct {tenant}",
    "aadsts500011": "this tenant has no such service: correct {tenant}, or `cloud`",
    "aadsts700027": (
        "the application ({client}) does not know the certificate of {proof}. To add it: az ad app credential reset "
        "--append --id {app} --cert @FILE"
    ),
    "aadsts70021": _NO_FEDERATION,
    "aadsts700211": _NO_FEDERATION,
    "aadsts700212": _NO_FEDERATION,
    "aadsts700213": _NO_FEDERATION,
    "aadsts53003": (
        "a Conditional Access policy blocks this identity ({client}): exclude it from the policy, or allow this machine's "
        "address; Entra's sign-in log names the policy"
    ),
    "aadsts50079": _SECOND_FACTOR,
    "aadsts50076": _SECOND_FACTOR,
    "aadsts50173": _NEW_SIGN_IN,
    "aadsts70043": _NEW_SIGN_IN,
    "aadsts700082": _NEW_SIGN_IN,
    "aadsts90025": _ENTRA_FAULT,
    "aadsts90033": _ENTRA_FAULT,
}
"""The hint for a code of the service, by the code in lower case. `hint_for` fills in the placeholders."""


def assertion_time(call: FailedCall) -> str | None:
    """The assertion is outside its validity."""
    if "aadsts700024" not in call.codes:
        return None
    if call.sign_in.type == "workload_identity":
        return (
            f"the federated token in {call.sign_in.proof} is not valid at this time; the message has its validity and Entra's "
            "time: check that Kubernetes renews the file, and that the cluster's clocks are right"
        )
    return (
        "the assertion signed with the certificate is not valid at this time; the message has its validity and Entra's time: "
        "the clock of this machine is wrong, set it by NTP"
    )


def unavailable(call: FailedCall) -> str | None:
    """The credential has no means to request a token."""
    if call.kind != "credential_unavailable":
        return None
    message = call.message.lower()
    match call.sign_in.type:
        case "managed_identity" if "assigned to this resource" in message or "identity not found" in message:
            return (
                f"this machine has no such identity: assign it to the machine, or correct {call.sign_in.client} (without it, "
                "the system-assigned identity is used)"
            )
        case "managed_identity":
            return (
                "no managed-identity endpoint replies on this machine: run keysync on an Azure machine with an identity, or set another `type` "
                "under `credential`"
            )
        case "azure_cli":
            return "az is not installed or not logged in on this machine: install it, then az login"
        case "default":
            return (
                "no credential was found: set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, assign a managed "
                "identity to this machine, or set `type` under `credential`"
            )
        case _:
            return (
                "no credential of the configured type is available on this machine: check `credential` and its environment; for "
                "`azure_cli`, install az and run az login"
            )


def invalid_identity_reply(call: FailedCall) -> str | None:
    """The managed-identity endpoint did not reply with a token."""
    if call.kind != "invalid_response" or call.sign_in.type != "managed_identity":
        return None
    return (
        "the managed-identity endpoint of this machine did not reply with a token: the next run tries again; "
        "if this persists, restart the app or the machine, or set another `type` under `credential`"
    )
