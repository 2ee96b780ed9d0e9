"""Clips: which frames of a video, and which square of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from video_files import frames, load

from repro.data.clips import clip_frames, resized, three_crops

pytestmark = pytest.mark.usefixtures("empty_cache")


def test_clip_1_is_the_middle_and_video_1_is_left_centre_and_right(kinetics: Path) -> None:
    splits = load(kinetics)
    clip, _ = splits.test[0]
    views, _ = splits.views["video1"][0]
    # 12 frames, 4 of them 2 apart, the first after half of the 6 that are free; 24 of 32 columns.
    raw = torch.from_numpy(frames(12, seed=20)[[3, 5, 7, 9]]).permute(0, 3, 1, 2).float() / 255
    seen = (raw - 0.45) / 0.225
    torch.testing.assert_close(clip, seen[..., 4:28])
    torch.testing.assert_close(views, torch.stack([seen[..., :24], seen[..., 4:28], seen[..., 8:]]))


def test_training_clips_are_drawn_from_the_generator_alone(kinetics: Path) -> None:
    train = load(kinetics).train
    assert train.is_random

    def drawn(seed: int) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return train[0][0]

    assert drawn(0).equal(drawn(0))
    assert not drawn(0).equal(drawn(1))
    assert drawn(0).shape == (4, 3, 24, 24)


@given(st.integers(1, 400), st.integers(1, 16), st.integers(1, 40), st.floats(0, 1, exclude_max=True))
def test_frames_of_a_clip_are_in_the_video_and_in_order(total: int, count: int, step: int, start: float) -> None:
    found = clip_frames(total, count, step, start)
    assert len(found) == count
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] < total
    if (count - 1) * step < total:
        assert {later - earlier for earlier, later in itertools.pairwise(found)} <= {step}


def test_frames_of_a_clip_by_hand() -> None:
    assert clip_frames(300, 8, 32, 0.0) == list(range(0, 225, 32))
    assert clip_frames(300, 8, 32, 0.9999)[-1] == 299
    assert clip_frames(9, 3, 32, 0.7) == [0, 4, 8]


def test_an_upright_video_is_cropped_above_and_below() -> None:
    images = resized(torch.from_numpy(frames(2, height=40, width=20)), 10)
    assert images.shape == (2, 3, 20, 10)
    above, centre, below = three_crops(images, 10)
    assert above.equal(images[:, :, :10])
    assert centre.equal(images[:, :, 5:15])
    assert below.equal(images[:, :, 10:])
