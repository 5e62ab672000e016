"""The generative models that inference is done in."""
