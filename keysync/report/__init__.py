"""The output of runs: text for people, JSON for scripts, log, metrics, notifications and traces."""
