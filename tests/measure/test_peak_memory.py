"""The updates whose memory `make bench ROOM=memory` looks at: each kind that a training has is among them."""

from __future__ import annotations

from benchmarks.composed import published
from benchmarks.memory import OFTEN, RARE, moments


def test_the_first_updates_and_the_middle_of_three_stages() -> None:
    case = published("deit_small", "dense")
    total = case.length.updates
    assert total == 2502 * 600
    assert moments(case) == dict.fromkeys([1, 2, total // 6, total // 2, 5 * total // 6], OFTEN)


def test_updates_that_move_masks_for_the_first_and_the_last_time() -> None:
    case = published("deit_small", "svite")
    ((_, given),) = case.parts
    schedule = given["schedule"]
    every = moments(case)
    assert [update for update in every if schedule.is_due(update)] == [15000, 1_185_000]
    assert [update for update, kind in every.items() if kind == RARE] == [15000, 1_185_000]
    assert max(every) > schedule.end > schedule.last + 1


def test_a_mask_that_freezes_is_looked_at_before_and_after() -> None:
    case = published("deit_small", "spartan")
    ((_, given),) = case.parts
    last = given["schedule"].last
    every = moments(case)
    assert (every[last], every[last + 1]) == (RARE, OFTEN)
    assert every[1] == OFTEN, "masks move with every update"
    assert last + 1 < case.length.updates


def test_of_a_staged_method_interpreters_and_blocks_learn() -> None:
    from repro.tokens.curriculum import Curriculum

    case = published("deit_small", "ia_red2")
    ((_, given),) = case.parts
    curriculum = Curriculum(case.length.updates, given["interpreters"], given["interpreter_share"])
    seen = [curriculum.at(update) for update in moments(case)]
    assert {moment.stage for moment in seen if not moment.is_interpreting} == {1, 2, 3}
    assert any(moment.is_interpreting for moment in seen)
