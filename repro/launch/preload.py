"""What the fork server imports once for all runs: everything heavy, and nothing that starts a thread."""

import repro.training.task
import repro.tracking.wandb_mirror  # noqa: F401
