"""How a run is told: text for people, JSON for scripts, the log, metrics."""
