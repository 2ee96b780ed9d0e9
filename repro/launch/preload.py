"""Imports of the fork server, once for all runs: everything heavy, but nothing that starts a thread."""

import importlib

for name in (
    "repro.training.attempt",
    "repro.tracking.wandb_mirror",
    "repro.data.digits",
    "timm.models.vision_transformer",
    "wandb.apis.public",  # and requests: what the client imports when a run starts
    "requests",
):
    importlib.import_module(name)
