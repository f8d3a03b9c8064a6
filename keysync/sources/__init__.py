"""Sources: the interface of a source of keys, Azure Batch accounts as one, and their discovery."""
