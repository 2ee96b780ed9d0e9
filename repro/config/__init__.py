"""The typed config of one run: complete, resolved, immutable, with a signature. `repro.composition` makes one."""

from repro.config.backbone import Backbone, PublishedTraining
from repro.config.data import Clip, Data
from repro.config.execution import Run, Scale, Tracker
from repro.config.launcher import InlineLauncher, Launcher, LocalLauncher, SlurmLauncher
from repro.config.method import PRETRAINED, Finetune, Method, Part, StagedFinetune
from repro.config.recipe import Recipe, RecipeChanges
from repro.config.whole import Config

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
