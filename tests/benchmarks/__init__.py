"""The benchmarks run, and the manual has their figures."""
