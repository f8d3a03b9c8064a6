"""keysync keeps Azure Key Vault in step with the keys of Azure Batch accounts."""

__version__ = "0.1.0"
