"""Algorithm 1, its optimisers and its checkpoints."""
