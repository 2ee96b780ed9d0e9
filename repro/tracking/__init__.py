"""Metric sinks: metrics.jsonl, which is the source of truth, and its W&B mirror."""

import os

# Set before the client is imported: it reports its own errors to the same server as the runs, and would delay the exit
# of the process if that server does not respond.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
