"""How a pass is told: text for people, JSON for scripts, the log, metrics."""
