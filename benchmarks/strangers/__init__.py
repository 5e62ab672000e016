"""Gradients with the mistakes that people make, for benchmarks/gradcheck.py."""
