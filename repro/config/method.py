"""A method's section: what it does to weights and tokens, and how it goes on from trained weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from repro.config.recipe import RecipeChanges
from repro.config.section import Section

# A word for `method.starts_from`: the published weights that timm has, instead of those of a run.
PRETRAINED = "pretrained"


class Part(BaseModel):
    """How weights become sparse or tokens are dropped: a class and its options.

    The fields named here say what is left at the end, in terms that every method shares, so that a row can be counted
    without training it. All others are the method's own, declared in its file of conf/method.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    target: str | None = None
    distribution: Literal["erk", "uniform", "global"] | None = None
    heads_density: float | None = Field(default=None, gt=0, le=1)
    neurons_density: float | None = Field(default=None, gt=0, le=1)
    kept: PositiveInt | None = None
    of: PositiveInt | None = None
    # What the method asks of a backbone is no part of a run: checked when a config is composed, and not written.
    needs_joint_attention: bool = Field(default=False, exclude=True)

    @property
    def block(self) -> str | None:
        """What is masked as one, for a method whose target is that of the whole model; None for others."""
        return self.options.get("block")

    @property
    def cost(self) -> str | None:
        """What such a method's target counts: params or macs."""
        return self.options.get("cost")

    @property
    def keep_rates(self) -> tuple[float, ...]:
        """The share of patches that a plan takes to be left after each stage of token dropping; empty without stages.

        What is left in truth, a run measures.
        """
        return tuple(self.options.get("keep_rates") or ())

    @property
    def keep_spread(self) -> float:
        """How far images are taken to differ from `keep_rates`, as a share of them."""
        return float(self.options.get("keep_spread", 0.0))

    @property
    def scorer(self) -> str:
        """What scores a token: `linear` (one output), `query_key` (the class token asks) or `none`."""
        return str(self.options.get("scorer", "linear"))

    @property
    def has_own_scorer(self) -> bool:
        """Whether the scorer's weights are its own, not those of a block."""
        return bool(self.options.get("own_scorer", True)) and self.scorer != "none"

    def scorer_heads(self, most: int) -> int:
        """The heads of a scorer that asks by the class token; those of the backbone where it says none or more."""
        return min(int(self.options.get("heads", most)), most)

    @property
    def rank(self) -> int | None:
        """How many mixtures of `of` tokens attention has for keys; None where it has the tokens."""
        return self.options.get("rank")

    @property
    def takes_budget(self) -> bool:
        """Whether its keep rates are those that the run measured which its own begins with."""
        return self.options.get("budget") == "record"

    @property
    def options(self) -> dict[str, Any]:
        """The method's own options."""
        return dict(self.model_extra or {})


class Finetune(Section):
    """How a method that begins with trained weights goes on: its epochs and learning rate as shares of the recipe's.

    The recipe itself stays that of the run it begins with, so that a change of it changes both.
    """

    epochs_fraction: float = Field(gt=0, le=1)
    lr_factor: float = Field(gt=0)


class StagedFinetune(Section):
    """How a method goes on from trained weights in stages, the learning rate beginning anew with each.

    `restarts` are shares of a stage at which it does so too.
    `changes` is absolute, where `Finetune` scales: the published trainings of this kind have recipes of their own.
    """

    stages: PositiveInt
    # Where there is none the key is not there: runs are what they were before it was.
    restarts: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(), exclude_if=lambda shares: not shares)
    changes: RecipeChanges


class Method(Section):
    """A method: its nominal sparsities as fractions, its parts, and the method whose finished run it starts from."""

    name: str
    sparsity: float = Field(ge=0, lt=1)
    data_sparsity: float = Field(ge=0, lt=1)
    starts_from: str | None = None
    finetune: Finetune | StagedFinetune | None = None
    weights: Part | None
    tokens: Part | None

    @property
    def is_trainable(self) -> bool:
        """Whether every part of the method has code behind it."""
        return all(part.target for part in (self.weights, self.tokens) if part is not None)
