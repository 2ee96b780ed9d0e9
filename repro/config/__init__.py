"""The typed, resolved and immutable config of one run, as `repro.config.compose` composes it."""

from repro.config.launcher import InlineLauncher, Launcher, LocalLauncher, SlurmLauncher
from repro.config.method import PRETRAINED, Finetune, Method, Part, StagedFinetune
from repro.config.run_config import Config
from repro.config.sections import (
    GENERATED,
    Backbone,
    Clip,
    Data,
    PublishedTraining,
    Recipe,
    RecipeChanges,
    Run,
    Scale,
    Tracker,
)

__all__ = [
    "GENERATED",
    "PRETRAINED",
    "Backbone",
    "Clip",
    "Config",
    "Data",
    "Finetune",
    "InlineLauncher",
    "Launcher",
    "LocalLauncher",
    "Method",
    "Part",
    "PublishedTraining",
    "Recipe",
    "RecipeChanges",
    "Run",
    "Scale",
    "SlurmLauncher",
    "StagedFinetune",
    "Tracker",
]
