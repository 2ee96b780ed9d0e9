"""Metric sinks: metrics.jsonl, which is the truth, and its mirrors."""

import os

# Here, before any file of this room imports the client: its reports about itself go to the same server as the runs,
# and the process waits at its end for a server that does not answer them.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
