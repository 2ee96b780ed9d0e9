"""The curriculum of staged token dropping: when which stage opens, and what learns. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from repro.schedule import cut_at, first_of_stage


@dataclass(frozen=True)
class Moment:
    """Where an update is: stage `stage` (from 1) is open, and its interpreter learns, or the blocks behind it."""

    stage: int
    is_interpreting: bool


@dataclass(frozen=True)
class Curriculum:
    """`stages` equal parts of `updates` optimizer updates; in each, interpreter `stage` learns for `share` of it.

    Source: IA-RED2, 30 epochs a stage, 10 for its interpreter and 20 for the blocks behind it.
    """

    updates: int
    stages: int
    share: float

    def first(self, stage: int) -> int:
        """The first update of a stage, both counted from 1."""
        return first_of_stage(stage, self.stages, self.updates)

    def at(self, update: int) -> Moment:
        """Where `update` (from 1; 0, before the first, counts as it) is."""
        now = min(max(update, 1), self.updates)
        stage = max(s for s in range(1, self.stages + 1) if self.first(s) <= now)
        # Both learn something in the shortest of stages, where there is room for two.
        interpreting = cut_at(self.share, self.first(stage + 1) - self.first(stage))
        return Moment(stage, now - self.first(stage) < interpreting)

    def is_final(self, update: int) -> bool:
        """Whether all stages are open and no interpreter learns any more: from here on the same patches are kept."""
        moment = self.at(update)
        return moment.stage == self.stages and not moment.is_interpreting
