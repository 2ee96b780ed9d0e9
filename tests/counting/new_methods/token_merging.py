"""Token merging (Bolya et al., ICLR 2023): `merged_per_block` tokens join others after the attention of each block."""

from __future__ import annotations

from dataclasses import dataclass

from repro.counting.changes import ModelChanges
from repro.counting.cost_model import NOT_MEASURED, CostModel, Measurements
from repro.counting.geometry import Geometry


@dataclass(frozen=True)
class TokenMerging(CostModel):
    merged_per_block: int

    @property
    def faster_by(self) -> str:
        return f"{self.merged_per_block} tokens merged in each block"

    def changes(self, model: Geometry, measured: Measurements = NOT_MEASURED) -> ModelChanges:
        entering = [model.tokens - self.merged_per_block * block for block in range(model.token_blocks)]
        similarities = sum((count // 2) * (count - count // 2) * model.token_width for count in entering)
        shares = {}
        for layer in model.layers(model.tokens):
            if layer.block is not None:
                merged = self.merged_per_block if ".mlp." in layer.name else 0
                shares[layer.name] = (entering[layer.block] - merged) / model.tokens
        return ModelChanges(
            layer_tokens=shares,
            attention_share=sum(count**2 for count in entering) / (model.token_blocks * model.tokens**2),
            added_macs=similarities,
            added_macs_as_run=similarities,
        )

    def errors(self, model: Geometry, published: Geometry, method: str, backbone: str) -> list[str]:
        least = model.tokens - self.merged_per_block * model.token_blocks
        if least >= 1:
            return []
        return [f"method.tokens.merged_per_block={self.merged_per_block}: leaves {least} tokens"]
