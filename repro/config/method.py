"""The `method` section: its parts on weights and tokens, and how it fine-tunes the weights of another run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, model_validator

from repro.class_names import cost_model_of, current_name
from repro.config.sections import RecipeChanges, Section

# The value of `method.starts_from` for timm's published weights instead of those of a run.
PRETRAINED = "pretrained"


class Part(BaseModel):
    """The part of a method that sparsifies weights or drops tokens.

    It names the class that implements it (`target`; None if there is no training yet), the class that counts its cost
    (`cost_model`), and their options. Options that are not declared here belong to the method alone, and are declared
    in its file in conf/method.
    """

    # The aliases are the published names of these keys, in records and in conf/method.
    model_config = ConfigDict(frozen=True, extra="allow", validate_by_name=True, serialize_by_alias=True)

    target: Annotated[str, AfterValidator(current_name)] | None = None
    cost_model: str
    distribution: Literal["erk", "uniform", "global"] | None = None
    heads_density: float | None = Field(default=None, gt=0, le=1)
    neurons_density: float | None = Field(default=None, gt=0, le=1)
    kept_tokens: PositiveInt | None = Field(default=None, alias="kept")
    reference_tokens: PositiveInt | None = Field(default=None, alias="of")
    # A requirement on the backbone, which is checked when a config is composed and not written to records.
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
        """Whether keep rates are those that the run's origin has measured."""
        return self.options.get("budget") == "record"


class Finetune(Section):
    """Fine-tuning of another run's weights, with epochs and learning rate relative to the recipe.

    The recipe is that of the other run, so that an override of the recipe changes both. The weights are those after the
    share `after` of the other run's updates; it saves them if its `run.keep_weights_after` is the same share.
    """

    epochs_fraction: float = Field(gt=0, le=1)
    lr_factor: float = Field(gt=0)
    # Excluded if 1, so that runs that start from final weights keep the signatures from before this key existed.
    after: float = Field(default=1.0, gt=0, le=1, exclude_if=lambda share: share == 1)


class StagedFinetune(Section):
    """Fine-tuning of another run's weights in stages of equal length, each with its own learning-rate schedule.

    `restarts` are fractions of a stage at which the schedule also restarts. `changes` holds absolute values, because
    published trainings of this kind have their own recipes.
    """

    stages: PositiveInt
    # Excluded if empty, so that runs without restarts keep the signatures from before this key existed.
    restarts: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(), exclude_if=lambda shares: not shares)
    changes: RecipeChanges


class Method(Section):
    """A method: its nominal sparsities, its parts, and where its weights come from."""

    name: str
    sparsity: float = Field(ge=0, lt=1)  # nominal sparsity of the weights, as a fraction
    data_sparsity: float = Field(ge=0, lt=1)  # nominal sparsity of the tokens, as a fraction
    # The method of the run whose weights it starts from, `<table>/<method>` for another table, or `PRETRAINED`.
    starts_from: str | None = None
    finetune: Finetune | StagedFinetune | None = None
    weights: Part | None
    tokens: Part | None

    @property
    def is_trainable(self) -> bool:
        """Whether every part of the method is implemented."""
        return all(part.target for part in (self.weights, self.tokens) if part is not None)
