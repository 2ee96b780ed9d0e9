"""Videos that break or go while a run trains: what comes in their place, and when that is too many."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch
from video_files import load, write, zeroed

from repro.data.clips import Clips
from repro.data.loader import TrainLoader
from repro.errors import UserError

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.mark.parametrize("how", ["broken", "gone"])
def test_a_video_that_is_lost_while_a_run_trains_is_replaced_by_the_next_of_its_class(
    kinetics: Path, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    splits = load(kinetics)
    before = [splits.test.take(torch.arange(2))[index][0] for index in range(2)]
    train = splits.train
    assert isinstance(train, Clips)
    clips = train.as_("clip1")
    whole = [clips[index][0] for index in range(8)]
    lost = kinetics / "train/archery/3.mp4"
    if how == "broken":
        zeroed(lost)
    else:
        lost.unlink()
    now = [clips[index][0] for index in range(8)]
    assert now[3].equal(whole[0])  # the class begins again behind its last
    assert [index for index in range(8) if not now[index].equal(whole[index])] == [3]
    assert clips[3][1] == 0
    said = capfd.readouterr().err
    assert said.count("archery/3.mp4") == 1
    assert "the next video of its class is taken for it" in said
    assert [int(some.marks.sum()) for some in splits.lost] == [1, 0]
    # A run that goes on has the same videos at the same places, though now one of them is not listed.
    anew = load(kinetics)
    assert anew.fingerprint != splits.fingerprint
    assert len(anew.train) == 7
    again = load(kinetics, began_with=splits.fingerprint)
    assert (again.fingerprint, len(again.train), len(again.skipped)) == (splits.fingerprint, 8, 4)
    assert [int(some.marks.sum()) for some in again.lost] == [1, 0]
    assert isinstance(again.train, Clips)
    assert all(again.train.as_("clip1")[index][0].equal(now[index]) for index in range(8))
    assert all(again.test[index][0].equal(before[index]) for index in range(2))


def test_more_than_a_few_lost_videos_end_the_run(kinetics: Path) -> None:
    splits = load(kinetics)
    for name in ("archery/0.mp4", "tap dancing/3.mp4"):
        (kinetics / "train" / name).unlink()
    splits.train[0]
    with pytest.raises(UserError, match=r"tap dancing/3\.mp4: .*; 2 videos have broken since .*, at most 1 may"):
        splits.train[7]
    assert load(kinetics, began_with=splits.fingerprint).fingerprint != splits.fingerprint


def test_a_video_that_has_become_another_is_no_lost_one(kinetics: Path) -> None:
    splits = load(kinetics)
    write(kinetics / "train/archery/0.mp4", count=11)
    assert load(kinetics, began_with=splits.fingerprint).fingerprint != splits.fingerprint


def test_lost_videos_are_marked_by_loader_processes(kinetics: Path) -> None:
    splits = load(kinetics)
    (kinetics / "train/archery/1.mp4").unlink()
    loader = TrainLoader(splits.train, global_batch=8, micro_batch=8, seed=0, repeats=1, workers=1)
    with closing(loader.batches(0)) as batches:
        next(batches)
    assert [some.names[int(place)] for some in splits.lost for place in some.marks.nonzero()] == ["train/archery/1.mp4"]
