"""The systems that `benchmarks.peers` compares, one module for each package."""
