"""Benchmarks: striate measured beside its peers, in the same run. ``python -m benchmarks --list`` names them."""
