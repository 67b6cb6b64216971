"""What `Benchmarks/run`, `Benchmarks/check` and `Benchmarks/instructions` are made of."""
