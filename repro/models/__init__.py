"""Backbones and what is done to their structure."""
