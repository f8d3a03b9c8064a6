"""The services that the emulator answers for: each turns a call into a reply."""
