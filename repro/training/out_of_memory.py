"""Advice in one line for a run that is out of memory."""

from __future__ import annotations

import re

import torch

from repro.config import Config
from repro.config.signature import WITH_BATCH_NORM


def out_of_memory_advice(error: Exception, config: Config, device: torch.device, update: int) -> str:
    """Return what is full, which settings need less memory, and from which update the run resumes with them.

    None of them changes the signature, except the micro-batch of a model with batch norm.
    """
    tried = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
    size = f" (an allocation of {tried[1]} failed)" if tried else ""
    finetune = config.method.finetune
    is_staged = finetune is not None and hasattr(finetune, "changes")
    key = "method.finetune.changes.micro_batch" if is_staged else "recipe.micro_batch"
    micro_batch = f"a lower {key} (now {config.effective_recipe.micro_batch})"
    eval_batch = f"a lower recipe.eval_batch (now {config.recipe.eval_batch}) if it happened in an evaluation"
    resumes = f"it resumes from its last checkpoint before update {update + 1} (a row of a table: with --retry)"
    start = f"{device} is out of memory{size}: launch it again with"
    if config.model.architecture in WITH_BATCH_NORM:
        return f"{start} {eval_batch}: {resumes}; or with {micro_batch}: a new run, because batch norm averages over it"
    if config.run.checkpoint_activations:
        return f"{start} {micro_batch}, or {eval_batch}; {resumes}"
    return f"{start} {micro_batch}, {eval_batch}, or run.checkpoint_activations=true; {resumes}"
