"""Data sets, and loaders that can start at any training step."""
