"""keysync keeps Azure Key Vault in sync with the keys of Azure Batch accounts."""

__version__ = "0.1.0"
