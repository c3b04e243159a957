"""The API from the other side: for kcclient, the tests and the benchmarks."""
