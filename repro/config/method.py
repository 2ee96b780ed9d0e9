"""The section of a method: its parts on weights and tokens, and how it trains on from another run's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, model_validator

from repro.class_names import cost_model_of, current_name
from repro.config.recipe import RecipeChanges
from repro.config.section import Section

# A value of `method.starts_from`: the published weights that timm has, instead of those of a run.
PRETRAINED = "pretrained"


class Part(BaseModel):
    """How weights become sparse or tokens are dropped: a class, its options, and how to count what it leaves.

    All options but those named here are the method's own, declared in its file of conf/method.
    """

    # Records and files of conf/method keep the keys `kept` and `of`.
    model_config = ConfigDict(frozen=True, extra="allow", validate_by_name=True, serialize_by_alias=True)

    target: Annotated[str, AfterValidator(current_name)] | None = None
    cost_model: str
    distribution: Literal["erk", "uniform", "global"] | None = None
    heads_density: float | None = Field(default=None, gt=0, le=1)
    neurons_density: float | None = Field(default=None, gt=0, le=1)
    kept_tokens: PositiveInt | None = Field(default=None, alias="kept")
    reference_tokens: PositiveInt | None = Field(default=None, alias="of")
    # A requirement on the backbone, checked when a config is composed. It is no part of a run and is not written.
    needs_joint_attention: bool = Field(default=False, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_record(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "cost_model" in values or values.get("target") is None:
            return values
        cost_model = cost_model_of(current_name(values["target"]))
        return values if cost_model is None else {**values, "cost_model": cost_model}

    @property
    def options(self) -> dict[str, Any]:
        """The method's own options."""
        return dict(self.model_extra or {})

    @property
    def uses_recorded_keep_rates(self) -> bool:
        """Whether keep rates are those that the run which this one starts from has measured."""
        return self.options.get("budget") == "record"


class Finetune(Section):
    """Fine-tuning of another run's weights: epochs and learning rate as fractions of the recipe's.

    The recipe stays that of the other run, so that an override of it changes both. The weights are those after the
    share `after` of the other run's updates, which that run keeps if its `run.keep_weights_after` is the same share.
    """

    epochs_fraction: float = Field(gt=0, le=1)
    lr_factor: float = Field(gt=0)
    # Left out if 1: signatures of runs that start from final weights are older than the key.
    after: float = Field(default=1.0, gt=0, le=1, exclude_if=lambda share: share == 1)


class StagedFinetune(Section):
    """Fine-tuning of another run's weights in stages of equal length, each with its own learning-rate schedule.

    `restarts` are fractions of a stage at which the schedule restarts as well. `changes` holds absolute values, because
    published trainings of this kind have recipes of their own.
    """

    stages: PositiveInt
    # Left out if empty: signatures of runs without restarts are older than the key.
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
        """Whether every part of the method is implemented."""
        return all(part.target for part in (self.weights, self.tokens) if part is not None)
