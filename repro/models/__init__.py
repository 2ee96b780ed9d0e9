"""Backbones: builders, token dropping, stochastic depth, precision and compilation."""
