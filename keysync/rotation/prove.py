"""Proves a key: whether the service accepts a call that is signed with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from keysync.failures import CallFailed
from keysync.secret.value import SecretValue
from keysync.sources.interface import SignInReply

ProofResult: TypeAlias = Literal["proven", "refused", "unproven"]

# The service accepts a signed time that is at most 15 minutes off
# (learn.microsoft.com/rest/api/batchservice/authenticate-requests-to-the-azure-batch-service).
_ACCEPTED_CLOCK_ERROR: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a key signs in. `unproven`: there is no answer that says so or the opposite, for `reason`."""

    result: ProofResult
    reason: str = ""


async def prove(sign_in: Callable[[SecretValue], Awaitable[SignInReply]], key: SecretValue) -> Proof:
    """Signs in with `key`. Raises nothing: an endpoint that cannot be reached proves nothing."""
    try:
        answer = await sign_in(key)
    except CallFailed as failure:
        return Proof("unproven", f"its data plane did not answer: {failure.record.summary}")
    if answer.accepted:
        return Proof("proven")
    ahead = answer.ahead or timedelta()
    if abs(ahead) >= _ACCEPTED_CLOCK_ERROR:
        direction = "ahead of" if ahead > timedelta() else "behind"
        minutes = round(abs(ahead) / timedelta(minutes=1))
        return Proof(
            "unproven", f"the clock of this machine is {minutes} minutes {direction} the service's: set it right"
        )
    if answer.code == "AuthenticationFailed":
        return Proof("refused", f"its data plane refused the key (HTTP {answer.status} {answer.code})")
    return Proof("unproven", f"its data plane answered HTTP {answer.status} {answer.code or 'without a code'}")
