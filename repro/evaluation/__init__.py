"""Evaluation of finished models: accuracy of any checkpoint, interpretation, and model data for figures."""
