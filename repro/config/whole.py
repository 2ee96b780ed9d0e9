"""One run's config: every section, and what follows from several of them together."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt

from repro.config.backbone import Backbone
from repro.config.data import Data
from repro.config.execution import Run, Scale, Tracker
from repro.config.launcher import Launcher
from repro.config.method import Method, StagedFinetune
from repro.config.recipe import Recipe
from repro.config.section import Section
from repro.geometry import Geometry
from repro.signature import signature


class Config(Section):
    """One run, completely."""

    seed: NonNegativeInt
    backbone: Backbone
    model: Geometry
    method: Method
    data: Data
    recipe: Recipe
    scale: Scale
    launcher: Annotated[Launcher, Field(discriminator="name")]
    tracker: Tracker
    run: Run

    @property
    def own_recipe(self) -> Recipe:
        """The recipe as this run trains with it: `recipe`, shortened where the method fine-tunes.

        Warm-up keeps its share of the training; the learning rate ends where the recipe's does.
        """
        finetune = self.method.finetune
        if finetune is None:
            return self.recipe
        if isinstance(finetune, StagedFinetune):
            changes = finetune.changes
            return self.recipe.model_copy(update={**changes.model_dump(), "epochs": finetune.stages * changes.epochs})
        epochs = max(1, round(self.recipe.epochs * finetune.epochs_fraction))
        return self.recipe.model_copy(
            update={
                "epochs": epochs,
                "warmup_epochs": self.recipe.warmup_epochs * epochs / self.recipe.epochs,
                "lr": self.recipe.lr * finetune.lr_factor,
            }
        )

    @property
    def stages(self) -> int:
        """How many equal parts the training has, the learning rate beginning anew with each."""
        return self.method.finetune.stages if isinstance(self.method.finetune, StagedFinetune) else 1

    @property
    def restarts(self) -> tuple[float, ...]:
        """At which shares of each stage the learning rate begins anew, beside its start."""
        return self.method.finetune.restarts if isinstance(self.method.finetune, StagedFinetune) else ()

    @property
    def signature(self) -> str:
        """sha256, in hex, of everything that can change a result."""
        return signature(self.model_dump(mode="json"))
