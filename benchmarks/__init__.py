"""Speed benchmarks. Each script prints JSON with timings and the quality of the results."""
