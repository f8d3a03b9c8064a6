"""Where keys come from: the interface, and Batch accounts behind it."""
