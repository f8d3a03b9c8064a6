"""Where keys go: the interface, and Key Vault behind it."""
