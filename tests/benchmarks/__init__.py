"""Measurements, run by hand: `python -m tests.benchmarks.steady`. Nothing here is a test, and no test asserts a time."""
