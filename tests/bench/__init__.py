"""Benchmarks, run by `make bench`; none is a test."""
