"""Ranked lists of anyone: checked, scored, and written for the benchmarks' servers."""
