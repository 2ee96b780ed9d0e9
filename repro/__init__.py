"""Reproduces the published tables of sparse vision transformers, row by row, with a verdict."""

__version__ = "0.1.0"
