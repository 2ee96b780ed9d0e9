"""Weights files of other trainers: read them safely, and load them into a model."""
