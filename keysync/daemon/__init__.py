"""The long-running process: when runs start, which replica leads, and what the page and the probes show."""
