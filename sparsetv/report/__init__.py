"""Results of the benchmarks as one page."""
