"""A sync run: collect → plan → limits → apply → report. `run` has the whole flow on one page."""
