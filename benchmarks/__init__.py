"""Benchmarks: ``python -m benchmarks.<name>`` in a checkout; each checks agreement before it measures."""
