"""Hints: how to fix a failed call, in a sentence or two, with the setting, role or command to change.

Each module has the hints of one service. `TEXTS` are hints by error code; a function is a hint that depends on more, and
returns None if it does not apply.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from keysync.azure.hints import entra, general, key_vault, resource_manager
from keysync.azure.hints.failed_call import FailedCall
from keysync.azure.sign_in import UNKNOWN, SignIn

_TEXTS: Final = {**resource_manager.TEXTS, **key_vault.TEXTS, **entra.TEXTS}


def hint_for(
    *,
    kind: str,
    codes: tuple[str, ...],
    message: str,
    operation: str,
    scope: str,
    status: int | None = None,
    sign_in: SignIn = UNKNOWN,
) -> str | None:
    """How to fix a failure; None if there is no hint for it.

    `sign_in` is that of the credential that raised the failure, if one did.
    """
    codes_in_text = re.findall(r"akv\d+|aadsts\d+", message.lower())
    lowered = frozenset((*(code.lower() for code in codes), *codes_in_text))
    call = FailedCall(kind, status, lowered, message, operation, scope, sign_in)
    hints = (hint for rule in _RULES if (hint := rule(call)) is not None)
    return next(hints, None)


def _by_code(call: FailedCall) -> str | None:
    app = re.search(r"(?:app|identifier|application) '([0-9a-f-]{36})'", call.message, re.IGNORECASE)
    presented = re.search(r"presented assertion (\w+ '[^']*')", call.message)
    for code, text in _TEXTS.items():
        if code in call.codes:
            return text.format(
                scope=call.scope,
                tenant=call.sign_in.tenant,
                client=call.sign_in.client,
                proof=call.sign_in.proof,
                app=app[1] if app else "CLIENT_ID",
                presented=f" ({presented[1]})" if presented else "",
            )
    return None


# The first rule that applies decides.
_RULES: Final[tuple[Callable[[FailedCall], str | None], ...]] = (
    resource_manager.missing_action,
    resource_manager.deny_assignment,
    resource_manager.disallowed_by_policy,
    resource_manager.read_only_lock,
    general.wrong_tenant,
    general.expired_token,
    general.unsupported_api_version,
    key_vault.access_policy,
    key_vault.forbidden_by_policy,
    key_vault.firewall,
    key_vault.read_only,
    entra.assertion_time,
    _by_code,
    key_vault.missing_data_action,
    entra.unavailable,
    entra.invalid_identity_reply,
    general.by_kind,
)
