"""One run: collect → plan → safety → apply (`run` has the whole flow on one page)."""
