"""The typed, resolved and immutable config of one run, as `repro.config.compose` composes it."""

from repro.config.backbone import Backbone, PublishedTraining
from repro.config.data import Clip, Data
from repro.config.execution import Run, Scale, Tracker
from repro.config.launcher import InlineLauncher, Launcher, LocalLauncher, SlurmLauncher
from repro.config.method import PRETRAINED, Finetune, Method, Part, StagedFinetune
from repro.config.recipe import Recipe, RecipeChanges
from repro.config.run_config import Config

__all__ = [
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
