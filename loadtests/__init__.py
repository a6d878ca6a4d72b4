"""Load and figures: a gateway in a process of its own, clients that wait for their answers, benchmarks."""
