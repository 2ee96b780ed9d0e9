"""The heavy imports that the fork server makes once for all runs. None may start a thread, which a fork would lose."""

import importlib

for name in (
    "repro.training.attempt",
    "repro.tracking.wandb_mirror",
    "repro.data.digits",
    "timm.models.vision_transformer",
    "wandb.apis.public",  # the W&B client imports this and requests when a run starts
    "requests",
):
    importlib.import_module(name)
