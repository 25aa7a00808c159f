"""Runnable comparisons with PyTorch and Optax; ``benchmarks/README.md`` says how to read them."""
