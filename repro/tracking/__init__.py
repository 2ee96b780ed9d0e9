"""Metric sinks: metrics.jsonl, which is the truth, and its mirrors."""
