"""Benchmarks, started manually: `python -m tests.benchmarks.steady`. They are no tests, and no test asserts a time."""
