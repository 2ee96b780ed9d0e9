"""The training loop, its recipe, evaluation, checkpoints and hooks."""
