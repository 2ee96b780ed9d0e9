"""The curriculum of staged token dropping: when each stage opens, and what is trained in it."""

from __future__ import annotations

from dataclasses import dataclass

from repro.counting.schedule import first_of_stage, split_stage


@dataclass(frozen=True)
class Phase:
    """Stage `stage`, counted from 1, is open, and either its interpreter or the blocks after it are trained."""

    stage: int
    trains_interpreter: bool


@dataclass(frozen=True)
class Curriculum:
    """`updates` optimizer updates in `stages` equal stages; the interpreter is trained in the first `share` of each.

    Source: IA-RED2, with 30 epochs per stage: 10 for its interpreter and 20 for the blocks after it.
    """

    updates: int
    stages: int
    share: float

    def first(self, stage: int) -> int:
        """The first update of a stage, both counted from 1."""
        return first_of_stage(stage, self.stages, self.updates)

    def phase_at(self, update: int) -> Phase:
        """Return the phase of `update`, counted from 1; 0 means the first."""
        update = min(max(update, 1), self.updates)
        stage = max(s for s in range(1, self.stages + 1) if self.first(s) <= update)
        interpreter_updates = split_stage(self.share, self.first(stage + 1) - self.first(stage))
        return Phase(stage, update - self.first(stage) < interpreter_updates)

    def is_final(self, update: int) -> bool:
        """Whether all stages are open and all interpreters trained, so that selections no longer change."""
        phase = self.phase_at(update)
        return phase.stage == self.stages and not phase.trains_interpreter
