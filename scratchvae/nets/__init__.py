"""Appendix C: the multi-layer perceptrons, forward and hand-derived backward side by side."""
