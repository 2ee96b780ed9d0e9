"""Backbones: builders, token dropping, precision and compilation."""
