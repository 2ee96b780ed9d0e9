"""The updates whose memory `make bench ROOM=memory` measures include every kind of a training."""

from __future__ import annotations

from benchmarks.composed import published
from benchmarks.memory import OFTEN, RARE, measured_updates


def test_the_first_updates_and_the_middle_of_three_stages() -> None:
    case = published("deit_small", "dense")
    total = case.length.updates
    assert total == 2502 * 600
    assert measured_updates(case) == dict.fromkeys([1, 2, total // 6, total // 2, 5 * total // 6], OFTEN)


def test_the_first_and_last_mask_update_are_measured() -> None:
    case = published("deit_small", "svite")
    ((_, given),) = case.parts
    schedule = given["schedule"]
    every = measured_updates(case)
    assert [update for update in every if schedule.is_due(update)] == [15000, 1_185_000]
    assert [update for update, kind in every.items() if kind == RARE] == [15000, 1_185_000]
    assert max(every) > schedule.end > schedule.last + 1


def test_updates_before_and_after_freezing_a_mask_are_measured() -> None:
    case = published("deit_small", "spartan")
    ((_, given),) = case.parts
    last = given["schedule"].last
    every = measured_updates(case)
    assert (every[last], every[last + 1]) == (RARE, OFTEN)
    assert every[1] == OFTEN, "masks change in every update"
    assert last + 1 < case.length.updates


def test_interpreters_and_blocks_of_a_staged_method_are_measured() -> None:
    from repro.methods.tokens.curriculum import Curriculum

    case = published("deit_small", "ia_red2")
    ((_, given),) = case.parts
    curriculum = Curriculum(case.length.updates, given["interpreters"], given["interpreter_share"])
    seen = [curriculum.phase_at(update) for update in measured_updates(case)]
    assert {moment.stage for moment in seen if not moment.trains_interpreter} == {1, 2, 3}
    assert any(moment.trains_interpreter for moment in seen)
