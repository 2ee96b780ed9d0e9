"""What the fork server imports once for all runs: everything heavy, and nothing that starts a thread."""

import importlib

for name in (
    "repro.training.task",
    "repro.tracking.wandb_mirror",
    "repro.data.digits",
    "timm.models.vision_transformer",
):
    importlib.import_module(name)
