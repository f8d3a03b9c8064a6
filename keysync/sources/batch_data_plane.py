"""One signed call of Batch's data plane, which shows whether a key signs in. Needs the extra `rotation`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from azure.batch.aio import BatchClient
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import AsyncHttpTransport

from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.http.retry_after import http_date
from keysync.secret.reveal import reveal
from keysync.secret.value import SecretValue
from keysync.sources.interface import SignInReply

SIGN_IN: Final = Operation("batch_data", "listSupportedImages")
_REFUSALS: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class BatchDataPlane:
    """Signs in to accounts on the shared `transport`. `now` is this machine's time, which the SDK signs."""

    transport: AsyncHttpTransport[Any, Any]
    caller: Caller
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def sign_in(self, endpoint: str, account: str, key: SecretValue) -> SignInReply:
        """Lists one supported image, which every account has and which changes nothing.

        `endpoint` is the `accountEndpoint` of the account, `account` its name. Raises CallFailed if there is no answer about
        the key, after retries.
        """

        async def send() -> SignInReply:
            # A client copies its key, so each key has a client of its own; that takes 0.1 ms.
            client = BatchClient(
                f"https://{endpoint}",
                AzureNamedKeyCredential(account, reveal(key)),
                transport=self.transport,
                retry_total=0,
                permit_redirects=False,
            )
            try:
                await anext(aiter(client.list_supported_images(max_results=1)), None)
            except HttpResponseError as error:
                response: Any = error.response  # the SDK's annotation lacks `headers`
                if error.status_code not in _REFUSALS or response is None:
                    raise
                # Not chained, and only the code: the body repeats the string that was signed.
                code = None if error.error is None else error.error.code
                sent = http_date(response.headers.get("Date", ""))
                return SignInReply(False, error.status_code, code, None if sent is None else self.now() - sent)
            return SignInReply(True)

        return await self.caller.call(SIGN_IN, account, send)
