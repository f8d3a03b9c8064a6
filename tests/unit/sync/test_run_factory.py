"""The run factory: state that runs do not share."""

from __future__ import annotations

from typing import Any

from keysync.secret.fingerprint import Fingerprinter
from keysync.sources.batch_access import BatchSources
from keysync.sync.inventory import Inventory
from keysync.sync.locks import SecretLocks
from keysync.sync.run_factory import RunFactory
from tests.support.memory import MemoryDirectory
from tests.support.memory_generation import config_of


def test_each_search_for_orphans_checks_accounts_afresh() -> None:
    """The existence check keeps its listings: an old one would prove an account gone while listings fail."""
    config = config_of("alpha", owner="mine", orphans="delete")
    unused: Any = None
    sources = BatchSources(unused, fingerprinter=Fingerprinter(), redactor=unused, keyless=set())
    factory = RunFactory(config, sources, {}, MemoryDirectory, Fingerprinter(), unused, SecretLocks(), str)
    searches = [factory.orphan_search(Inventory(config.accounts)) for _ in range(2)]
    checks = [search.existence for search in searches if search is not None]
    assert len(checks) == 2
    assert checks[0] is not checks[1]
