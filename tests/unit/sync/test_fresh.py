"""What changes between the comparison and the write."""

import asyncio

from keysync.azure.errors import FailureTranslator
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.scrub import Scrubber
from keysync.secret.value import SecretValue
from keysync.sync.apply import Applier
from keysync.sync.model import Change, Item, ItemRef, Plan, Seen
from keysync.sync.plan import is_ours, make_plan, own_tags
from keysync.targets.interface import Existing, Metadata

REF = ItemRef("/subscriptions/s/batchAccounts/a", "primary", "main", "a-primary-key")


class Vault:
    """Shows one secret, and counts writes."""

    def __init__(self, shown):
        self.shown, self.writes = shown, 0

    async def warm(self):
        """Nothing to warm."""

    async def read(self, name):
        return self.shown

    async def write(self, name, value, metadata, *, before):
        self.writes += 1
        return "2"

    async def tag(self, name, version, metadata):
        self.writes += 1


async def test_a_secret_that_somebody_made_meanwhile_is_not_overwritten():
    """A name that was free when compared and is taken when written is refused."""
    vault = Vault(Existing("1", Fingerprinter().of(SecretValue("theirs")), {"managed-by": "terraform"}))
    applier = Applier(
        {"main": vault}, FailureTranslator(Scrubber()), concurrency=2, stop=asyncio.Event(), grace_seconds=1
    )
    plan = Plan((Change(REF, "create", metadata=Metadata({}, None)),))
    (result,) = await applier.apply(plan, {REF: SecretValue("ours")})
    assert result.outcome == "refused"
    assert vault.writes == 0


def test_a_secret_of_another_installation_is_not_ours():
    """Without an `owner` of its own, keysync leaves alone what an owner has marked."""
    theirs = own_tags(Item(REF, owner="siteA"))
    assert not is_ours(theirs, Item(REF))
    fingerprinter = Fingerprinter()
    stored = Existing("1", fingerprinter.of(SecretValue("old")), theirs)
    (change,) = make_plan([Seen(Item(REF), fingerprinter.of(SecretValue("new")), stored)]).changes
    assert change.kind == "refused"


def test_a_value_cut_off_or_escaped_is_masked():
    """A message that was cut within a key, or writes it with escapes, shows none of it."""
    key = "Zm9vYmFyYmF6cXV4+/8Zm9vYmFyYmF6cXV4" * 2 + "Zm9vYmFyYmF6cXV4=="
    scrubber = Scrubber()
    kept = scrubber.remember(SecretValue(key))
    assert key[:12] not in scrubber.scrub(f"value {key[:40]}... is wrong")
    escaped = key.replace("+", "\\u002B").replace("/", "\\/").replace("=", "\\u003D")
    assert "YmFyYmF6" not in scrubber.scrub(f"body {escaped} is wrong")
    assert kept
