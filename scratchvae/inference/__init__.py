"""Sections 2.2-2.4 and appendix B: densities, bounds and their estimators."""
