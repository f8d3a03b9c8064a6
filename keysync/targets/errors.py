"""Ends of a write that are neither success nor plain failure."""

from __future__ import annotations

from keysync.azure.errors import AzureFailure


class WriteUnknown(AzureFailure):
    """The reply to a write was lost and reading back failed too; `record` is of the first failure."""


class WriteConflict(AzureFailure):
    """The reply to a write was lost, and what stands there now is neither the old version nor ours."""
